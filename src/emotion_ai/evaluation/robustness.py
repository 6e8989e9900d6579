"""Robustness: accuracy on faces that are shifted, rotated, blurred, darkened, shrunk or covered."""

import io
from collections.abc import Callable
from functools import partial

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
_FACES = 1024  # that are changed at once

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


_APPEARANCE: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "blur, sigma 2 pixels": lambda x, _: blurred(blurred(x)),
    "noise, sigma 15": lambda x, generator: x + 15 * torch.randn(x.shape, generator=generator),
    "a third as bright": lambda x, _: x / 3,
    "twice as bright, clipped": lambda x, _: x * 2,
    "24x24 pixels": lambda x, _: F.interpolate(
        F.interpolate(x, (24, 24), mode="bilinear", antialias=True), (CROP_SIZE, CROP_SIZE), mode="bilinear"
    ),
    "JPEG, quality 20": lambda x, _: _as_jpeg(x, 20),
    # the mean face's eyes and brows are in the rows 29 to 38
    "eyes covered": lambda x, _: _covered(x, CROP_SIZE // 4, CROP_SIZE // 2),
    "lower third covered": lambda x, _: _covered(x, CROP_SIZE * 2 // 3, CROP_SIZE),
}


def robustness(network: FaceNetwork, faces: FaceDataset) -> dict[str, float]:
    """RMSE in pixels, or accuracy, for each change to the faces.

    Emotion networks are also evaluated on faces cropped like the keypoint datasets, as the faces of photos are: the
    bundled keypoint network finds each face's points, and the new crop aligns them with the mean face.
    """
    values = {}
    for name, settings in _GEOMETRY.items():
        change = {**_IDENTITY, **settings}
        targets = faces.targets
        if network.task == "keypoints":
            targets = warp_points(torch.from_numpy(faces.points), *_matrix(len(faces), **change)).numpy()
        values[name] = _value(network, faces, lambda x, c=change: warp_images(x, _matrix(len(x), **c)[0]), targets)  # type: ignore[misc]
    for name, alter in _APPEARANCE.items():
        generator = torch.Generator().manual_seed(0)
        values[name] = _value(network, faces, lambda x, a=alter, g=generator: a(x, g).clamp(0, 255), faces.targets)  # type: ignore[misc]
    if network.task == "emotion":
        recropped = partial(_recropped, network=network)
        values["cropped like keypoint faces"] = _value(network, faces, recropped, faces.targets)
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


def _value(network: FaceNetwork, faces: FaceDataset, change: Callable[[Tensor], Tensor], targets: Targets) -> float:
    """The metric for changed faces, of which a part is held at a time: as crops they take 16 times their memory."""
    parts = []
    for start in range(0, len(faces), _FACES):
        crops = resize_to_crops(image_tensor(faces.images[start : start + _FACES]))
        parts.append(predict(network, _pixels(change(crops)), title="robustness"))
    predictions = np.concatenate(parts)
    if network.task == "keypoints":
        return KeypointErrors.of(predictions, targets.astype(np.float32, copy=False)).rmse
    return EmotionScores(predictions, targets.astype(np.int64, copy=False)).accuracy
