"""Duplicates: images with identical pixels never stand on both sides of a split."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import ConfigError

Rows = NDArray[np.int64]


def duplicate_groups(images: NDArray[np.uint8]) -> Rows:
    """A group number for each image, int64 (N,); images (N, H, W) with identical pixels share one."""
    if len(images) == 0:
        return np.zeros(0, np.int64)
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    rows = flat.view(np.dtype((np.void, flat.shape[1]))).ravel()
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def grouped_split(groups: Rows, fractions: Sequence[float], seed: int) -> list[Rows]:
    """Row numbers of each part, ascending: whole groups, assigned at random, roughly in the given proportions.

    Only the order of the group numbers matters, so a subset of a larger set's groups splits like its own.

    Raises:
        ConfigError: fractions that are not positive or do not add up to 1, or an empty part.
    """
    if any(f <= 0 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"split {list(fractions)}: give positive fractions that add up to 1, e.g. [0.8,0.1,0.1]")
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    filled = (np.cumsum(sizes[order]) - sizes[order] / 2) / max(len(groups), 1)
    part_of_name = np.empty(len(names), np.int64)
    part_of_name[order] = np.searchsorted(np.cumsum(fractions)[:-1], filled)
    part = part_of_name[np.searchsorted(names, groups)]
    rows = [np.flatnonzero(part == index) for index in range(len(fractions))]
    if any(len(r) == 0 for r in rows):
        raise ConfigError(f"split {list(fractions)} of {len(groups)} faces leaves a part empty; give more faces")
    return rows


def folds(groups: Rows, count: int, seed: int) -> list[Rows]:
    """Row numbers of each of `count` cross-validation folds.

    Raises:
        ConfigError: fewer than two folds, or more folds than groups.
    """
    if count < 2:
        raise ConfigError(f"data.folds must be at least 2, got {count}")
    return grouped_split(groups, [1 / count] * count, seed)


def common_groups(*sets: NDArray[np.uint8]) -> list[Rows]:
    """Group numbers for the images of each set, shared between the sets; images of different sizes never share one."""
    if len({images.shape[1:] for images in sets}) == 1:
        groups = duplicate_groups(np.concatenate(sets))
        return np.split(groups, np.cumsum([len(images) for images in sets])[:-1])
    found: list[Rows] = []
    offset = 0
    for images in sets:
        found.append(duplicate_groups(images) + offset)
        offset += len(images)
    return found


def seen_in(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of `images` (N, H, W) have the pixels of one of `others`; bool (N,)."""
    groups, other_groups = common_groups(images, others)
    return np.isin(groups, other_groups)
