"""Statistics: bootstrap intervals over faces or people, t intervals over runs, and paired tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from scipy.stats import t as student

from emotion_ai.errors import ConfigError

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval over `n` faces, or over `n` runs."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Units:
    """What an interval resamples: faces, or whole groups of faces that are not independent.

    Attributes:
        groups: int64 (N,), each face's group, numbered from 0 without gaps.
        name: what a group is: "faces", "people", ….
    """

    groups: NDArray[np.int64]
    name: str

    @classmethod
    def faces(cls, n: int) -> Self:
        """Every face on its own."""
        return cls(np.arange(n), "faces")

    @classmethod
    def of(cls, values: NDArray[Any], name: str) -> Self:
        """Faces with equal values, (N,), form a group."""
        return cls(np.unique(values, return_inverse=True)[1].astype(np.int64), name)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        return self.of(self.groups[rows], self.name)

    @property
    def count(self) -> int:
        """The number of groups."""
        return int(self.groups.max()) + 1 if len(self.groups) else 0

    @property
    def independent(self) -> bool:
        """Whether every face is a group of its own."""
        return self.count == len(self)

    def __str__(self) -> str:
        return f"{self.count:,} {self.name}"


def bootstrap(
    measure: Callable[[NDArray[np.int64]], float], over: int | Units, seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """Percentile interval (Efron 1979) over faces, or groups of faces, resampled with replacement.

    Draws for which the measure is NaN, such as those without any face of a class, are left out.

    Args:
        measure: computes the value from row numbers, int64; as many as there are faces, unless groups differ in size.
        over: the number of faces, or the units to resample (the cluster bootstrap of Davison and Hinkley 1997, 3.8).
    """
    units = Units.faces(over) if isinstance(over, int) else over
    rng, n, count = np.random.default_rng(seed), len(units), units.count
    order, sizes = np.argsort(units.groups, kind="stable"), np.bincount(units.groups)
    starts = np.cumsum(sizes) - sizes

    def draw() -> NDArray[np.int64]:
        chosen = rng.integers(0, count, count)
        if units.independent:
            return chosen if units.name == "faces" else order[chosen]
        lengths = sizes[chosen]
        steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        rows: NDArray[np.int64] = order[np.repeat(starts[chosen], lengths) + steps]
        return rows

    draws = np.array([measure(draw()) for _ in range(resamples)])
    known = draws[~np.isnan(draws)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Estimate(float(measure(np.arange(n))), float(low), float(high), n)


def share(hits: NDArray[np.bool_], over: Units, seed: int) -> Estimate:
    """A share of the faces: Wilson's interval (1927) if these are independent, otherwise a bootstrap of the groups."""
    if not over.independent:
        return bootstrap(lambda rows: float(hits[rows].mean()), over, seed)
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return Estimate(float(hits.mean()), float(interval.low), float(interval.high), len(hits))


def t_interval(values: Sequence[float]) -> Estimate:
    """Mean of independent runs with Student's t interval; for differences paired by seed, the paired t interval.

    Raises:
        ConfigError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ConfigError(f"an interval needs at least two seeds or folds, got {n}")
    mean = float(np.mean(values))
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n)


@dataclass(frozen=True)
class PairedTest:
    """The difference `first - second` on the same faces, its interval, and the p-value if the test has one."""

    name: str
    difference: Estimate
    p: float | None


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int, units: Units | None = None) -> PairedTest:
    """Exact McNemar test (1947) of two runs' correct predictions, bool (N,), with the interval of the difference.

    Without a p-value if several faces are of one unit: the test takes independent faces.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disagreements = only_first + only_second
    p = float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0
    gain = first.astype(float) - second
    over = units or Units.faces(len(gain))
    difference = bootstrap(lambda rows: float(gain[rows].mean()), over, seed)
    return PairedTest("accuracy", difference, p if over.independent else None)


def paired_rmse(
    first: tuple[NDArray[np.float64], NDArray[np.float64]],
    second: tuple[NDArray[np.float64], NDArray[np.float64]],
    seed: int,
    units: Units | None = None,
) -> PairedTest:
    """Paired bootstrap of two runs' RMSE, each given as (sums of squares, counts) by face.

    The difference is significant if its interval does not contain 0.
    """

    def difference(rows: NDArray[np.int64]) -> float:
        return float(np.subtract(*(np.sqrt(s[rows].sum() / c[rows].sum()) for s, c in (first, second))))

    return PairedTest("rmse", bootstrap(difference, units or len(first[0]), seed), None)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979): the error rate holds for all of them together."""
    order = np.argsort(values)
    scaled = np.asarray(values, float)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(p) for p in corrected]
