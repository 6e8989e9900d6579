"""The picture of a comparison: the distributions of both samples, a panel for each measure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_ai.evaluation.answers import AnsweredFaces
from emotion_ai.evaluation.drift import ANSWERS, Difference, Drift, class_shares
from emotion_ai.extras import optional_imports
from emotion_ai.files import atomic_path

with optional_imports():
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE, LOG = "#0072B2", "#D55E00"
_UNITS = {
    "brightness": "mean gray level",
    "contrast": "standard deviation of the gray levels",
    "sharpness": "relative to the contrast",
    "size": "pixels of the photo",
}


def drift_figure(reference: AnsweredFaces, log: AnsweredFaces, drift: Drift) -> Figure:
    """Bars for the classes, histograms for numbers; drifted measures have a red title."""
    columns = min(len(drift.differences), 3)
    rows = -(-len(drift.differences) // columns)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}):
        figure = Figure(figsize=(4.2 * columns, 2.9 * rows + 0.7), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis, difference in zip(axes, drift.differences, strict=False):
        if difference.measure == ANSWERS:
            _classes(axis, class_shares(reference), class_shares(log))
        else:
            _histograms(axis, [sample.measures[difference.measure] for sample in (reference, log)])
            axis.set(xlabel=_UNITS.get(difference.measure, ""), ylabel="share of the faces")
        axis.set_title(_title(difference), color="#b00020" if difference.drifted else "black", fontsize=10)
    for axis in axes[len(drift.differences) :]:
        axis.axis("off")
    handles = [mpl.patches.Patch(color=color) for color in (REFERENCE, LOG)]
    names = [f"reference ({drift.faces[0]:,} faces)", f"log ({drift.faces[1]:,} faces)"]
    figure.legend(handles, names, loc="outside upper center", ncols=2, frameon=False)
    return figure


def save_drift(figure: Figure, path: Path) -> None:
    """Writes a PNG file, whole or not at all."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _title(difference: Difference) -> str:
    verdict = "drifted: " if difference.drifted else ""
    return f"{verdict}{difference.measure}, difference {difference.value:.2f}, p {difference.p:.2g}"


def _classes(axis: Axes, reference: dict[str, float], log: dict[str, float]) -> None:
    names = [*reference, *(name for name in log if name not in reference)]
    places = np.arange(len(names))
    for shift, color, shares in ((-0.2, REFERENCE, reference), (0.2, LOG, log)):
        axis.bar(places + shift, [shares.get(name, 0.0) for name in names], 0.4, color=color)
    axis.set_xticks(places, names, rotation=30 if len(names) > 5 else 0)
    axis.set(ylabel="share of the answers")


def _histograms(axis: Axes, samples: Sequence[NDArray[np.float64]]) -> None:
    known = [values[np.isfinite(values)] for values in samples]
    low, high = np.quantile(np.concatenate(known), [0.002, 0.998])
    margin = 0.5 if high == low else 0.0
    edges = np.linspace(low - margin, high + margin, 31)
    for color, values in zip((REFERENCE, LOG), known, strict=True):
        counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
        axis.stairs(counts / max(len(values), 1), edges, color=color, fill=True, alpha=0.25)
        axis.stairs(counts / max(len(values), 1), edges, color=color, linewidth=1.5)
