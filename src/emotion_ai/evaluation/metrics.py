"""Metrics: NumPy arrays in, plain numbers out."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from emotion_ai.contract import EMOTIONS, KEYPOINTS

Floats = NDArray[np.float64]

FAILURE = 0.08
"""Normalised error above which a face counts as failed, and to which the cumulative error curve is integrated."""

_OUTER_CORNERS = [KEYPOINTS.index(f"{side}_eye_outer_corner") for side in ("left", "right")]


@dataclass(frozen=True)
class KeypointErrors:
    """Errors of keypoints.

    Attributes:
        offsets: float64 (N, 15, 2), predicted minus true, in pixels of the crop; NaN where a point is not annotated.
    """

    offsets: Floats

    @classmethod
    def of(cls, predicted: NDArray[np.floating], true: NDArray[np.floating]) -> Self:
        """From points (N, 15, 2); NaN in `true` means not annotated."""
        return cls(predicted.astype(np.float64) - true)

    @property
    def per_face(self) -> tuple[Floats, Floats]:
        """Sum of squared errors and number of annotated coordinates of each face, (N,)."""
        return np.nansum(self.offsets**2, (1, 2)), (~np.isnan(self.offsets)).sum((1, 2)).astype(np.float64)

    @property
    def rmse(self) -> float:
        """Root of the mean squared error over all annotated coordinates, as Kaggle computes it."""
        return float(np.sqrt(np.nanmean(self.offsets**2)))

    @property
    def per_point(self) -> dict[str, float]:
        """RMSE of each point that is annotated at least once."""
        squares = self.offsets**2
        known = np.asarray(~np.isnan(squares).all((0, 2)))
        return {n: float(np.sqrt(np.nanmean(squares[:, i]))) for i, n in enumerate(KEYPOINTS) if known[i]}

    @property
    def without_shift(self) -> float:
        """RMSE after each face's mean offset is removed."""
        return float(np.sqrt(np.nanmean((self.offsets - np.nanmean(self.offsets, 1, keepdims=True)) ** 2)))

    @property
    def distances(self) -> Floats:
        """Mean distance between predicted and true points of each face, in pixels, (N,)."""
        return np.nanmean(np.hypot(self.offsets[..., 0], self.offsets[..., 1]), 1)


@dataclass(frozen=True)
class NormalisedErrors:
    """Errors in the landmark field's measures, for faces whose outer eye corners are both annotated.

    A face's error is the mean distance of its annotated points to the predicted ones, divided by the annotated distance
    of the outer eye corners ("inter-ocular", as in 300-W: Sagonas et al. 2016, doi:10.1016/j.imavis.2016.01.002).

    Attributes:
        values: float64 (M,), normalised errors; 0.04 is 4 %.
        rows: int64 (M,), which of the N faces these are.
    """

    values: Floats
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, predicted: NDArray[np.floating], true: NDArray[np.floating]) -> Self:
        """From points (N, 15, 2); NaN in `true` means not annotated."""
        corners = true[:, _OUTER_CORNERS].astype(np.float64)
        apart = np.hypot(*(corners[:, 0] - corners[:, 1]).T)
        rows = np.flatnonzero(apart > 0)  # NaN is not
        return cls(KeypointErrors.of(predicted[rows], true[rows]).distances / apart[rows], rows)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def failures(self) -> NDArray[np.bool_]:
        """Faces whose error exceeds 8 %, bool (M,)."""
        return self.values > FAILURE

    @property
    def areas(self) -> Floats:
        """The area under each face's step up to 8 %, 0 to 1, float64 (M,); their mean is the AUC."""
        return np.clip(1 - self.values / FAILURE, 0, None)


@dataclass(frozen=True)
class EmotionScores:
    """Scores of N faces: probabilities float (N, K), true classes int64 (N,), and the classes' names."""

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...] = EMOTIONS

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        return replace(self, probabilities=self.probabilities[rows], labels=self.labels[rows])

    def of_emotions(self, emotions: int, temperature: float) -> Self:
        """Scores of the first classes, on the faces that show one of them and given that they do.

        Args:
            emotions: how many classes these are.
            temperature: of their own softmax, as in `ModelSpec.emotion_temperature`.
        """
        if emotions == len(self.names):
            return self
        rows = self.labels < emotions
        logits = np.log(np.maximum(self.probabilities[rows, :emotions], np.finfo(np.float32).tiny)) / temperature
        given = softmax(logits, axis=1).astype(np.float32)
        return type(self)(given, self.labels[rows], self.names[:emotions])

    @property
    def predicted(self) -> NDArray[np.int64]:
        return self.probabilities.argmax(1)

    @property
    def correct(self) -> NDArray[np.bool_]:
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Rows are true classes, columns predicted ones."""
        return np.asarray(confusion_matrix(self.labels, self.predicted, labels=range(len(self.names))))

    @property
    def per_class(self) -> dict[str, dict[str, float]]:
        """Precision, recall, f1 and number of faces for each class."""
        values = precision_recall_fscore_support(
            self.labels, self.predicted, labels=range(len(self.names)), zero_division=0.0
        )
        names = ("precision", "recall", "f1", "faces")
        return {e: {n: float(v[i]) for n, v in zip(names, values, strict=True)} for i, e in enumerate(self.names)}

    @property
    def macro_f1(self) -> float:
        return macro_f1(self.predicted, self.labels, len(self.names))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that occur."""
        return float(np.mean([c["recall"] for c in self.per_class.values() if c["faces"]]))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error over 15 equal bins of confidence (Guo et al. 2017, arXiv:1706.04599)."""
        return calibration_error(*self.gaps(15))

    def gaps(self, bins: int) -> tuple[NDArray[np.int64], Floats]:
        """Each face's confidence bin, and its correctness (1 or 0) minus its confidence, (N,) each."""
        confidence = self.probabilities.max(1).astype(np.float64)
        return np.minimum((confidence * bins).astype(np.int64), bins - 1), self.correct - confidence

    def reliability(self, bins: int) -> list[tuple[float, float, float]]:
        """(mean confidence, accuracy, share of the faces) of each non-empty confidence bin."""
        confidence = self.probabilities.max(1)
        which, _ = self.gaps(bins)
        found = [which == b for b in range(bins) if (which == b).any()]
        return [(float(confidence[b].mean()), float(self.correct[b].mean()), float(b.mean())) for b in found]


def calibration_error(bins: NDArray[np.int64], gaps: Floats) -> float:
    """Expected calibration error from `EmotionScores.gaps`."""
    return float(np.abs(np.bincount(bins, gaps)).sum() / len(gaps))


def macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int = len(EMOTIONS)) -> float:
    """Mean F1 over the classes; a class that neither occurs nor is predicted counts as 0."""
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    table = counts.reshape(classes, classes)
    hits = table.diagonal()
    return float(np.mean(2 * hits / np.maximum(table.sum(0) + table.sum(1), 1)))
