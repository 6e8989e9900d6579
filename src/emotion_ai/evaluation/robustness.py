"""Robustness: accuracy on faces that are shifted, rotated, blurred, darkened, shrunk or covered."""

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
from emotion_ai.data.batches import image_tensor, resize_to_crops
from emotion_ai.data.dataset import FaceDataset, Targets
from emotion_ai.evaluation.metrics import EmotionScores, KeypointErrors
from emotion_ai.evaluation.predictions import predict
from emotion_ai.evaluation.tables import Column, ReportTable
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.models.device import Placement

_IDENTITY = {"angle": 0.0, "factor": 1.0, "dx": 0.0, "dy": 0.0}
UNCHANGED = "unchanged"
_GEOMETRY: dict[str, dict[str, float]] = {
    UNCHANGED: {},
    "shift right 5 %": {"dx": 0.05},
    "shift down 5 %": {"dy": 0.05},
    "shift right 10 %": {"dx": 0.1},
    "scale 0.9": {"factor": 0.9},
    "scale 1.1": {"factor": 1.1},
    "rotation 10 degrees": {"angle": 10.0},
    "rotation 20 degrees": {"angle": 20.0},
}


def _covered(crops: Tensor, top: int, bottom: int) -> Tensor:
    """Paints the rows from `top` up to `bottom` gray."""
    covered = crops.clone()
    covered[..., top:bottom, :] = 128
    return covered


def _as_jpeg(crops: Tensor, quality: int) -> Tensor:
    decoded = []
    for pixels in _pixels(crops):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(stream)))
    return torch.from_numpy(np.stack(decoded))[:, None].float()


_APPEARANCE: dict[str, Callable[[Tensor], Tensor]] = {
    "blur, sigma 2 pixels": lambda x: blurred(blurred(x)),
    "noise, sigma 15": lambda x: x + 15 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
    "a third as bright": lambda x: x / 3,
    "twice as bright, clipped": lambda x: x * 2,
    "24x24 pixels": lambda x: F.interpolate(
        F.interpolate(x, (24, 24), mode="bilinear", antialias=True), (CROP_SIZE, CROP_SIZE), mode="bilinear"
    ),
    "JPEG, quality 20": lambda x: _as_jpeg(x, 20),
    # the mean face's eyes and brows are in the rows 29 to 38
    "eyes covered": lambda x: _covered(x, CROP_SIZE // 4, CROP_SIZE // 2),
    "lower third covered": lambda x: _covered(x, CROP_SIZE * 2 // 3, CROP_SIZE),
}


def robustness(network: FaceNetwork, faces: FaceDataset) -> dict[str, float]:
    """RMSE in pixels, or accuracy, for each change to the faces.

    Emotion networks are also evaluated on faces cropped like the keypoint datasets, as the faces of photos are: the
    bundled keypoint network finds each face's points, and the new crop aligns them with the mean face.
    """
    crops = resize_to_crops(image_tensor(faces.images))
    values = {}
    for name, change in _GEOMETRY.items():
        matrix, flipped = _matrix(len(faces), **{**_IDENTITY, **change})
        targets = faces.targets
        if network.task == "keypoints":
            targets = warp_points(torch.from_numpy(faces.points), matrix, flipped).numpy()
        values[name] = _value(network, warp_images(crops, matrix), targets)
    for name, alter in _APPEARANCE.items():
        values[name] = _value(network, alter(crops).clamp(0, 255), faces.targets)
    if network.task == "emotion":
        values["cropped like keypoint faces"] = _value(network, _recropped(crops, network), faces.targets)
    return values


def robustness_table(network: FaceNetwork, faces: FaceDataset) -> ReportTable:
    """The values of `robustness`, and their differences to the unchanged faces."""
    values = robustness(network, faces)
    metric = "RMSE (pixels)" if network.task == "keypoints" else "accuracy"
    columns = (Column("change to the faces"), Column(metric), Column("difference", "+.4f"))
    rows = tuple((name, value, value - values[UNCHANGED]) for name, value in values.items())
    return ReportTable("Robustness", columns, rows)


def _matrix(count: int, angle: float, factor: float, dx: float, dy: float) -> tuple[Tensor, Tensor]:
    flipped = torch.zeros(count, dtype=torch.bool)
    shift = torch.tensor([dx, dy]).expand(count, 2) * CROP_SIZE
    return affine(torch.deg2rad(torch.full((count,), angle)), torch.full((count,), factor), shift, flipped), flipped


def _recropped(crops: Tensor, network: FaceNetwork) -> Tensor:
    finder = Placement.like(network).place(load_network("bundled", "keypoints").network)
    points = torch.from_numpy(predict(finder, _pixels(crops), title="cropping"))
    mean = torch.tensor(MEAN_FACE)
    centre, mean_centre = points.mean(1), mean.mean(0)
    spread = (points - centre[:, None]).square().sum((1, 2)).sqrt()
    factor = ((mean - mean_centre).square().sum().sqrt() / spread.clamp(min=1)).clamp(0.5, 2)
    middle = (CROP_SIZE - 1) / 2
    shift = mean_centre - middle - factor[:, None] * (centre - middle)
    angle, flipped = torch.zeros(len(crops)), torch.zeros(len(crops), dtype=torch.bool)
    return warp_images(crops, affine(angle, factor, shift, flipped))


def _pixels(crops: Tensor) -> NDArray[np.uint8]:
    return crops[:, 0].round().byte().numpy()


def _value(network: FaceNetwork, crops: Tensor, targets: Targets) -> float:
    predictions = predict(network, _pixels(crops), title="robustness")
    if network.task == "keypoints":
        return KeypointErrors.of(predictions, targets.astype(np.float32, copy=False)).rmse
    return EmotionScores(predictions, targets.astype(np.int64, copy=False)).accuracy
