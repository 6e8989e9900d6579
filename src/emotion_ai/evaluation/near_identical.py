"""Near-identical images: frames of one video, or copies of one picture, which are not independent."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

SIMILAR = 0.9
"""Correlation from which two images are near-identical.

At this value no group of the keypoint test faces, 298 frames of 25 people, holds two people; at 0.88 one does.
"""
_SIDE = 16  # pixels to which images are shrunk before they are compared
_FLAT = 1e-3  # gray levels: an image that varies less is blank


def near_identical_groups(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """A group number for each image, int64 (N,), from 0; images (N, H, W) like the first one of a group belong to it.

    Images are alike if their correlation at 16x16 pixels is at least `SIMILAR`, whatever their brightness and contrast.
    Comparing with the first image only keeps chains of small changes from joining different faces. Blank images are
    alike.
    """
    small = F.interpolate(torch.from_numpy(images)[:, None].float(), (_SIDE, _SIDE), mode="bilinear", antialias=True)
    flat = small.flatten(1).numpy()
    flat -= flat.mean(1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    blank = norms[:, 0] < _FLAT * _SIDE
    flat /= np.maximum(norms, _FLAT)
    groups = np.full(len(images), -1, np.int64)
    count = 0
    for row in range(len(images)):
        if groups[row] < 0:
            rest = np.flatnonzero(groups < 0)
            alike = blank[rest] if blank[row] else (flat[rest] @ flat[row] >= SIMILAR) & ~blank[rest]
            groups[rest[alike]] = count
            groups[row] = count
            count += 1
    return groups
