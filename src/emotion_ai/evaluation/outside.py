"""What a report says about faces outside the five emotions, and where FER+'s annotators agree."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import logsumexp

from emotion_ai.errors import DataError
from emotion_ai.evaluation.evaluated_faces import EvaluatedFaces
from emotion_ai.evaluation.open_set import OpenSet, agreeing, agreement_table, open_set_tables, summary_of
from emotion_ai.evaluation.open_set_plots import mixed_risk, trade_off
from emotion_ai.evaluation.predictions import predict, predict_scores
from emotion_ai.evaluation.side_tables import FaceRows
from emotion_ai.evaluation.statistics import Estimate, Units, bootstrap
from emotion_ai.evaluation.tables import ReportTable
from emotion_ai.evaluation.units import resampling_units
from emotion_ai.inference.verdict import VerdictRule
from emotion_ai.models import LoadedNetwork


@dataclass(frozen=True)
class OutsideResults:
    """Summary metrics, tables and figures; all empty if there are no such faces."""

    summary: dict[str, Estimate]
    tables: list[ReportTable]
    figures: dict[str, Figure]


def evaluate_outside(
    loaded: LoadedNetwork, chosen: EvaluatedFaces, predictions: NDArray[np.float32], flip: bool, people: str, seed: int
) -> OutsideResults:
    """Evaluates how well faces of the five emotions are separated from others.

    Args:
        predictions: probabilities of all classes for `chosen.faces`, float32 (N, K).
        flip: as in `predict`.
        people: as in `resampling_units`.
        seed: of the bootstrap.
    """
    network, record = loaded
    classes, faces, others = network.spec.class_set, chosen.faces, chosen.outside
    expressions, images, labels, rows = predictions, faces.images, faces.labels, chosen.rows
    names = classes.names
    if others is not None and chosen.outside_rows is not None:
        expressions = np.concatenate([predictions, predict(network, others.images, flip)])
        images, labels = np.concatenate([images, others.images]), np.concatenate([labels, others.labels])
        rows = FaceRows(np.concatenate([rows.ids, chosen.outside_rows.ids]), rows.dataset, rows.loaded)
        names = others.classes.names
    if (labels < classes.emotions).all():
        return OutsideResults({}, [], {})
    energy = None
    if classes.emotions == len(classes) and not flip:
        energy = logsumexp(predict_scores(network, images), axis=1)
    found = OpenSet(
        expressions,
        labels,
        names,
        classes.emotions,
        VerdictRule.of(record, classes).bounds(expressions),
        _units(people, rows, images),
        seed,
        energy,
    )
    figures = {"Naming others": trade_off(found), "Risk with others mixed in": mixed_risk(found)}
    return OutsideResults(summary_of(found), open_set_tables(found), figures)


def evaluate_agreement(
    chosen: EvaluatedFaces, predictions: NDArray[np.float32], emotions: int, units: Units, seed: int
) -> ReportTable:
    """Accuracy of the five where the label has most of the FER+ votes, with and without duplicates of training faces.

    Args:
        predictions: probabilities of all classes for `chosen.faces`, float32 (N, K).
        emotions: how many of the first classes are the five.
        units: what the interval resamples.
        seed: of the bootstrap.

    Raises:
        DataError: no such faces.
    """
    faces = chosen.faces
    assert faces.votes is not None
    own = faces.labels < emotions
    agreed = own & agreeing(faces.votes, faces.labels)
    correct = predictions[:, :emotions].argmax(1) == faces.labels
    if not agreed.any():
        raise DataError(f"{faces.source}: FER+'s annotators agree with none of its labels; check data.vote_file")
    groups = {"annotators agree": agreed, "annotators disagree": own & ~agreed}
    if chosen.duplicates.any():
        groups["annotators agree, without duplicates of training faces"] = agreed & ~chosen.duplicates
    found = {}
    for name, rows in groups.items():
        if rows.any():
            hits = correct[rows].astype(np.float64)
            found[name] = bootstrap(lambda drawn, h=hits: float(h[drawn].mean()), units[rows], seed)  # type: ignore[misc]
    return agreement_table(found)


def _units(people: str, rows: FaceRows, images: NDArray[np.uint8]) -> Units:
    """As those of the other intervals; faces, if a file has rows for the evaluated faces only."""
    try:
        return resampling_units(people, rows, images)
    except DataError:
        return Units.faces(len(images))
