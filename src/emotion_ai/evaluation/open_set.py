"""Faces outside the five emotions: how well they are separated, and what naming them costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from emotion_ai.evaluation.statistics import Estimate, Units, bootstrap, share
from emotion_ai.evaluation.tables import INTERVAL, Cell, Column, Interval, ReportTable
from emotion_ai.inference.verdict import NEUTRAL, decide

Floats = NDArray[np.floating]

MIXED = (0.0, 0.3, 0.5, 0.7)
"""Shares of faces outside the five in a stream."""

BUT_NEUTRAL = "probability of anything but Neutral"
"""The score by the class Neutral alone."""

NAMED = (0.6, 0.7, 0.8, 0.9)
"""Shares of the five's own faces that are named, at which the others' shares are stated."""


@dataclass(frozen=True)
class OpenSet:
    """Faces of the five emotions and of other classes, with what a network makes of them.

    Attributes:
        expressions: float (N, K), probabilities of the network's classes, the five emotions first.
        labels: int64 (N,), indices in `names`.
        names: of the true classes, the five emotions first, others after them; more than the network's maybe.
        emotions: how many of the first classes are the five.
        thresholds: float (K,), of each class's confidence, or (N, K); below it the verdict is uncertain.
        units: what intervals resample.
        seed: of the bootstrap.
        energy: float (N,), log of the sum of the exponentiated logits (Liu et al. 2020, arXiv:2010.03759), or None.
    """

    expressions: Floats
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    emotions: int
    thresholds: Floats
    units: Units
    seed: int
    energy: Floats | None = None

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Faces of the five, bool (N,)."""
        return self.labels < self.emotions

    @property
    def rest(self) -> dict[str, NDArray[np.bool_]]:
        """The other faces, bool (N,): of each class that occurs, and all of them together if these are several."""
        found = {name: self.labels == self.emotions + i for i, name in enumerate(self.names[self.emotions :])}
        found = {name: rows for name, rows in found.items() if rows.any()}
        return found | ({" and ".join(found): ~self.inside} if len(found) > 1 else {})

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class, int64 (N,)."""
        return self.expressions.argmax(1)

    @property
    def confidence(self) -> Floats:
        """Probability of the most probable class if that is one of the five, otherwise 0, (N,)."""
        return np.where(self.predicted < self.emotions, self.expressions.max(1), 0)

    @property
    def named(self) -> NDArray[np.bool_]:
        """Faces whose verdict is one of the five, bool (N,)."""
        verdicts = decide(self.expressions, self.thresholds)
        return (verdicts >= 0) & (verdicts < self.emotions)

    @property
    def scores(self) -> dict[str, Floats]:
        """How much a face looks like one of the five, by each rule, (N,)."""
        known = self.names[: self.expressions.shape[1]]
        if len(known) > self.emotions:
            found = {"total probability of the five": self.expressions[:, : self.emotions].sum(1)}
            if NEUTRAL in known:
                found[BUT_NEUTRAL] = 1 - self.expressions[:, known.index(NEUTRAL)]
            return {**found, "confidence of the verdict": self.confidence}
        highest = {"highest probability": self.confidence}
        return highest if self.energy is None else {**highest, "energy": self.energy}

    @cached_property
    def aurocs(self) -> dict[tuple[str, str], Estimate]:
        """AUROC by the names of the rest and of the score."""
        return {(n, s): self.auroc(scores, rows) for n, rows in self.rest.items() for s, scores in self.scores.items()}

    def auroc(self, scores: Floats, rest: NDArray[np.bool_]) -> Estimate:
        """Probability that a face of the five scores higher than one of the rest; ties count half."""
        rows = np.flatnonzero(self.inside | rest)
        values, inside = scores[rows], self.inside[rows]

        def area(drawn: NDArray[np.int64]) -> float:
            within = inside[drawn]
            n, m = within.sum(), (~within).sum()
            if not n or not m:
                return np.nan
            return float((rankdata(values[drawn])[within].sum() - n * (n + 1) / 2) / (n * m))

        return bootstrap(area, self.units[rows], self.seed)

    def named_share(self, rows: NDArray[np.bool_]) -> Estimate:
        """The share of some faces, bool (N,), whose verdict is one of the five."""
        return share(self.named[rows], self.units[rows], self.seed)

    def named_where(self, scores: Floats, rest: NDArray[np.bool_], kept: float) -> Estimate:
        """The share of the rest that scores as high as `kept` of the five's own faces; NaN if too few of these can.

        The threshold is found anew in every resample.
        """
        rows = np.flatnonzero(self.inside | rest)
        values, inside = scores[rows], self.inside[rows]
        lowest = 0.0 if scores is self.energy else np.finfo(np.float32).tiny

        def above(drawn: NDArray[np.int64]) -> float:
            within, drawn_values = inside[drawn], values[drawn]
            own, others = drawn_values[within], drawn_values[~within]
            if not len(own) or not len(others):
                return np.nan
            place = int((1 - kept) * len(own))
            threshold = np.partition(own, place)[place]
            return float((others >= threshold).mean()) if threshold >= lowest else np.nan

        return bootstrap(above, self.units[rows], self.seed)

    def curve(self, scores: Floats, rest: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Shares of the five's own faces, and of the rest, that score at least each threshold."""
        thresholds = np.unique(scores)[::-1]
        own, others = np.sort(scores[self.inside]), np.sort(scores[rest])
        return tuple(1 - np.searchsorted(values, thresholds) / len(values) for values in (own, others))  # type: ignore[return-value]

    def right_where(self, rest: NDArray[np.bool_], mixed: float) -> tuple[float, Estimate]:
        """In a stream of which `mixed` is the rest: the share of faces named, and of right ones among them."""
        rows = np.flatnonzero(self.inside | rest)
        inside, named = self.inside[rows], self.named[rows]
        right, wrong = inside & named & (self.predicted[rows] == self.labels[rows]), ~inside & named
        ours_named = inside & named

        def shares(drawn: NDArray[np.int64]) -> tuple[float, float]:
            own = inside[drawn].sum()
            hits, ours, others = right[drawn].sum(), ours_named[drawn].sum(), wrong[drawn].sum()
            kept = (1 - mixed) * ours / max(own, 1) + mixed * others / max(len(drawn) - own, 1)
            return float(kept), float((1 - mixed) * hits / max(own, 1) / kept) if kept else np.nan

        return shares(np.arange(len(rows)))[0], bootstrap(lambda drawn: shares(drawn)[1], self.units[rows], self.seed)

    def risk_curve(self, rest: NDArray[np.bool_], mixed: float) -> tuple[Floats, Floats]:
        """In such a stream: the share of faces named at each threshold of the confidence, and of wrong ones."""
        used = self.inside | rest
        own, others = self.inside.sum(), rest.sum()
        weights = np.where(self.inside, (1 - mixed) / own, mixed / others)[used]
        right = (self.inside & (self.predicted == self.labels))[used]
        order = np.argsort(-self.confidence[used], kind="stable")
        last = np.append(np.diff(self.confidence[used][order]) != 0, True) & (self.confidence[used][order] > 0)
        kept, correct = np.cumsum(weights[order])[last], np.cumsum((weights * right)[order])[last]
        positive = kept > 0
        return kept[positive], 1 - correct[positive] / kept[positive]


