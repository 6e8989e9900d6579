"""The summary metrics of a task, with bootstrap intervals over faces or people."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.data.dataset import Targets
from emotion_ai.evaluation.metrics import EmotionScores, KeypointErrors, NormalisedErrors, calibration_error, macro_f1
from emotion_ai.evaluation.statistics import Estimate, Units, bootstrap, share
from emotion_ai.models.spec import ModelSpec


def summary_metrics(
    spec: ModelSpec, predictions: NDArray[np.float32], targets: Targets, seed: int, units: Units | None = None
) -> dict[str, Estimate]:
    """The task's metrics; the first is the main one.

    Keypoints: RMSE and mean distance in pixels; mean normalised error (NME), failure rate and area under the cumulative
    error curve (AUC) at 8 %, if outer eye corners are annotated. Emotion: accuracy, macro F1 and calibration error, on
    the faces of the five emotions; then, for a network of more classes, on all faces and over all classes.

    Args:
        spec: of the network.
        predictions: keypoints float32 (N, 15, 2) or probabilities of all classes float32 (N, K).
        targets: as in `FaceDataset`.
        seed: of the bootstrap.
        units: what it resamples; by default faces.
    """
    over = units or Units.faces(len(predictions))
    if spec.task == "keypoints":
        return _keypoint_metrics(predictions, targets.astype(np.float32, copy=False), seed, over)
    classes = spec.class_set
    every = EmotionScores(predictions, targets.astype(np.int64, copy=False), classes.names)
    emotions = every.of_emotions(classes.emotions, spec.emotion_temperature)
    if emotions is every:
        return _emotion_metrics(every, seed, over)
    found = {f"{name} over all classes": value for name, value in _emotion_metrics(every, seed, over).items()}
    rows = every.labels < classes.emotions
    return (_emotion_metrics(emotions, seed, over[rows]) if rows.any() else {}) | found


def _keypoint_metrics(
    points: NDArray[np.float32], true: NDArray[np.float32], seed: int, over: Units
) -> dict[str, Estimate]:
    errors, normalised = KeypointErrors.of(points, true), NormalisedErrors.of(points, true)
    squares, counts = errors.per_face

    def mean(values: NDArray[Any], units: Units) -> Estimate:
        return bootstrap(lambda rows: float(values[rows].mean()), units, seed)

    metrics = {
        "rmse": bootstrap(lambda rows: float(np.sqrt(squares[rows].sum() / counts[rows].sum())), over, seed),
        "mean distance": mean(errors.distances, over),
    }
    if len(normalised):
        units = over[normalised.rows]
        metrics |= {
            "NME": mean(normalised.values, units),
            "failure rate at 8 %": share(normalised.failures, units, seed),
            "AUC at 8 %": mean(normalised.areas, units),
        }
    return metrics


def _emotion_metrics(scores: EmotionScores, seed: int, over: Units) -> dict[str, Estimate]:
    correct, predicted, (bins, gaps) = scores.correct, scores.predicted, scores.gaps(15)
    labels, count = scores.labels, len(scores.names)
    return {
        "accuracy": bootstrap(lambda rows: float(correct[rows].mean()), over, seed),
        "macro F1": bootstrap(lambda rows: macro_f1(predicted[rows], labels[rows], count), over, seed),
        "calibration error": bootstrap(lambda rows: calibration_error(bins[rows], gaps[rows]), over, seed),
    }
