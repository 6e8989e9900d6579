"""Error rates of verdicts, and the thresholds that keep them below a bound."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import ClassSet
from emotion_ai.evaluation.abstention import THRESHOLDS, choose_threshold
from emotion_ai.inference.verdict import NEUTRAL, VerdictRule, decide


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


def bounded_lead(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: ClassSet, risk: float
) -> float:
    """The smallest lead over Neutral at which neutral faces are named as an emotion in at most a share `risk`.

    By conformal risk control (Angelopoulos et al. 2022, arXiv:2208.02814): the share expected of new neutral faces is
    bounded, so that of the given ones is a little lower.

    Returns:
        1 if no lead reaches it; 0 without neutral faces.
    """
    if NEUTRAL not in classes.names[classes.emotions :]:
        return 0.0
    rows = labels == classes.names.index(NEUTRAL)
    if not rows.any():
        return 0.0
    neutral, count = probabilities[rows], int(rows.sum())
    for lead in THRESHOLDS:
        rule = VerdictRule.leading([0.0] * len(classes), classes, lead)
        verdicts = decide(neutral, rule.bounds(neutral))
        named = int(((verdicts >= 0) & (verdicts < classes.emotions)).sum())
        if (named + 1) / (count + 1) <= risk:
            return lead
    return 1.0


def choose_rule(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: ClassSet, accuracy: float, risk: float
) -> dict[str, float]:
    """The numbers of a rule for verdicts, and its error rates on the given faces, for a record's calibration.

    Of the emotions' own faces that are named as an emotion, a share `accuracy` is named rightly. With Neutral among the
    classes, neutral faces are named as an emotion in at most a share `risk`, by `bounded_lead`.

    If no threshold reaches `accuracy`, it is 1, and no emotion is named.

    Args:
        probabilities: of all classes, float32 (N, K), calibrated.
        labels: int64 (N,), true classes.
        classes: the K classes.
        accuracy, risk: 0 to 1.
    """
    if classes.emotions == len(classes):
        return {"uncertain_below": choose_threshold(probabilities, labels, accuracy)}
    lead = bounded_lead(probabilities, labels, classes, risk)
    for threshold in (*THRESHOLDS, 1.0):
        rule = VerdictRule.leading([threshold] * len(classes), classes, lead)
        rates = verdict_rates(decide(probabilities, rule.bounds(probabilities)), labels, classes)
        if rates.right >= accuracy:
            break
    found = {"uncertain_below": threshold, "neutral_lead": lead, "named": rates.named, "named_rightly": rates.right}
    found |= {f"named/{name}": share for name, share in rates.others.items()}
    return {name: value for name, value in found.items() if not np.isnan(value)}  # of no faces there is no share
