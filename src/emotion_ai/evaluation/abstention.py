"""When a network had better say nothing: confidence thresholds, and what they cost."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = tuple(step / 100 for step in range(100))

_SHOWN = (0, 40, 50, 60, 70, 80, 90, 95)  # hundredths


@dataclass(frozen=True)
class RiskCoverage:
    """Of the faces whose confidence is at least `threshold`: their share of all, and how many of them are right.

    The accuracy is NaN where none is left.
    """

    threshold: float
    share: float
    accuracy: float


def risk_coverage(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[RiskCoverage]:
    """What each threshold from 0 to 0.99 keeps (Geifman and El-Yaniv 2017, arXiv:1705.08500).

    Args:
        probabilities: float (N, 5).
        labels: int64 (N,), true classes.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    kept = []
    for threshold in THRESHOLDS:
        rows = confidence >= threshold
        kept.append(
            RiskCoverage(threshold, float(rows.mean()), float(correct[rows].mean()) if rows.any() else float("nan"))
        )
    return kept


def as_rows(kept: list[RiskCoverage], chosen: float | None) -> dict[str, str]:
    """For a table: threshold, and the share it keeps with its accuracy; `chosen` is the one that weights carry."""
    rows = {}
    for k in kept:
        if k.share > 0 and (k.threshold == chosen or round(k.threshold * 100) in _SHOWN):
            own = ", the weights' own" if k.threshold == chosen else ""
            rows[f"{k.threshold:.2f}{own}"] = f"{k.share:.3f}   {k.accuracy:.3f}"
    return rows


def choose_threshold(probabilities: NDArray[np.float32], labels: NDArray[np.int64], accuracy: float) -> float:
    """The lowest threshold whose kept faces are right as often as `accuracy` says; 1, where none is.

    Args:
        probabilities: float (N, 5).
        labels: int64 (N,), true classes.
        accuracy: wanted, 0 to 1.
    """
    good = (kept.threshold for kept in risk_coverage(probabilities, labels) if kept.accuracy >= accuracy)
    return next(good, 1.0)
