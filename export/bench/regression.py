"""Decides whether something became slower than in a baseline, with as many rounds as that takes.

Rounds are added while the 95 % interval of the ratio to the baseline holds the limit. What looks slower is measured
afresh and counts only if it looks slower again, since other work on the machine comes and goes.
"""

from collections.abc import Callable
from dataclasses import replace

from emotion_ai_export.bench.compare import Change, Figure, compare

ROUNDS, MOST = 12, 48

Measure = Callable[[int], list[float]]
"""Values of so many more rounds."""


def measure_against(
    baseline: Figure, measure: Measure, margin: float, rounds: int = ROUNDS, most: int = MOST
) -> Figure:
    """The figure of the baseline's name, of enough rounds to judge it."""
    figure = _until_clear(baseline, measure, margin, rounds, most)
    return _until_clear(baseline, measure, margin, rounds, most) if _is_slower(baseline, figure, margin) else figure


def judge(figure: Figure, baseline: Figure, margin: float) -> Change:
    """The change, whose verdict follows from the medians alone."""
    (change,) = compare([figure], [baseline], margin)
    verdict = "worse" if change.ratio > 1 + margin else "better" if change.ratio < 1 / (1 + margin) else ""
    return replace(change, verdict=verdict)


def _until_clear(baseline: Figure, measure: Measure, margin: float, rounds: int, most: int) -> Figure:
    values: list[float] = []
    while len(values) < most:
        values += measure(min(rounds, most - len(values)))
        figure = Figure(baseline.name, values)
        (change,) = compare([figure], [baseline], margin)
        if not change.low <= 1 + margin <= change.high:
            break
    return figure


def _is_slower(baseline: Figure, figure: Figure, margin: float) -> bool:
    return judge(figure, baseline, margin).verdict == "worse"
