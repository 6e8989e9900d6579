"""Duplicates: images with identical pixels never stand on both sides of a split."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emotion_ai.data.image_arrays import release, rows_of_block
from emotion_ai.errors import ConfigError

Rows = NDArray[np.int64]

_PREFIX = 24  # pixels that are compared at once


def duplicate_groups(images: NDArray[np.uint8]) -> Rows:
    """A group number for each image, int64 (N,); images (N, H, W) with identical pixels share one.

    Groups are numbered in the order of their pixels.
    """
    return _groups([images])


def _groups(sets: Sequence[NDArray[np.uint8]]) -> Rows:
    """Group numbers for the images of all sets, of one size.

    Images are sorted by their first pixels, then those that agree in them by the next ones, and so on: this takes a few
    pixels of most images at a time, however large the sets.
    """
    count, size = sum(map(len, sets)), int(np.prod(sets[0].shape[1:]))
    rank = np.zeros(count, np.int64)  # how many images come before those of the group
    tied = np.arange(count)
    for start in range(0, size, _PREFIX):
        if not len(tied):
            break
        pixels = _columns(sets, tied, slice(start, start + _PREFIX))
        keys = np.concatenate([rank[tied].astype(">i8").view(np.uint8).reshape(-1, 8), pixels], 1)
        rows = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.shape[1]))).ravel()
        _, first, inverse, sizes = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
        before = np.cumsum(sizes) - sizes
        old = rank[tied][first]  # ascending
        rank[tied] = (old + before - before[np.searchsorted(old, old)])[inverse]
        tied = tied[(sizes > 1)[inverse]]
    return np.unique(rank, return_inverse=True)[1].astype(np.int64)


def _columns(sets: Sequence[NDArray[np.uint8]], rows: Rows, columns: slice) -> NDArray[np.uint8]:
    """Some pixels of some images, numbered through all sets, uint8 (rows, pixels)."""
    found, offset = [], 0
    for images in sets:
        chosen = rows[(rows >= offset) & (rows < offset + len(images))] - offset
        flat, step = images.reshape(len(images), images.shape[1] * images.shape[2]), rows_of_block(images)
        for start in range(0, len(chosen), step):
            found.append(flat[chosen[start : start + step], columns])
            release(images)
        offset += len(images)
    return np.concatenate(found)


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
        groups = _groups(sets)
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
