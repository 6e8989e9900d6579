"""Figures of faces outside the five emotions."""

from matplotlib.figure import Figure

from emotion_ai.evaluation.open_set import MIXED, OpenSet
from emotion_ai.evaluation.plots import BLUE, GRAY, GREEN, ORANGE, _plain

_COLORS = (BLUE, ORANGE, GREEN, GRAY)


def trade_off(found: OpenSet) -> Figure:
    """Shares of other faces named against the share of the five's own; the dots are the network's thresholds."""
    figure, axis = _plain()
    score, values = next(iter(found.scores.items()))
    for color, (name, rest) in zip(_COLORS, found.rest.items(), strict=False):
        own, others = found.curve(values, rest)
        axis.plot(own, others, color=color, label=f"{name} ({rest.sum():,})")
        axis.plot(found.named[found.inside].mean(), found.named[rest].mean(), "D", color=color, ms=6)
    axis.plot([0, 1], [0, 1], color=GRAY, ls="--", lw=1)
    axis.axvline(0.8, color=GRAY, ls=":", lw=1)
    axis.set(xlabel="share of the five's own faces named", ylabel="share of the others named", xlim=(0, 1), ylim=(0, 1))
    axis.set_title(f"Named as one of the five, by the {score.removesuffix(' of the five')}", fontsize=11)
    axis.legend(frameon=False, loc="upper left", title="dots: at the network's thresholds", title_fontsize=8)
    axis.grid(alpha=0.3)
    return figure


def mixed_risk(found: OpenSet) -> Figure:
    """Error rate among the named faces against their share, with other faces mixed in; dots as in `trade_off`."""
    figure, axis = _plain()
    name, rest = list(found.rest.items())[-1]
    for color, mixed in zip(_COLORS, MIXED, strict=True):
        share, risk = found.risk_curve(rest, mixed)
        axis.plot(share, risk, color=color, label=f"{mixed:.0%}")
        kept, right = found.right_where(rest, mixed)
        axis.plot(kept, 1 - right.value, "D", color=color, ms=6)
    axis.set(xlabel="share of the faces named", ylabel="error rate among them", xlim=(0, 1.02), ylim=(0, None))
    axis.set_title(f"Risk against coverage with {name} mixed in")
    axis.legend(frameon=False, loc="upper left", title="mixed in", title_fontsize=9)
    axis.grid(alpha=0.3)
    return figure
