"""Whether a canary version is worse than the stable one, from their answers to the same faces.

Measures that need no labels: how far mirroring or shifting a face changes an answer, which grows when weights are
damaged; how far the two versions differ; confidence; latency. With labels also accuracy, Brier score and RMSE.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from math import comb, exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.canary.answers import Answers, BothAnswers, VersionAnswers
from emotion_ai.evaluation.canary.faces import CanaryFaces

LEVEL = 0.99
"""Of the intervals: a dozen are looked at together, and each may refuse a version."""

SURE = 0.8
"""Confidence from which stable's class counts as sure."""

_RESAMPLES = 1000

Array = NDArray[Any]
Statistic = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True)
class Margins:
    """How much worse a canary may be; larger differences, if their interval excludes none, refuse it.

    Attributes:
        accuracy: share of the labelled faces, lost.
        brier: Brier score, added.
        rmse: of the keypoints, as a factor.
        mirror: mean change of the answers by mirroring the face, as a factor.
        shift: mean change of the answers by moving the face 2 pixels, as a factor.
        points: mean distance of the two versions' keypoints, in pixels of the 96x96 crop.
        classes: share of faces to which the versions give different classes.
        confident: the same, among the faces of which stable is sure: a good version seldom contradicts those.
        confidence: mean confidence, up or down.
        deviations: mean standard deviation of the keypoints, up or down, as a factor.
        latency: median of a request with one face, as a factor.
    """

    accuracy: float = 0.02
    brier: float = 0.02
    rmse: float = 1.05
    mirror: float = 1.5
    shift: float = 1.5
    points: float = 1.5
    classes: float = 0.2
    confident: float = 0.05
    confidence: float = 0.1
    deviations: float = 1.5
    latency: float = 1.25

    @classmethod
    def parse(cls, changes: list[str]) -> "Margins":
        """The margins, some of them changed: `["latency=1.5"]`.

        Raises:
            ConfigError: an unknown name, or a value that is no margin.
        """
        known = {field.name: getattr(cls, field.name) for field in fields(cls)}
        values = dict(known)
        for change in changes:
            name, _, text = change.partition("=")
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            if name not in known:
                raise ConfigError(f"--margin {change}: the margins are {', '.join(known)}; write NAME=VALUE")
            least = 1.0 if known[name] > 1 and name != "points" else 0.0
            if not least <= value < float("inf"):
                raise ConfigError(f"--margin {change}: {name} must be a number >= {least:g}")
            values[name] = value
        return cls(**values)


@dataclass(frozen=True)
class Check:
    """One measure of both versions.

    Attributes:
        name: what is compared.
        margin_name: its margin in `Margins`.
        stable, canary: the measure; None if it is of both together.
        effect: how much worse the canary is: a difference, or a factor.
        low, high: its interval.
        margin: the largest effect that is accepted.
        factor: whether effect and margin are factors.
        p: of a test for any difference, if there is one.
    """

    name: str
    margin_name: str
    stable: float | None
    canary: float | None
    effect: float
    low: float
    high: float
    margin: float
    factor: bool = False
    p: float | None = None

    @property
    def worse(self) -> bool:
        """Whether the effect is beyond the margin and its interval excludes no effect."""
        return self.effect > self.margin and self.low > (1.0 if self.factor else 0.0)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "worse": self.worse}