def open_set_tables(found: OpenSet) -> list[ReportTable]:
    """The tables of a report; the network's own scores and thresholds first."""
    return [_auroc_table(found), _named_table(found), _trade_table(found), _mixed_table(found)]


def summary_of(found: OpenSet) -> dict[str, Estimate]:
    """AUROC of the five against each kind of rest: Neutral by its own probability, others by the first score."""
    first = next(iter(found.scores))
    own = {NEUTRAL: BUT_NEUTRAL} if BUT_NEUTRAL in found.scores else {}
    return {f"AUROC against {name}": found.aurocs[name, own.get(name, first)] for name in found.rest}


def _auroc_table(found: OpenSet) -> ReportTable:
    rows = [(f"{name}: {score}", int(found.rest[name].sum()), *_cells(e)) for (name, score), e in found.aurocs.items()]
    columns = (Column("the five against"), Column("faces"), Column("AUROC"), INTERVAL)
    title = f"The {found.inside.sum():,} faces of the five against others; intervals resample {found.units}"
    return ReportTable(title, columns, tuple(rows))


def _named_table(found: OpenSet) -> ReportTable:
    own = {name: found.labels == i for i, name in enumerate(found.names[: found.emotions])}
    groups = {"all five": found.inside, **own, **found.rest}
    rows: list[tuple[Cell, ...]] = []
    for name, chosen in groups.items():
        if chosen.any():
            rows.append((name, int(chosen.sum()), *_cells(found.named_share(chosen)), _most_often(found, chosen)))
    columns = (Column("true class"), Column("faces"), Column("named"), INTERVAL, Column("most often"))
    return ReportTable("Named as one of the five, at the network's thresholds", columns, tuple(rows))


