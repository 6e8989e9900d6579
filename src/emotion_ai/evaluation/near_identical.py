"""Near-identical images: frames of one video, or copies of one picture, which are not independent."""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from emotion_ai.data.batches import image_tensor
from emotion_ai.data.image_arrays import blocks

SIMILAR = 0.9
"""Correlation from which two images are near-identical.

At this value no group of the keypoint test faces, 298 frames of 25 people, holds two people; at 0.88 one does.
"""
_SIDE = 16  # pixels to which images are shrunk before they are compared
_FLAT = 1e-3  # gray levels: an image that varies less is blank
_DIRECTIONS = 63  # in which images are compared first
_ROUNDING = 1e-4
_BLOCK, _LEADERS = 512, 8192  # images that are compared with others at once


def near_identical_groups(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """A group number for each image, int64 (N,), from 0; images (N, H, W) like the first one of a group belong to it.

    Images are alike if their correlation at 16x16 pixels is at least `SIMILAR`, whatever their brightness and contrast.
    Comparing with the first image only keeps chains of small changes from joining different faces. Blank images are
    alike.

    It takes N times the number of groups. Most pairs are ruled out by an upper bound of their correlation, from few
    numbers: 100,000 faces that all differ take less time than their predictions.
    """
    flat, blank = _normalised(images)
    leader = np.arange(len(images))  # the first image of each one's group
    leader[blank] = np.flatnonzero(blank)[:1].repeat(blank.sum())
    bounds = _bounds(flat)
    leaders = np.zeros(0, np.int64)
    rows = np.flatnonzero(~blank)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        leader[block] = _first_alike(flat, bounds, block, leaders)
        new = block[leader[block] < 0]
        alike = flat[new] @ flat[new].T >= SIMILAR
        np.fill_diagonal(alike, True)
        for place, like_it in enumerate(alike):
            if leader[new[place]] < 0:
                leader[new[like_it & (leader[new] < 0)]] = new[place]
        leaders = np.append(leaders, new[leader[new] == new])
    return np.unique(leader, return_inverse=True)[1].astype(np.int64)


def _normalised(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The images at 16x16 pixels as unit vectors of mean 0, float32 (N, 256), and which of them are blank."""
    flat = np.empty((len(images), _SIDE * _SIDE), np.float32)
    for start, block in blocks(images):
        pixels = image_tensor(block)[:, None].float()
        small = F.interpolate(pixels, (_SIDE, _SIDE), mode="bilinear", antialias=True)
        flat[start : start + len(block)] = small.flatten(1).numpy()
    flat -= flat.mean(1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    flat /= np.maximum(norms, _FLAT)
    return flat, norms[:, 0] < _FLAT * _SIDE


def _bounds(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors, float32 (N, 64), whose inner products are at least those of unit vectors: by Cauchy and Schwarz, what is
    left out of two vectors has at most the product of its lengths."""
    sample = flat[:: len(flat) // 4096 + 1]
    directions = np.linalg.eigh(sample.T @ sample)[1][:, -_DIRECTIONS:].astype(np.float32)
    kept = flat @ directions
    left = np.sqrt(np.maximum(1 - np.square(kept).sum(1, keepdims=True), 0))
    return np.concatenate([kept, left], 1)


def _first_alike(
    flat: NDArray[np.float32], bounds: NDArray[np.float32], block: NDArray[np.int64], leaders: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The first leader that each image of a block is like; -1 if there is none."""
    found = np.full(len(block), len(flat))
    for start in range(0, len(leaders), _LEADERS):
        some = leaders[start : start + _LEADERS]
        most = bounds[block] @ bounds[some].T
        near = np.flatnonzero(most.max(1) >= SIMILAR - _ROUNDING)  # few: quicker than to look at each pair
        rows, columns = np.nonzero(most[near] >= SIMILAR - _ROUNDING)
        for first in range(0, len(rows), _LEADERS):
            i, j = near[rows[first : first + _LEADERS]], columns[first : first + _LEADERS]
            alike = np.einsum("ij,ij->i", flat[block[i]], flat[some[j]]) >= SIMILAR
            np.minimum.at(found, i[alike], some[j[alike]])
    return np.where(found < len(flat), found, -1)