@dataclass(frozen=True)
class Verdict:
    """The comparison of two versions.

    Attributes:
        source: of the faces.
        faces: their number.
        resampled: what the intervals resample: "faces", "people", ...
        checks: the measures.
        failures: errors of the canary's failed requests; a single one refuses it.
        identical: whether all answers are the same, up to rounding.
    """

    source: str
    faces: int
    resampled: str
    checks: list[Check]
    failures: list[str]
    identical: bool = False

    @property
    def worse(self) -> bool:
        """Whether the canary is refused."""
        return bool(self.failures) or any(check.worse for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return {
            "worse": self.worse,
            "identical": self.identical,
            "source": self.source,
            "faces": self.faces,
            "resampled": self.resampled,
            "level": LEVEL,
            "failures": self.failures,
            "checks": [check.as_dict() for check in self.checks],
        }


def judge(faces: CanaryFaces, both: BothAnswers, margins: Margins | None = None, seed: int = 0) -> Verdict:
    """Compares the answers of stable and canary; intervals are from a paired bootstrap over faces or people."""
    if both.versions is None:
        return Verdict(faces.source, len(faces), faces.resampled, [], both.failures)
    comparison = _Comparison(faces, *both.versions, margins or Margins(), seed)
    checks = comparison.truth() + comparison.steadiness() + comparison.agreement() + comparison.latency()
    return Verdict(faces.source, len(faces), faces.resampled, checks, both.failures, comparison.identical)


class _Comparison:
    def __init__(
        self, faces: CanaryFaces, stable: VersionAnswers, canary: VersionAnswers, margins: Margins, seed: int
    ) -> None:
        self.faces, self.stable, self.canary, self.margins, self.seed = faces, stable, canary, margins, seed
        self.output, self.classes = _common_output(stable.plain, canary.plain)

    @property
    def identical(self) -> bool:
        pairs = [
            (self.stable.plain.points, self.canary.plain.points, 1e-3),
            (*(getattr(v.plain, self.output) for v in (self.stable, self.canary)), 1e-4),
        ]
        return all(bool((np.isnan(a) | (np.abs(a - b) < limit)).all()) for a, b, limit in pairs)

    def truth(self) -> list[Check]:
        """Against known points and labels, if there are any."""
        checks = []
        first, second = (getattr(version.plain, self.output) for version in (self.stable, self.canary))
        if self.faces.labels is not None:
            places = [self.classes.index(name) if name in self.classes else -1 for name in self.faces.classes.names]
            labels = np.array([*places, -1])[self.faces.labels]  # the last for unknown ones, -1
            known = (labels >= 0) & (labels < first.shape[1]) & ~np.isnan(first[:, 0]) & ~np.isnan(second[:, 0])
            rows = np.flatnonzero(known)
            if len(rows):
                right, also = first.argmax(1) == labels, second.argmax(1) == labels
                p = None if self.faces.groups is not None else exact_mcnemar(right[rows], also[rows])
                checks.append(self._difference("accuracy", "accuracy", right, also, rows, -1, p))
                target = np.eye(first.shape[1])[np.where(known, labels, 0)]
                squares = ((first - target) ** 2).sum(1), ((second - target) ** 2).sum(1)
                checks.append(self._difference("Brier score", "brier", *squares, rows))
        if self.faces.points is not None:
            errors = [(version.plain.points - self.faces.points) ** 2 for version in (self.stable, self.canary)]
            known = ~np.isnan(errors[0] + errors[1])
            sums = [np.where(known, error, 0).sum((1, 2)) for error in errors]
            counts = known.sum((1, 2))
            if counts.sum():
                roots = [lambda rows, s=s: float(np.sqrt(s[rows].sum() / counts[rows].sum())) for s in sums]
                checks.append(
                    self._factor(
                        "keypoint RMSE, px", "rmse", *roots, rows=np.flatnonzero(counts), groups=self.faces.groups
                    )
                )
        return checks

    def steadiness(self) -> list[Check]:
        """How much the answers change with a change of the face that should not matter."""
        checks = []
        for kind, name in (("mirrored", "mirror"), ("shifted", "shift")):
            changes = []
            for version in (self.stable, self.canary):
                plain, other = version.plain, getattr(version, kind)
                points = np.linalg.norm(plain.points - other.points, axis=-1).mean(-1)
                classes = np.abs(getattr(plain, self.output) - getattr(other, self.output)).sum(-1) / 2
                changes.append((points, classes))
            for i, what in enumerate(("keypoints, px", "probabilities")):
                checks += self._mean_factor(f"{kind}: change of {what}", name, changes[0][i], changes[1][i])
        return checks

    def agreement(self) -> list[Check]:
        """How far the versions differ, whichever is right."""
        checks = []
        plain = (self.stable.plain, self.canary.plain)
        distances = np.linalg.norm(plain[0].points - plain[1].points, axis=-1).mean(-1)
        rows = np.flatnonzero(~np.isnan(distances))
        if len(rows):
            checks.append(self._apart("distance of the keypoints, px", "points", distances, rows))
        first, second = (getattr(answers, self.output) for answers in plain)
        rows = np.flatnonzero(~np.isnan(first[:, 0]) & ~np.isnan(second[:, 0]))
        if len(rows):
            other = (first.argmax(1) != second.argmax(1)).astype(float)
            checks.append(self._apart("other class", "classes", other, rows))
            sure = rows[first[rows].max(1) >= SURE]
            if len(sure):
                checks.append(self._apart(f"other class where stable is {SURE:.0%} sure", "confident", other, sure))
            confidences = first.max(1), second.max(1)
            sign = 1 if confidences[1][rows].mean() >= confidences[0][rows].mean() else -1
            checks.append(self._difference("confidence", "confidence", *confidences, rows, sign))
        if plain[0].deviations is not None and plain[1].deviations is not None:
            sizes = [answers.deviations.mean((1, 2)) for answers in plain]  # type: ignore[union-attr]
            checks += self._mean_factor("standard deviation, px", "deviations", *sizes, both_ways=True)
        return checks

    def latency(self) -> list[Check]:
        """Milliseconds of a request with one face."""
        medians = [
            lambda rows, seconds=version.seconds: float(np.median(seconds[rows]) * 1000)
            for version in (self.stable, self.canary)
        ]
        rows = np.arange(len(self.stable.seconds))
        return [self._factor("latency, ms", "latency", *medians, rows=rows, groups=None)]

    def _apart(self, name: str, margin: str, values: Array, rows: NDArray[np.int64]) -> Check:
        effect = self._interval(lambda chosen: float(values[chosen].mean()), rows, self.faces.groups)
        return Check(name, margin, None, None, *effect, getattr(self.margins, margin))

    def _difference(
        self,
        name: str,
        margin: str,
        first: Array,
        second: Array,
        rows: NDArray[np.int64],
        sign: int = 1,
        p: float | None = None,
    ) -> Check:
        change = sign * (second.astype(float) - first)
        effect = self._interval(lambda chosen: float(change[chosen].mean()), rows, self.faces.groups)
        means = float(first[rows].mean()), float(second[rows].mean())
        return Check(name, margin, *means, *effect, getattr(self.margins, margin), p=p)

    def _mean_factor(
        self, name: str, margin: str, first: Array, second: Array, *, both_ways: bool = False
    ) -> list[Check]:
        rows = np.flatnonzero(~np.isnan(first) & ~np.isnan(second))
        if not len(rows):
            return []
        means = [lambda rows, values=values: float(values[rows].mean()) for values in (first, second)]
        return [self._factor(name, margin, *means, rows=rows, groups=self.faces.groups, both_ways=both_ways)]

    def _factor(
        self,
        name: str,
        margin: str,
        first: Statistic,
        second: Statistic,
        *,
        rows: NDArray[np.int64],
        groups: NDArray[np.int64] | None,
        both_ways: bool = False,
    ) -> Check:
        def change(chosen: NDArray[np.int64]) -> float:
            return log(max(second(chosen), 1e-9) / max(first(chosen), 1e-9))

        effect, low, high = self._interval(change, rows, groups)
        if both_ways and effect < 0:
            effect, low, high = -effect, -high, -low
        values = first(rows), second(rows)
        effects = exp(effect), exp(low), exp(high)
        return Check(name, margin, *values, *effects, getattr(self.margins, margin), factor=True)

    def _interval(
        self, statistic: Statistic, rows: NDArray[np.int64], numbers: NDArray[np.int64] | None
    ) -> tuple[float, float, float]:
        """The statistic of the rows, and its percentile interval over faces, or people, resampled with replacement."""
        rng = np.random.default_rng(self.seed)
        groups = None if numbers is None else [rows[numbers[rows] == number] for number in np.unique(numbers[rows])]

        def draw() -> NDArray[np.int64]:
            if groups is None:
                return rows[rng.integers(0, len(rows), len(rows))]
            return np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])

        draws = [statistic(draw()) for _ in range(_RESAMPLES)]
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return statistic(rows), float(low), float(high)


def exact_mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Two-sided p-value of McNemar's exact test (1947); SciPy's binomial test is not part of the base install."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n)


def _common_output(first: Answers, second: Answers) -> tuple[str, tuple[str, ...]]:
    """The output with class probabilities that both versions have alike, and the names of its classes.

    Raises:
        ConfigError: they know different classes.
    """
    if first.expressions is not None and second.expressions is not None and first.classes == second.classes:
        return "expressions", first.classes
    names = [
        EMOTIONS if answers.classes[: len(EMOTIONS)] == EMOTIONS else answers.classes for answers in (first, second)
    ]
    if names[0] != names[1]:
        known = " and ".join(", ".join(each) for each in names)
        raise ConfigError(
            f"the versions know different classes ({known}) and cannot be compared; compare --model keypoints"
        )
    return "probabilities", names[0]
