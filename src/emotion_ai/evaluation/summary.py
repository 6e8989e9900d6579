"""The summary metrics of a task, with bootstrap intervals over faces."""

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import Task
from emotion_ai.data.dataset import Targets
from emotion_ai.evaluation.metrics import EmotionScores, KeypointErrors, calibration_error, macro_f1
from emotion_ai.evaluation.statistics import Estimate, bootstrap


def summary_metrics(task: Task, predictions: NDArray[np.float32], targets: Targets, seed: int) -> dict[str, Estimate]:
    """RMSE and mean distance in pixels, or accuracy, macro F1 and calibration error; the first is the main one.

    Args:
        predictions: keypoints float32 (N, 15, 2) or probabilities float32 (N, 5).
        targets: as in `FaceDataset`.
        seed: of the bootstrap.
    """
    if task == "keypoints":
        return _keypoint_metrics(predictions, targets.astype(np.float32, copy=False), seed)
    return _emotion_metrics(predictions, targets.astype(np.int64, copy=False), seed)


def _keypoint_metrics(points: NDArray[np.float32], true: NDArray[np.float32], seed: int) -> dict[str, Estimate]:
    errors, n = KeypointErrors.of(points, true), len(points)
    (squares, counts), distances = errors.per_face, errors.distances
    return {
        "rmse": bootstrap(lambda rows: float(np.sqrt(squares[rows].sum() / counts[rows].sum())), n, seed),
        "mean distance": bootstrap(lambda rows: float(distances[rows].mean()), n, seed),
    }


def _emotion_metrics(probabilities: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> dict[str, Estimate]:
    scores, n = EmotionScores(probabilities, labels), len(probabilities)
    correct, predicted, (bins, gaps) = scores.correct, scores.predicted, scores.gaps(15)
    return {
        "accuracy": bootstrap(lambda rows: float(correct[rows].mean()), n, seed),
        "macro F1": bootstrap(lambda rows: macro_f1(predicted[rows], labels[rows]), n, seed),
        "calibration error": bootstrap(lambda rows: calibration_error(bins[rows], gaps[rows]), n, seed),
    }
