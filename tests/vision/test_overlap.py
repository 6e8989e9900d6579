"""Intersection over union by hand."""

import numpy as np
import pytest

from emotion_ai.vision.crops import Box
from emotion_ai.vision.overlap import iou, overlaps


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Box(0, 0, 10), 1.0),
        (Box(5, 0, 10), 50 / 150),
        (Box(-2.5, 5, 5), 12.5 / 112.5),
        (Box(2, 2, 5), 25 / 100),
        (Box(10, 0, 10), 0.0),
        (Box(50, -50, 3), 0.0),
    ],
)
def test_squares(other: Box, expected: float) -> None:
    assert iou(Box(0, 0, 10), other) == pytest.approx(expected)
    assert iou(other, Box(0, 0, 10)) == pytest.approx(expected)


def test_rectangles_as_shares_of_the_union_and_of_the_smaller() -> None:
    box, others = np.array([0, 0, 10, 10], np.float32), np.array([[5, 0, 10, 10], [20, 0, 30, 5]], np.float32)
    union, smaller = overlaps(box, others)
    assert (union.tolist(), smaller.tolist()) == ([0.5, 0.0], [1.0, 0.0])
    assert union.dtype == smaller.dtype == np.float32


def test_empty_boxes_overlap_nothing() -> None:
    empty = np.zeros(4, np.float32)
    assert [share.tolist() for share in overlaps(empty, empty[None])] == [[0.0], [0.0]]
