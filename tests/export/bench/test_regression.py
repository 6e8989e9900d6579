"""What is slower than the baseline is found, and noise is not taken for it."""

from collections.abc import Iterator

import numpy as np
import pytest

from emotion_ai_export.bench.compare import Figure
from emotion_ai_export.bench.regression import MOST, ROUNDS, Measure, judge, measure_against

MARGIN = 0.15


def noise(seed: int, spread: float) -> Iterator[float]:
    """Ratios around 2 with a long tail, as other work on the machine makes it."""
    rng = np.random.default_rng(seed)
    while True:
        yield 2 * (1 + spread * float(rng.standard_normal()) + (rng.random() < 0.1) * float(rng.random()))


def taken(values: Iterator[float], counts: list[int], factor: float = 1.0) -> Measure:
    def measure(rounds: int) -> list[float]:
        counts.append(rounds)
        return [factor * next(values) for _ in range(rounds)]

    return measure


def baseline(seed: int = 100) -> Figure:
    values = noise(seed, 0.03)
    return Figure("reading", [next(values) for _ in range(30)])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, ""), (1.05, ""), (1.3, "worse"), (0.7, "better")])
def test_a_slowdown_of_30_percent_is_found_and_noise_is_not(factor: float, verdict: str, seed: int) -> None:
    figure = measure_against(baseline(), taken(noise(seed, 0.06), [], factor), MARGIN)
    assert judge(figure, baseline(), MARGIN).verdict == verdict


def test_a_clear_figure_takes_few_rounds_and_a_doubtful_one_all() -> None:
    for factor, count in ((1.0, ROUNDS), (1.15, MOST)):
        counts: list[int] = []
        measure_against(baseline(), taken(noise(0, 0.05), counts, factor), MARGIN)
        assert sum(counts) in (count, 2 * MOST)
        assert max(counts) <= ROUNDS


def test_a_slow_phase_of_the_machine_is_measured_again() -> None:
    values, counts = noise(3, 0.03), list[int]()

    def measure(rounds: int) -> list[float]:
        counts.append(rounds)
        return [(1.5 if len(counts) == 1 else 1.0) * next(values) for _ in range(rounds)]

    figure = measure_against(baseline(), measure, MARGIN)
    assert judge(figure, baseline(), MARGIN).verdict == ""
    assert len(figure.values) == ROUNDS, "the first phase counts no more"
