"""Overlap of boxes: intersection over union."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from emotion_ai.vision.crops import Box

F = TypeVar("F", np.float32, np.float64)


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two squares, 0 to 1."""
    one, other = (np.array([b.left, b.top, b.left + b.size, b.top + b.size], np.float64) for b in (first, second))
    shared = _shared(one, other[None])
    return float((shared / (first.size**2 + second.size**2 - shared))[0])


def overlaps(box: NDArray[F], others: NDArray[F]) -> tuple[NDArray[F], NDArray[F]]:
    """Intersection of a box with each of N others, as a share of their union and of the smaller box.

    Args:
        box: (4,): left, top, right, bottom.
        others: (N, 4).

    Returns:
        Two arrays (N,), 0 to 1; 0 where both boxes are empty.
    """
    shared = _shared(box, others)
    area, areas = (box[2:] - box[:2]).clip(0).prod(), (others[:, 2:] - others[:, :2]).clip(0).prod(1)
    return shared / np.maximum(area + areas - shared, 1e-6), shared / np.maximum(np.minimum(area, areas), 1e-6)


def _shared(box: NDArray[F], others: NDArray[F]) -> NDArray[F]:
    """Areas of the intersections, (N,)."""
    shared: NDArray[F] = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0).prod(1)
    return shared
