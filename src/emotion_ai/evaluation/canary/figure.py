"""A picture of a comparison: each measure's interval beside its margin."""

import matplotlib as mpl
from matplotlib.figure import Figure

from emotion_ai.evaluation.canary.compare import LEVEL, Check, Verdict
from emotion_ai.evaluation.plots import BLUE, GRAY, ORANGE


def draw_verdict(verdict: Verdict, title: str) -> Figure:
    """Effects in units of their margins: 0 is no difference, 1 the margin; what is refused is orange."""
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False}):
        figure = Figure(figsize=(7.2, 1.4 + 0.32 * max(len(verdict.checks), 1)), layout="constrained")
        axis = figure.subplots()
    axis.axvline(0, color=GRAY, lw=1)
    axis.axvline(1, color=ORANGE, lw=1, ls="--")
    limit = max([2.0, *(in_margins(check, check.effect) * 1.3 for check in verdict.checks)])
    for place, check in enumerate(verdict.checks):
        colour = ORANGE if check.worse else BLUE
        low, value, high = (in_margins(check, number) for number in (check.low, check.effect, check.high))
        axis.plot([max(low, -limit), min(high, limit)], [place, place], color=colour, lw=2)
        axis.plot([min(value, limit)], [place], "o", color=colour, ms=5)
    axis.set_yticks(range(len(verdict.checks)), [check.name for check in verdict.checks])
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(max(len(verdict.checks), 1) - 0.5, -0.5)
    axis.set_xlim(-min(limit, 2.0), limit)
    axis.set_xlabel(f"how much worse the canary is, in margins; bars: {LEVEL:.0%} intervals")
    answer = "worse" if verdict.worse else "not worse"
    failed = f", {len(verdict.failures)} failed requests" if verdict.failures else ""
    figure.suptitle(f"{title}: the canary is {answer} ({verdict.faces:,} faces, {verdict.source}{failed})", fontsize=10)
    return figure


def in_margins(check: Check, value: float) -> float:
    """An effect in units of the margin; of factors, of what exceeds 1."""
    neutral = 1.0 if check.factor else 0.0
    return (value - neutral) / max(check.margin - neutral, 1e-6)
