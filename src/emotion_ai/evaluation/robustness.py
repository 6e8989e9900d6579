"""How the answers change when faces are framed, turned, blurred, darkened or shrunk."""

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from emotion_ai.contract import CROP_SIZE, MEAN_FACE
from emotion_ai.data.augment import affine, blurred, warp_images, warp_points
from emotion_ai.data.batches import resize_to_crops
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.evaluation.metrics import EmotionScores, KeypointErrors
from emotion_ai.evaluation.predictions import predict
from emotion_ai.models import FaceNetwork, load_network

_STRAIGHT = {"angle": 0.0, "factor": 1.0, "dx": 0.0, "dy": 0.0}
AS_IT_IS = "as it is"
_GEOMETRY = {
    AS_IT_IS: {},
    "shift right 5 %": {"dx": 0.05},
    "shift down 5 %": {"dy": 0.05},
    "shift right 10 %": {"dx": 0.1},
    "scale 0.9": {"factor": 0.9},
    "scale 1.1": {"factor": 1.1},
    "rotation 10 degrees": {"angle": 10.0},
    "rotation 20 degrees": {"angle": 20.0},
}


def _covered(frames: Tensor, top: int, bottom: int) -> Tensor:
    """Rows from `top` up to `bottom` in gray."""
    covered = frames.clone()
    covered[..., top:bottom, :] = 128
    return covered


def _as_jpeg(frames: Tensor, quality: int) -> Tensor:
    decoded = []
    for pixels in _pixels(frames):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(stream)))
    return torch.from_numpy(np.stack(decoded))[:, None].float()


_LOOKS: dict[str, Callable[[Tensor], Tensor]] = {
    "blur, sigma 2 pixels": lambda x: blurred(blurred(x)),
    "noise, sigma 15": lambda x: x + 15 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    "a third as bright": lambda x: x / 3,
    "twice as bright, clipped": lambda x: x * 2,
    "24x24 pixels": lambda x: F.interpolate(
        F.interpolate(x, (24, 24), mode="bilinear", antialias=True), (CROP_SIZE, CROP_SIZE), mode="bilinear"
    ),
    "JPEG, quality 20": lambda x: _as_jpeg(x, 20),
    "eyes covered": lambda x: _covered(
        x, CROP_SIZE // 4, CROP_SIZE // 2
    ),  # the mean face's eyes and brows: rows 29 to 38
    "lower third covered": lambda x: _covered(x, CROP_SIZE * 2 // 3, CROP_SIZE),
}


def robustness(network: FaceNetwork, faces: FaceDataset) -> dict[str, float]:
    """RMSE in pixels, or accuracy, by the change made to the faces.

    For emotion also under the keypoint faces' framing, which photographs are cropped in: the bundled keypoint network
    says where each face's points are, and the face is cropped anew so that they lie as the mean face's do.
    """
    frames = resize_to_crops(torch.from_numpy(faces.images))
    table = {}
    for name, change in _GEOMETRY.items():
        matrix, flipped = _matrix(len(faces), **{**_STRAIGHT, **change})
        targets = faces.targets
        if network.task == "keypoints":
            targets = warp_points(torch.from_numpy(targets), matrix, flipped).numpy()
        table[name] = _figure(network, warp_images(frames, matrix), targets)
    for name, look in _LOOKS.items():
        table[name] = _figure(network, look(frames).clamp(0, 255), faces.targets)
    if network.task == "emotion":
        table["keypoint framing"] = _figure(network, _reframed(frames), faces.targets)
    return table


def _matrix(count: int, angle: float, factor: float, dx: float, dy: float) -> tuple[Tensor, Tensor]:
    flipped = torch.zeros(count, dtype=torch.bool)
    shift = torch.tensor([dx, dy]).expand(count, 2) * CROP_SIZE
    return affine(torch.deg2rad(torch.full((count,), angle)), torch.full((count,), factor), shift, flipped), flipped


def _reframed(frames: Tensor) -> Tensor:
    points = torch.from_numpy(predict(load_network("bundled", "keypoints")[0], _pixels(frames), title="framing"))
    mean = torch.tensor(MEAN_FACE)
    centre, wanted = points.mean(1), mean.mean(0)
    spread = (points - centre[:, None]).square().sum((1, 2)).sqrt()
    factor = ((mean - wanted).square().sum().sqrt() / spread.clamp(min=1)).clamp(0.5, 2)
    middle = (CROP_SIZE - 1) / 2
    shift = wanted - middle - factor[:, None] * (centre - middle)
    return warp_images(
        frames, affine(torch.zeros(len(frames)), factor, shift, torch.zeros(len(frames), dtype=torch.bool))
    )


def _pixels(frames: Tensor) -> NDArray[np.uint8]:
    return frames[:, 0].round().byte().numpy()


def _figure(network: FaceNetwork, frames: Tensor, targets: NDArray[np.float32] | NDArray[np.int64]) -> float:
    answers = predict(network, _pixels(frames), title="robustness")
    if network.task == "keypoints":
        return KeypointErrors.of(answers, targets).rmse  # type: ignore[arg-type]
    return EmotionScores(answers, targets).accuracy  # type: ignore[arg-type]
