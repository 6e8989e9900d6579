"""Tables and figures of an emotion evaluation."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emotion_ai.data.dataset import FaceDataset
from emotion_ai.evaluation import plots
from emotion_ai.evaluation.abstention import abstention_table, risk_coverage
from emotion_ai.evaluation.explain import activation_maps
from emotion_ai.evaluation.metrics import EmotionScores
from emotion_ai.evaluation.predictions import predict
from emotion_ai.evaluation.results import GRID_FACES, ROW_FACES, TaskResults
from emotion_ai.evaluation.tables import Column, ReportTable, value_table
from emotion_ai.models import FaceNetwork


def evaluate_emotion(
    network: FaceNetwork, faces: FaceDataset, flip: bool, seed: int, threshold: float | None
) -> TaskResults:
    """Predicts the faces and evaluates classes and probabilities.

    Args:
        flip: averages the probabilities over each face and its mirror image.
        seed: of the choice of example faces.
        threshold: the network's abstention threshold, if it has one.
    """
    probabilities = predict(network, faces.images, flip)
    scores = EmotionScores(probabilities, faces.labels, network.spec.class_set.names)
    kept = risk_coverage(probabilities, faces.labels)
    tables = (
        value_table(
            "Overall",
            ("metric", "value"),
            {
                "accuracy": scores.accuracy,
                "misclassification rate": 1 - scores.accuracy,
                "balanced accuracy": scores.balanced_accuracy,
                "macro F1": scores.macro_f1,
                "calibration error": scores.calibration_error,
            },
        ),
        _class_table(scores),
        abstention_table(kept, threshold),
    )
    figures = {
        "Confusion matrix": plots.confusion(scores),
        "Scores of each class": plots.class_scores(scores),
        "Reliability": plots.reliability(scores),
        **_example_grids(faces, scores, seed),
        "Abstention": plots.risk_coverage(kept, threshold),
        "Activation maps": _activation_maps(network, faces, scores, seed),
    }
    return TaskResults(probabilities, tables, figures)


def _class_table(scores: EmotionScores) -> ReportTable:
    columns = (Column("class"), *(Column(name, ".3f") for name in ("precision", "recall", "F1")), Column("faces"))
    rows = tuple((name, c["precision"], c["recall"], c["f1"], int(c["faces"])) for name, c in scores.per_class.items())
    return ReportTable("Scores of each class", columns, rows)


def _example_grids(faces: FaceDataset, scores: EmotionScores, seed: int) -> dict[str, Figure]:
    order = np.random.default_rng(seed).permutation(len(faces))
    correct = order[scores.correct[order]][:GRID_FACES]
    wrong = order[~scores.correct[order]]
    confident = wrong[np.argsort(-scores.probabilities[wrong].max(1), kind="stable")][:GRID_FACES]
    return {
        name: plots.faces_grid(faces.images[rows], scores[rows], name)
        for name, rows in (("Correct predictions", correct), ("Wrong predictions, most confident first", confident))
    }


def _activation_maps(network: FaceNetwork, faces: FaceDataset, scores: EmotionScores, seed: int) -> Figure:
    rows = _examples(scores, seed)
    maps = activation_maps(network, faces.images[rows])
    shown = scores[rows]
    return plots.attention_grid(faces.images[rows], maps, shown, ROW_FACES)


def _examples(scores: EmotionScores, seed: int) -> NDArray[np.int64]:
    """Rows of random faces: from each class half a row of correct and half a row of wrong predictions."""
    predicted, labels = scores.predicted, scores.labels
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = [
        order[(labels[order] == label) & ((predicted[order] == label) == correct)][: ROW_FACES // 2]
        for label in range(len(scores.names))
        for correct in (True, False)
    ]
    return np.concatenate(chosen)
