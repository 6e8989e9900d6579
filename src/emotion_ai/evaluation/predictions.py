"""A network's predictions for a whole dataset."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from emotion_ai.data.batches import image_tensor, resize_to_crops
from emotion_ai.models import FaceNetwork
from emotion_ai.models.device import DeviceBatches
from emotion_ai.terminal import Console, Progress

BATCH = 256


def predict(
    network: FaceNetwork, images: NDArray[np.uint8], flip: bool = False, batch: int = BATCH, title: str = "predicting"
) -> NDArray[np.float32]:
    """Keypoints float32 (N, 15, 2) or probabilities float32 (N, K) of images uint8 (N, H, W).

    Args:
        flip: averages the predictions for the face and its mirror image.
        batch: images in a batch, fewer if the device's memory is too small.
        title: of the progress bar.
    """

    def run(crops: Tensor) -> tuple[Tensor]:
        return ((network(crops) + network.mirrored(crops)) / 2 if flip else network(crops),)

    return _run(network, run, images, batch, title)[0]


def predict_mirrored(network: FaceNetwork, images: NDArray[np.uint8], batch: int = BATCH) -> NDArray[np.float32]:
    """The predictions for the mirror images, in the coordinates of the original images."""
    return _run(network, lambda crops: (network.mirrored(crops),), images, batch, "mirror images")[0]


def predict_uncertainty(
    network: FaceNetwork, images: NDArray[np.uint8], batch: int = BATCH
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keypoints and their standard deviations, float32 (N, 15, 2) each, in pixels of the crop.

    The keypoints are those of `predict` without `flip`.
    """
    points, deviations = _run(network, network.uncertainty, images, batch, "predicting")
    return points, deviations


def predict_scores(network: FaceNetwork, images: NDArray[np.uint8], batch: int = BATCH) -> NDArray[np.float32]:
    """What the loss takes: logits float32 (N, K) of an emotion network."""
    return _run(network, lambda crops: (network.scores(crops),), images, batch, "logits")[0]


def _run(
    network: FaceNetwork,
    function: Callable[[Tensor], tuple[Tensor, ...]],
    images: NDArray[np.uint8],
    batch: int,
    title: str,
) -> tuple[NDArray[np.float32], ...]:
    console = Console(stderr=True)
    batches = DeviceBatches(network.device, batch)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=len(images))
        return batches.run(
            lambda part: function(resize_to_crops(part)), images, image_tensor, lambda n: progress.advance(task, n)
        )
