"""Where the emotion network looked: class-activation maps by Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391)."""

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE, EMOTIONS
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import Crops
from emotion_ai.models import FaceNetwork
from emotion_ai.vision.crops import resize_to_crop

_BATCH = 64


def activation_maps(
    network: FaceNetwork, images: Crops | NDArray[np.float32], classes: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """How much each place speaks for a class, float32 (N, 96, 96): 0 least, 1 most of its face, 0 all over if nothing.

    The maps are the encoder's last ones weighted by the gradient of the class's logit, so they are as coarse as those
    (6x6 in the bundled network), and enlarged. They say where the evidence is, not how strong it is: each face has its
    own scale.

    Args:
        network: for emotion; it is left as it is.
        images: gray faces (H, W) of any size, 0-255.
        classes: int (N,), in the order of `EMOTIONS`; the predicted ones without it.

    Raises:
        ConfigError: a network for keypoints, or classes that are not one of the five for each face.
    """
    # it brings OpenCV and takes seconds to import: not for those who need no maps
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if network.task != "emotion":
        raise ConfigError(f"activation maps show classes; the network is for {network.task}: give one for emotion")
    if classes is not None and (len(classes) != len(images) or not np.isin(classes, range(len(EMOTIONS))).all()):
        raise ConfigError(
            f"classes {np.asarray(classes).tolist()}: give 0 to {len(EMOTIONS) - 1} for each of the faces"
        )
    if len(images) == 0:
        return np.zeros((0, CROP_SIZE, CROP_SIZE), np.float32)
    device = next(network.parameters()).device
    frames = torch.from_numpy(np.stack([resize_to_crop(image) for image in images]))[:, None].to(device)
    # a copy, since the library changes modes and gradients; of the logits, since probabilities saturate
    copy = deepcopy(network).requires_grad_(True)
    copy.forward = copy.scores  # type: ignore[method-assign]
    maps = []
    with GradCAM(copy, [copy.encoder]) as cam, torch.enable_grad():
        for start in range(0, len(frames), _BATCH):
            rows = slice(start, start + _BATCH)
            targets = None if classes is None else [ClassifierOutputTarget(int(c)) for c in classes[rows]]
            maps.append(cam(frames[rows], targets))
    return np.concatenate(maps).astype(np.float32).clip(0, 1)
