"""When a network had better say nothing: confidence thresholds, and what they cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = tuple(step / 100 for step in range(100))


@dataclass(frozen=True)
class Kept:
    """Of the faces whose confidence is at least `threshold`: their share of all, and how many of them are right.

    The accuracy is NaN where none is left.
    """

    threshold: float
    share: float
    accuracy: float


def risk_coverage(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[Kept]:
    """What each threshold from 0 to 0.99 keeps (Geifman and El-Yaniv 2017, arXiv:1705.08500).

    Args:
        probabilities: float (N, 5).
        labels: int64 (N,), true classes.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    kept = []
    for threshold in THRESHOLDS:
        rows = confidence >= threshold
        kept.append(Kept(threshold, float(rows.mean()), float(correct[rows].mean()) if rows.any() else float("nan")))
    return kept


def choose_threshold(probabilities: NDArray[np.float32], labels: NDArray[np.int64], accuracy: float) -> float:
    """The lowest threshold whose kept faces are right as often as `accuracy` says; 1, where none is.

    Args:
        probabilities: float (N, 5).
        labels: int64 (N,), true classes.
        accuracy: wanted, 0 to 1.
    """
    good = (kept.threshold for kept in risk_coverage(probabilities, labels) if kept.accuracy >= accuracy)
    return next(good, 1.0)
