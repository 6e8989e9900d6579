"""Abstention: confidence thresholds, and the accuracy and coverage at each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_ai.evaluation.tables import Column, ReportTable

THRESHOLDS = tuple(step / 100 for step in range(100))

_SHOWN = (0, 40, 50, 60, 70, 80, 90, 95)  # hundredths


@dataclass(frozen=True)
class RiskCoverage:
    """Coverage and accuracy at a threshold.

    Attributes:
        threshold: of the confidence; faces below it are left out.
        share: of the faces that is kept (the coverage).
        accuracy: of the kept faces (one minus the risk); NaN if none is kept.
    """

    threshold: float
    share: float
    accuracy: float


def risk_coverage(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> list[RiskCoverage]:
    """Coverage and accuracy at each threshold from 0 to 0.99 (Geifman and El-Yaniv 2017, arXiv:1705.08500).

    Args:
        probabilities: float (N, K).
        labels: int64 (N,), true classes.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    kept = []
    for threshold in THRESHOLDS:
        rows = confidence >= threshold
        accuracy = float(correct[rows].mean()) if rows.any() else float("nan")
        kept.append(RiskCoverage(threshold, float(rows.mean()), accuracy))
    return kept


def abstention_table(kept: Sequence[RiskCoverage], chosen: float | None) -> ReportTable:
    """Some of the thresholds, and `chosen`, the network's own, which is marked."""
    rows = []
    for k in kept:
        if k.share > 0 and (k.threshold == chosen or round(k.threshold * 100) in _SHOWN):
            mark = " (this network's)" if k.threshold == chosen else ""
            rows.append((f"{k.threshold:.2f}{mark}", k.share, k.accuracy))
    columns = (Column("threshold"), Column("share kept", ".3f"), Column("accuracy", ".3f"))
    return ReportTable("Abstention below a confidence threshold", columns, tuple(rows))


def choose_threshold(probabilities: NDArray[np.float32], labels: NDArray[np.int64], accuracy: float) -> float:
    """The lowest threshold whose kept faces reach `accuracy`; 1 if there is none.

    Args:
        probabilities: float (N, K).
        labels: int64 (N,), true classes.
        accuracy: target, 0 to 1.
    """
    reached = (kept.threshold for kept in risk_coverage(probabilities, labels) if kept.accuracy >= accuracy)
    return next(reached, 1.0)
