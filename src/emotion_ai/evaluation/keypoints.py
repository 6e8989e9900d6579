"""Tables and figures of a keypoint evaluation."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emotion_ai.data.dataset import FaceDataset
from emotion_ai.evaluation import plots
from emotion_ai.evaluation.coverage import Coverage
from emotion_ai.evaluation.metrics import KeypointErrors, NormalisedErrors
from emotion_ai.evaluation.predictions import predict_mirrored, predict_uncertainty
from emotion_ai.evaluation.results import GRID_FACES, ROW_FACES, TaskResults
from emotion_ai.evaluation.statistics import Units
from emotion_ai.evaluation.tables import INTERVAL, Column, Interval, ReportTable, value_table
from emotion_ai.models import FaceNetwork


def evaluate_keypoints(network: FaceNetwork, faces: FaceDataset, flip: bool, seed: int, units: Units) -> TaskResults:
    """Predicts the faces once (twice with `flip`) and evaluates keypoints and standard deviations.

    Args:
        flip: averages the keypoints over each face and its mirror image; coverage is of those without.
        seed: of the bootstrap intervals and the choice of example faces.
        units: what the intervals resample.
    """
    points, deviations = predict_uncertainty(network, faces.images)
    predictions = points
    if flip:
        predictions = (points + predict_mirrored(network, faces.images)) / np.float32(2)
    errors = KeypointErrors.of(predictions, faces.points)
    constant = KeypointErrors.of(_mean_face(faces.points), faces.points)
    normalised = NormalisedErrors.of(predictions, faces.points)
    constant_normalised = NormalisedErrors.of(_mean_face(faces.points), faces.points)
    coverage = Coverage(KeypointErrors.of(points, faces.points).offsets, deviations)
    tables = (
        value_table(
            "Errors in pixels of the 96×96 crop",
            ("metric", "value"),
            {
                "RMSE": errors.rmse,
                "RMSE of the best constant prediction, the mean of these faces": constant.rmse,
                "RMSE without each face's mean shift": errors.without_shift,
                "median distance": float(np.median(errors.distances)),
                "95th percentile of the distance": float(np.percentile(errors.distances, 95)),
            },
        ),
        value_table("RMSE of each point", ("point", "RMSE"), errors.per_point),
        _normalised_table(normalised, constant_normalised),
        _coverage_table(coverage, seed, units),
    )
    figures = {
        "Cumulative error": plots.cumulative_error(errors, constant),
        **_normalised_figure(normalised, constant_normalised),
        "RMSE of each point": plots.point_errors(errors),
        **_example_grids(faces, predictions, errors, seed),
        "Coverage": plots.coverage_curve(coverage.curves()),
        "Predicted 95 % regions": _regions(faces, points, deviations),
    }
    return TaskResults(predictions, tables, figures)


def _mean_face(true: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean annotated face, float32 (15, 2), for each of the N faces."""
    mean: NDArray[np.float64] = np.nansum(true, 0) / np.maximum((~np.isnan(true)).sum(0), 1)
    return np.broadcast_to(mean, true.shape)


def _normalised_figure(network: NormalisedErrors, constant: NormalisedErrors) -> dict[str, Figure]:
    return {"Cumulative normalised error": plots.cumulative_normalised(network, constant)} if len(network) else {}


def _normalised_table(network: NormalisedErrors, constant: NormalisedErrors) -> ReportTable:
    """The field's measures for the network and the mean face; only a heading if no outer eye corners are annotated."""
    title = (
        f"Normalised errors of {len(network):,} faces: mean point distance / distance of the outer eye corners "
        "(inter-ocular, as in 300-W)"
    )
    columns = (Column("prediction"), *map(Column, ("NME", "failure rate at 8 %", "AUC at 8 %")))
    rows = tuple(
        (name, float(e.values.mean()), float(e.failures.mean()), float(e.areas.mean()))
        for name, e in (("network", network), ("best constant prediction", constant))
        if len(e)
    )
    return ReportTable(title, columns, rows)


def _coverage_table(coverage: Coverage, seed: int, units: Units) -> ReportTable:
    columns = (Column("regions"), Column("level"), Column("coverage"), INTERVAL)
    rows = tuple(
        (found.kind, f"{100 * found.level:.0f} %", found.share.value, Interval(found.share.low, found.share.high))
        for found in coverage.shares(seed, units)
    )
    return ReportTable("Coverage of the predicted 68 % and 95 % regions", columns, rows)


def _example_grids(
    faces: FaceDataset, predictions: NDArray[np.float32], errors: KeypointErrors, seed: int
) -> dict[str, Figure]:
    worst = np.argsort(-errors.distances)[:GRID_FACES]
    typical = np.random.default_rng(seed).permutation(len(faces))[:GRID_FACES]
    return {
        name: plots.points_grid(
            faces.images[rows], predictions[rows], faces.points[rows], KeypointErrors(errors.offsets[rows]), name
        )
        for name, rows in (("Typical faces", typical), ("Worst faces", worst))
    }


def _regions(faces: FaceDataset, points: NDArray[np.float32], deviations: NDArray[np.float32]) -> Figure:
    """The fully annotated faces with the smallest and with the largest standard deviations."""
    annotated = np.flatnonzero(~np.isnan(faces.points).any((1, 2)))
    order = annotated[np.argsort(deviations[annotated].mean((1, 2)), kind="stable")]
    rows = np.concatenate([order[:ROW_FACES], order[::-1][:ROW_FACES]])
    return plots.deviations_grid(faces.images[rows], points[rows], deviations[rows], faces.points[rows])
