"""The verdict on a face: its most probable class, or none that is sure enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emotion_ai.class_set import ClassSet
from emotion_ai.provenance import RunRecord

NEUTRAL = "Neutral"


@dataclass(frozen=True)
class VerdictRule:
    """How probable the most probable class must be to be the verdict.

    A calm face that shows a hint of something has Neutral for its second class. So, where the classes have it, an
    emotion must also lead it by some probability.

    Attributes:
        thresholds: for each class.
        leads: for each class, by how much it must exceed the probability of Neutral; -1 for no matter how.
        neutral: the index of Neutral; None if no class has such a lead.
    """

    thresholds: tuple[float, ...]
    leads: tuple[float, ...] = ()
    neutral: int | None = None

    @classmethod
    def of(cls, record: RunRecord, classes: ClassSet) -> Self:
        """The rule that was chosen after a training run.

        Raises:
            ValueError: a number of the record is not from 0 to 1.
        """
        return cls.leading(record.thresholds(classes.names), classes, record.neutral_lead)

    @classmethod
    def leading(cls, thresholds: Sequence[float], classes: ClassSet, lead: float) -> Self:
        """The rule with these thresholds, by which emotions lead Neutral, where the classes have it beside them."""
        count = classes.emotions
        if not lead or NEUTRAL not in classes.names[count:]:
            return cls(tuple(thresholds))
        leads = [lead] * count + [-1.0] * (len(classes) - count)
        return cls(tuple(thresholds), tuple(leads), classes.names.index(NEUTRAL))

    def bounds(self, expressions: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability that each class needs, float32 (N, K), of faces with these probabilities (N, K)."""
        thresholds = np.broadcast_to(np.array(self.thresholds, np.float32), expressions.shape)
        if self.neutral is None:
            return thresholds.copy()
        led = np.array(self.leads, np.float32) + expressions[:, self.neutral, None]
        return np.minimum(np.maximum(thresholds, led), np.float32(1))


def decide(probabilities: NDArray[np.float32], thresholds: ArrayLike) -> NDArray[np.int64]:
    """The most probable class of each face, int64 (N,); -1 where its probability is below its threshold: uncertain.

    Compared in float32, as thresholds are served.

    Args:
        probabilities: of all classes, float32 (N, K).
        thresholds: one, one for each class (K,), or these for each face (N, K).
    """
    best = probabilities.argmax(1)[:, None]
    bounds = np.broadcast_to(np.asarray(thresholds, np.float32), probabilities.shape)
    sure = ~(np.take_along_axis(probabilities, best, 1) < np.take_along_axis(bounds, best, 1))
    return np.where(sure, best, -1)[:, 0]
