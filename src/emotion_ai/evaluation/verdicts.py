"""Error rates of verdicts, and the thresholds that keep them below a bound."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import ClassSet
from emotion_ai.evaluation.abstention import THRESHOLDS, choose_threshold
from emotion_ai.inference.verdict import decide


@dataclass(frozen=True)
class VerdictRates:
    """How often faces are named as one of the first classes, the emotions.

    Attributes:
        named: share of the emotions' own faces that are named as any of them.
        right: share of these that are named rightly; NaN if there are none.
        others: share of the faces of each other class that are named as an emotion, by class; those that occur.
    """

    named: float
    right: float
    others: dict[str, float]


def verdict_rates(verdicts: NDArray[np.int64], labels: NDArray[np.int64], classes: ClassSet) -> VerdictRates:
    """Rates of verdicts int64 (N,), -1 for uncertain, on faces of true classes int64 (N,)."""
    count = classes.emotions
    named, own = (verdicts >= 0) & (verdicts < count), labels < count
    kept = named & own
    right = float((verdicts == labels)[kept].mean()) if kept.any() else float("nan")
    present = {name: labels == i for i, name in enumerate(classes.names) if i >= count and (labels == i).any()}
    return VerdictRates(
        float(named[own].mean()) if own.any() else float("nan"),
        right,
        {name: float(named[rows].mean()) for name, rows in present.items()},
    )


def bounded_threshold(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: ClassSet, risk: float
) -> float:
    """The lowest threshold at which faces of other classes are named as an emotion in at most a share `risk`.

    By conformal risk control (Angelopoulos et al. 2022, arXiv:2208.02814): the share expected on new faces of these
    classes is bounded, so that of the given ones must be a little lower. Each of these classes counts alike.

    Returns:
        1 if no threshold reaches it; 0 without such faces.
    """
    others = [labels == i for i in range(classes.emotions, len(classes))]
    present = [rows for rows in others if rows.any()]
    if not present:
        return 0.0
    least = min(int(rows.sum()) for rows in present)
    for threshold in THRESHOLDS:
        named = decide(probabilities, threshold)
        shares = [((named >= 0) & (named < classes.emotions))[rows].mean() for rows in present]
        if (least * float(np.mean(shares)) + 1) / (least + 1) <= risk:
            return threshold
    return 1.0


def choose_thresholds(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: ClassSet, accuracy: float, risk: float
) -> dict[str, float]:
    """Thresholds for a record's calibration: `uncertain_below`, and those of single classes where they differ.

    Verdicts reach `accuracy` on the given faces. Where there are classes beside the emotions, an emotion also needs the
    probability of `bounded_threshold`.

    Args:
        probabilities: of all classes, float32 (N, K), calibrated.
        labels: int64 (N,), true classes.
        classes: the K classes.
        accuracy: of the verdicts that are not uncertain.
        risk: share of other faces that may be named as an emotion.
    """
    common = choose_threshold(probabilities, labels, accuracy)
    if classes.emotions == len(classes):
        return {"uncertain_below": common}
    emotion = bounded_threshold(probabilities, labels, classes, risk)
    own = {f"uncertain_below/{name}": emotion for name in classes.names[: classes.emotions]}
    return {"uncertain_below": common} | own
