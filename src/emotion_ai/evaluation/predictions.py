"""A network's predictions for a whole dataset."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from emotion_ai.data.batches import resize_to_crops
from emotion_ai.models import FaceNetwork
from emotion_ai.terminal import Console


def predict(
    network: FaceNetwork, images: NDArray[np.uint8], flip: bool = False, batch: int = 256, title: str = "predicting"
) -> NDArray[np.float32]:
    """Keypoints float32 (N, 15, 2) or probabilities float32 (N, K) of images uint8 (N, H, W).

    Args:
        flip: averages the predictions for the face and its mirror image.
        title: of the progress bar.
    """
    with torch.inference_mode():
        return np.concatenate(
            [
                ((network(crops) + network.mirrored(crops)) / 2 if flip else network(crops)).cpu().numpy()
                for crops in _batches(network, images, batch, title)
            ]
        )


def predict_mirrored(network: FaceNetwork, images: NDArray[np.uint8], batch: int = 256) -> NDArray[np.float32]:
    """The predictions for the mirror images, in the coordinates of the original images."""
    with torch.inference_mode():
        return np.concatenate(
            [network.mirrored(crops).cpu().numpy() for crops in _batches(network, images, batch, "mirror images")]
        )


def predict_uncertainty(
    network: FaceNetwork, images: NDArray[np.uint8], batch: int = 256
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keypoints and their standard deviations, float32 (N, 15, 2) each, in pixels of the crop.

    The keypoints are those of `predict` without `flip`.
    """
    with torch.inference_mode():
        outputs = [network.uncertainty(crops) for crops in _batches(network, images, batch, "predicting")]
    points, deviations = (torch.cat(part).cpu().numpy() for part in zip(*outputs, strict=True))
    return points, deviations


def _batches(network: FaceNetwork, images: NDArray[np.uint8], batch: int, title: str) -> Iterator[Tensor]:
    device = next(network.parameters()).device
    starts: Iterable[int] = range(0, len(images), batch)
    console = Console(stderr=True)
    for start in track(starts, title, console=console, transient=True, disable=not console.is_terminal):
        yield resize_to_crops(torch.from_numpy(images[start : start + batch]).to(device))