def _most_often(found: OpenSet, rows: NDArray[np.bool_]) -> str:
    counts = np.bincount(found.predicted[rows & found.named], minlength=found.emotions)
    return f"{found.names[counts.argmax()]} {counts.max() / counts.sum():.0%}" if counts.sum() else ""


def _trade_table(found: OpenSet) -> ReportTable:
    rows: list[tuple[Cell, ...]] = []
    for score, values in found.scores.items():
        for kept in NAMED:
            shares = [found.named_where(values, rest, kept) for rest in found.rest.values()]
            rows.append((f"{kept:.0%}, by the {score}", *(cell for each in shares for cell in _cells(each))))
    rest_columns = [column for name in found.rest for column in (Column(name, ".3f"), Column(INTERVAL.name, ".3f"))]
    columns = (Column("share of the five named"), *rest_columns)
    return ReportTable("Share of the rest that is named, where this share of the five is", columns, tuple(rows))


def _mixed_table(found: OpenSet) -> ReportTable:
    rows: list[tuple[Cell, ...]] = []
    for name, rest in found.rest.items():
        for mixed in MIXED[bool(rows) :]:  # without any they are all alike
            kept, right = found.right_where(rest, mixed)
            rows.append((f"{mixed:.0%} {name}" if mixed else "only the five", kept, *_cells(right)))
    columns = (Column("faces in the stream"), Column("named"), Column("right among these"), INTERVAL)
    return ReportTable("Verdicts with the rest mixed in, at the network's thresholds", columns, tuple(rows))


def agreement_table(accuracies: Mapping[str, Estimate]) -> ReportTable:
    """Accuracy on rows where the FER+ annotators agree with the label, by name of the rows."""
    columns = (Column("rows"), Column("faces"), Column("accuracy"), INTERVAL)
    rows = tuple((name, e.n, *_cells(e)) for name, e in accuracies.items())
    return ReportTable("Accuracy of the five where most FER+ annotators agree with the label", columns, rows)


def agreeing(votes: Floats, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Faces whose label has more votes than any other option, bool (N,).

    Args:
        votes: float (N, C), shares of the annotators; what is missing to 1 are votes for none of the classes.
        labels: int64 (N,), indices below C.
    """
    own = np.take_along_axis(votes, labels[:, None], 1)[:, 0]
    others = votes.copy()
    np.put_along_axis(others, labels[:, None], -1, 1)
    return (own > others.max(1) + 1e-6) & (own > 1 - votes.sum(1) + 1e-6)


def _cells(e: Estimate) -> tuple[float | None, Interval | None]:
    return (None, None) if np.isnan(e.value) else (e.value, Interval(e.low, e.high))
