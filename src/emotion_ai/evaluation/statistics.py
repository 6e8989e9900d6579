"""Statistics: bootstrap intervals over faces, t intervals over runs, and paired tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


def bootstrap(measure: Callable[[NDArray[np.int64]], float], n: int, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Percentile interval (Efron 1979) over faces resampled with replacement.

    Args:
        measure: computes the value from row numbers, int64 (n,).
    """
    rng = np.random.default_rng(seed)
    draws = [measure(rng.integers(0, n, n)) for _ in range(resamples)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(measure(np.arange(n))), float(low), float(high), n)


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


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int) -> PairedTest:
    """Exact McNemar test (1947) of two runs' correct predictions, bool (N,), with the interval of the difference."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disagreements = only_first + only_second
    p = float(binomtest(only_first, disagreements).pvalue) if disagreements else 1.0
    gain = first.astype(float) - second
    return PairedTest("accuracy", bootstrap(lambda rows: float(gain[rows].mean()), len(gain), seed), p)


def paired_rmse(
    first: tuple[NDArray[np.float64], NDArray[np.float64]],
    second: tuple[NDArray[np.float64], NDArray[np.float64]],
    seed: int,
) -> PairedTest:
    """Paired bootstrap of two runs' RMSE, each given as (sums of squares, counts) by face.

    The difference is significant if its interval does not contain 0.
    """

    def difference(rows: NDArray[np.int64]) -> float:
        return float(np.subtract(*(np.sqrt(s[rows].sum() / c[rows].sum()) for s, c in (first, second))))

    return PairedTest("rmse", bootstrap(difference, len(first[0]), seed), None)
