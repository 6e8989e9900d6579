"""Slices: the main metric of each group of faces, and the worst group."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from emotion_ai.contract import Task
from emotion_ai.data.dataset import Targets
from emotion_ai.errors import ConfigError, WorstGroupError
from emotion_ai.evaluation.groupings import Grouping
from emotion_ai.evaluation.metrics import KeypointErrors
from emotion_ai.evaluation.statistics import Estimate, Units, bootstrap, share
from emotion_ai.evaluation.tables import INTERVAL, Cell, Column, Interval, ReportTable


@dataclass(frozen=True)
class GroupMetric:
    """The main metric of one group, `estimate`, over `units` people or faces."""

    column: str
    group: str
    estimate: Estimate
    units: int


@dataclass(frozen=True)
class Gate:
    """When the worst group fails an evaluation.

    Attributes:
        bound: the worst group's accuracy must not be below it, its RMSE in pixels not above it; None never fails.
        by: only this column's groups count; None means all columns.
        min_faces: smaller groups do not count.
    """

    bound: float | None
    by: str | None
    min_faces: int

    @classmethod
    def of(cls, cfg: DictConfig, task: Task, groupings: Sequence[Grouping]) -> Self:
        """The settings of `cfg.gate`.

        Raises:
            ConfigError: a value that cannot be used, a column that the groups lack, or a bound without groups.
        """
        bound, by, min_faces = cfg.worst_group, cfg.by, cfg.min_faces
        highest = 1.0 if task == "emotion" else math.inf
        number = isinstance(bound, int | float) and not isinstance(bound, bool)
        if bound is not None and not (number and 0 < bound <= highest and math.isfinite(bound)):
            kind = "an accuracy above 0, up to 1" if task == "emotion" else "an RMSE in pixels above 0"
            raise ConfigError(f"gate.worst_group must be {kind}, got {bound}")
        if not isinstance(min_faces, int) or isinstance(min_faces, bool) or min_faces < 1:
            raise ConfigError(f"gate.min_faces must be an integer >= 1, got {min_faces}")
        if bound is not None and not groupings:
            raise ConfigError(f"gate.worst_group={bound}: there are no groups; give slices=FILE")
        columns = [grouping.column for grouping in groupings]
        if by is not None and str(by) not in columns:
            raise ConfigError(f"gate.by={by}: no such column; the faces are grouped by {', '.join(columns) or 'none'}")
        sizes = [size for grouping in groupings for size in grouping.sizes() if by in (None, grouping.column)]
        if sizes and max(sizes) < min_faces:
            raise ConfigError(f"gate.min_faces={min_faces}: the largest group has {max(sizes):,} faces; lower it")
        return cls(None if bound is None else float(bound), None if by is None else str(by), min_faces)

    def counts(self, group: GroupMetric) -> bool:
        return group.estimate.n >= self.min_faces and self.by in (None, group.column)


@dataclass(frozen=True)
class Slices:
    """The metric of each group.

    Attributes:
        metric: its name, "accuracy" or "rmse".
        overall: of all faces.
        units: what the intervals resample, such as "people".
        groups: column by column.
        gate: which groups count as the worst.
    """

    metric: str
    overall: Estimate
    units: str
    groups: tuple[GroupMetric, ...]
    gate: Gate

    @property
    def worst(self) -> GroupMetric:
        """The group with the lowest accuracy or the highest RMSE, of those that count."""
        sign = -1 if self.metric == "rmse" else 1
        return min(filter(self.gate.counts, self.groups), key=lambda group: sign * group.estimate.value)

    def check(self) -> None:
        """Compares the worst group with the bound.

        Raises:
            WorstGroupError: it is worse.
        """
        bound, worst = self.gate.bound, self.worst
        value = worst.estimate.value
        if bound is not None and (value > bound if self.metric == "rmse" else value < bound):
            raise WorstGroupError(
                f"worst group {worst.column}={worst.group}: {self.metric} {value:.4f} ({worst.estimate.low:.4f} to "
                f"{worst.estimate.high:.4f}, n = {worst.estimate.n:,}) is {'above' if value > bound else 'below'} "
                f"gate.worst_group={bound:g}"
            )

    def tables(self) -> list[ReportTable]:
        """A table for each column, and one with the worst group."""
        people = () if self.units == "faces" else (Column(self.units),)
        columns = (Column("group"), Column("faces"), *people, Column(self.metric), INTERVAL)

        def row(name: str, e: Estimate, units: int) -> tuple[Cell, ...]:
            interval = Interval(e.low, e.high) if units > 1 else None  # a single person shows no spread
            return (name, e.n, *((units,) if people else ()), e.value, interval)

        by_column: dict[str, list[tuple[Cell, ...]]] = {}
        for group in self.groups:
            by_column.setdefault(group.column, []).append(row(group.group, group.estimate, group.units))
        worst = self.worst
        found = [ReportTable(f"By {column}", columns, tuple(rows)) for column, rows in by_column.items()]
        name = f"{worst.column}: {worst.group}"
        return [*found, ReportTable("Worst group", columns, (row(name, worst.estimate, worst.units),))]


def slice_metrics(
    task: Task,
    predictions: NDArray[np.float32],
    targets: Targets,
    groupings: Sequence[Grouping],
    units: Units,
    seed: int,
    gate: Gate,
) -> Slices:
    """The main metric of each group, with an interval.

    Args:
        predictions: keypoints float32 (N, 15, 2), or probabilities float32 (N, C) of the first C classes.
        targets: as in `FaceDataset`; faces of classes from C on do not count.
        groupings: at least one column.
        units: what the intervals resample.
        gate: which groups count as the worst.
    """
    counted = np.arange(len(predictions))
    if task == "keypoints":
        squares, counts = KeypointErrors.of(predictions, targets.astype(np.float32, copy=False)).per_face

        def estimate(rows: NDArray[np.int64]) -> Estimate:
            s, c = squares[rows], counts[rows]
            return bootstrap(lambda r: float(np.sqrt(s[r].sum() / c[r].sum())), units[rows], seed)
    else:
        correct = predictions.argmax(1) == targets
        counted = np.flatnonzero(targets < predictions.shape[1])
        groupings = [grouping.within(targets < predictions.shape[1]) for grouping in groupings]

        def estimate(rows: NDArray[np.int64]) -> Estimate:
            return share(correct[rows], units[rows], seed)

    found = []
    for grouping in groupings:
        for index, name in enumerate(grouping.names):
            if len(rows := grouping.rows(index)):
                found.append(GroupMetric(grouping.column, name, estimate(rows), units[rows].count))
    metric = "rmse" if task == "keypoints" else "accuracy"
    return Slices(metric, estimate(counted), units.name, tuple(found), gate)
