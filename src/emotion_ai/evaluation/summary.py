"""The summary metrics of a task, with bootstrap intervals over faces or people."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import Task
from emotion_ai.data.dataset import Targets
from emotion_ai.evaluation.metrics import EmotionScores, KeypointErrors, NormalisedErrors, calibration_error, macro_f1
from emotion_ai.evaluation.statistics import Estimate, Units, bootstrap, share


def summary_metrics(
    task: Task, predictions: NDArray[np.float32], targets: Targets, seed: int, units: Units | None = None
) -> dict[str, Estimate]:
    """The task's metrics; the first is the main one.

    Keypoints: RMSE and mean distance in pixels; mean normalised error (NME), failure rate and area under the cumulative
    error curve (AUC) at 8 %, if outer eye corners are annotated. Emotion: accuracy, macro F1 and calibration error.

    Args:
        predictions: keypoints float32 (N, 15, 2) or probabilities float32 (N, 5).
        targets: as in `FaceDataset`.
        seed: of the bootstrap.
        units: what it resamples; by default faces.
    """
    over = units or Units.faces(len(predictions))
    if task == "keypoints":
        return _keypoint_metrics(predictions, targets.astype(np.float32, copy=False), seed, over)
    return _emotion_metrics(predictions, targets.astype(np.int64, copy=False), seed, over)


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


def _emotion_metrics(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], seed: int, over: Units
) -> dict[str, Estimate]:
    scores = EmotionScores(probabilities, labels)
    correct, predicted, (bins, gaps) = scores.correct, scores.predicted, scores.gaps(15)
    return {
        "accuracy": bootstrap(lambda rows: float(correct[rows].mean()), over, seed),
        "macro F1": bootstrap(lambda rows: macro_f1(predicted[rows], labels[rows]), over, seed),
        "calibration error": bootstrap(lambda rows: calibration_error(bins[rows], gaps[rows]), over, seed),
    }
