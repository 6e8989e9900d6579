"""Class activation maps of the emotion network by Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391)."""

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import Crops
from emotion_ai.models import FaceNetwork
from emotion_ai.vision.crops import resize_to_crop

_BATCH = 64


def activation_maps(
    network: FaceNetwork, images: Crops | NDArray[np.float32], classes: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Evidence for a class at each pixel, float32 (N, 96, 96), from 0 to 1, the most in each face; 0 if there is none.

    The encoder's last feature maps, weighted by the gradient of the class's logit and enlarged from their size (6x6 in
    the bundled network). They show where the evidence is, not how strong it is: each face has its own scale.

    Args:
        network: for emotion; it is not changed.
        images: gray faces (H, W) of any size, 0-255.
        classes: int (N,), indices of the network's classes; by default the predicted ones.

    Raises:
        ConfigError: a network for keypoints, or classes other than one of its own for each face.
    """
    # takes seconds to import, with OpenCV
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if network.task != "emotion":
        raise ConfigError(f"activation maps need an emotion network, got one for {network.task}")
    count = len(network.spec.class_set)
    if classes is not None and (len(classes) != len(images) or not np.isin(classes, range(count)).all()):
        raise ConfigError(
            f"classes must be from 0 to {count - 1}, one for each face, got {np.asarray(classes).tolist()}"
        )
    if len(images) == 0:
        return np.zeros((0, CROP_SIZE, CROP_SIZE), np.float32)
    crops = torch.from_numpy(np.stack([resize_to_crop(image) for image in images]))[:, None].to(network.device)
    # a copy, since the library changes modes and gradients; of the logits, since probabilities saturate
    copy = deepcopy(network).requires_grad_(True)
    copy.half_precision = None  # small gradients would become 0
    copy.forward = copy.scores  # type: ignore[method-assign]
    maps = []
    with GradCAM(copy, [copy.encoder]) as cam, torch.enable_grad():
        for start in range(0, len(crops), _BATCH):
            rows = slice(start, start + _BATCH)
            targets = None if classes is None else [ClassifierOutputTarget(int(c)) for c in classes[rows]]
            maps.append(cam(crops[rows], targets))
    return np.concatenate(maps).astype(np.float32).clip(0, 1)
