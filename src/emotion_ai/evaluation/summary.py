"""The headline figures of a task, each with its bootstrap interval over faces."""

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import Task
from emotion_ai.evaluation.metrics import EmotionScores, KeypointErrors, calibration_error, macro_f1
from emotion_ai.evaluation.statistics import Estimate, bootstrap


def summary_metrics(
    task: Task, answers: NDArray[np.float32], targets: NDArray[np.float32] | NDArray[np.int64], seed: int
) -> dict[str, Estimate]:
    """RMSE and mean distance in pixels, or accuracy, macro F1 and calibration error; the first is the task's own.

    Args:
        answers: keypoints float32 (N, 15, 2) or probabilities float32 (N, 5).
        targets: as in `FaceDataset`.
    """
    n = len(answers)
    if task == "keypoints":
        errors = KeypointErrors.of(answers, targets)  # type: ignore[arg-type]
        (squares, counts), distances = errors.per_face, errors.distances
        return {
            "rmse": bootstrap(lambda rows: float(np.sqrt(squares[rows].sum() / counts[rows].sum())), n, seed),
            "mean distance": bootstrap(lambda rows: float(distances[rows].mean()), n, seed),
        }
    labels: NDArray[np.int64] = targets  # type: ignore[assignment]
    scores = EmotionScores(answers, labels)
    correct, predicted, (bins, gaps) = scores.correct, scores.predicted, scores.gaps(15)
    return {
        "accuracy": bootstrap(lambda rows: float(correct[rows].mean()), n, seed),
        "macro F1": bootstrap(lambda rows: macro_f1(predicted[rows], labels[rows]), n, seed),
        "calibration error": bootstrap(lambda rows: calibration_error(bins[rows], gaps[rows]), n, seed),
    }
