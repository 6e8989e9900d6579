"""Figures. Each function returns a matplotlib figure; colours are safe for colour-blind readers."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from numpy.typing import NDArray

from emotion_ai.evaluation.abstention import RiskCoverage
from emotion_ai.evaluation.metrics import FAILURE, EmotionScores, KeypointErrors, NormalisedErrors
from emotion_ai.evaluation.slices import Slices
from emotion_ai.evaluation.statistics import Estimate
from emotion_ai.files import atomic_path
from emotion_ai.inference.drawing import ELLIPSE_95

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#8c8c8c"
_STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
}


def _grid(count: int, columns: int, title: str) -> tuple[Figure, list[Axes]]:
    with mpl.rc_context(_STYLE):
        rows = -(-max(count, 1) // columns)
        figure = Figure(figsize=(1.6 * columns, 1.8 * rows + 0.5))
        axes = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(title, fontsize=12)
    for axis in axes.ravel():
        axis.axis("off")
    return figure, list(axes.ravel())


def _plain(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def points_grid(
    images: NDArray[np.uint8],
    predicted: NDArray[np.float32],
    true: NDArray[np.float32],
    errors: KeypointErrors,
    title: str,
) -> Figure:
    """Faces with true points (green circles), predicted ones (orange crosses) and their mean distance."""
    figure, axes = _grid(len(images), 6, title)
    for axis, image, guess, truth, distance in zip(axes, images, predicted, true, errors.distances, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.scatter(truth[:, 0], truth[:, 1], s=14, facecolors="none", edgecolors="#3ddc97", linewidths=1.0)
        axis.scatter(guess[:, 0], guess[:, 1], s=14, marker="x", color="#ff8c42", linewidths=1.0)
        axis.set_title(f"{distance:.1f} px", fontsize=9)
        axis.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    figure.legend(
        handles=[
            Line2D([], [], marker="o", ls="", mfc="none", color="#3ddc97", label="true"),
            Line2D([], [], marker="x", ls="", color="#ff8c42", label="predicted"),
        ],
        loc="upper right",
        frameon=False,
        ncols=2,
    )
    figure.tight_layout()
    return figure


def deviations_grid(
    images: NDArray[np.uint8],
    points: NDArray[np.float32],
    deviations: NDArray[np.float32],
    true: NDArray[np.float32],
) -> Figure:
    """Faces with true points (green dots), predicted 95 % regions and the mean standard deviation.

    The first half are the faces with the smallest standard deviations, the others those with the largest.
    """
    figure, axes = _grid(len(images), 6, "Smallest standard deviations, largest below")
    for axis, image, centres, widths, truth in zip(axes, images, points, deviations, true, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        for centre, (across, down) in zip(centres, 2 * ELLIPSE_95 * widths, strict=True):
            axis.add_patch(Ellipse(centre, across, down, fill=False, color="#ff8c42", lw=0.9))
        axis.scatter(truth[:, 0], truth[:, 1], s=5, color="#3ddc97", linewidths=0)
        axis.set_title(f"{widths.mean():.1f} px", fontsize=9)
        axis.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    figure.legend(
        handles=[
            Line2D([], [], marker="o", ls="", ms=4, color="#3ddc97", label="true"),
            Line2D([], [], marker="o", ls="", ms=9, mfc="none", color="#ff8c42", label="95 % region"),
        ],
        loc="upper right",
        frameon=False,
        ncols=2,
    )
    figure.tight_layout()
    return figure


def cumulative_error(errors: KeypointErrors, mean_face: KeypointErrors) -> Figure:
    """Share of the faces up to each mean point distance."""
    figure, axis = _plain()
    for name, colour, values in (("network", BLUE, errors.distances), ("mean face", GRAY, mean_face.distances)):
        axis.plot(np.sort(values), np.arange(1, len(values) + 1) / len(values), color=colour, label=name)
    axis.set(xlabel="mean point distance (pixels of the 96×96 crop)", ylabel="share of the faces", ylim=(0, 1))
    axis.set_xlim(0, float(np.percentile(mean_face.distances, 98)))
    axis.legend(frameon=False, loc="lower right")
    axis.set_title("Cumulative error")
    axis.grid(alpha=0.3)
    return figure


def cumulative_normalised(errors: NormalisedErrors, mean_face: NormalisedErrors) -> Figure:
    """Share of the faces up to each normalised error; the area up to the failure bound is shaded."""
    figure, axis = _plain()
    for name, colour, e in (("network", BLUE, errors), ("mean face", GRAY, mean_face)):
        label = f"{name}: AUC {e.areas.mean():.3f}, {e.failures.mean():.1%} failed"
        axis.ecdf(100 * e.values, color=colour, label=label)
    inside = np.sort(100 * errors.values[~errors.failures])
    steps = np.arange(1, len(inside) + 1) / len(errors)
    bound = 100 * FAILURE
    axis.fill_between([*inside, bound], [*steps, len(inside) / len(errors)], step="post", color=BLUE, alpha=0.12)
    axis.axvline(bound, color=ORANGE, ls="--", lw=1)
    axis.set(xlabel="mean point distance, % of the distance of the outer eye corners", ylabel="share of the faces")
    axis.set(xlim=(0, 1.5 * bound), ylim=(0, 1), title="Cumulative normalised error")
    axis.legend(frameon=False, loc="lower right")
    axis.grid(alpha=0.3)
    return figure


def point_errors(errors: KeypointErrors) -> Figure:
    """RMSE of each point."""
    figure, axis = _plain(6.4, 4.6)
    values = errors.per_point
    bars = axis.barh([name.replace("_", " ") for name in values], list(values.values()), color=BLUE)
    axis.invert_yaxis()
    axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
    axis.set(xlabel="RMSE (pixels of the 96×96 crop)", title="RMSE of each point")
    return figure


def coverage_curve(curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Figure:
    """Coverage of the predicted regions against their level; `curves` holds (levels, coverage) by name."""
    figure, axis = _plain(4.8, 4.6)
    axis.plot([0, 1], [0, 1], color=GRAY, ls="--", lw=1)
    for colour, (name, (levels, coverage)) in zip((BLUE, ORANGE), curves.items(), strict=False):
        axis.plot(levels, coverage, color=colour, marker="o", ms=3, label=name)
    axis.set(xlabel="level of the region", ylabel="share of true positions within", xlim=(0, 1), ylim=(0, 1))
    axis.set_title("Coverage of the predicted regions")
    axis.legend(frameon=False, loc="lower right", title="above the line: regions too wide", title_fontsize=8)
    return figure


def folds_plot(figures: dict[str, dict[str, Estimate]], title: str) -> Figure:
    """A panel for each metric: its values by name (folds, their mean, pooled) with intervals."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * len(figures), 3.6), layout="constrained")
        axes = figure.subplots(1, len(figures))
    for axis, (name, values) in zip(np.atleast_1d(axes), figures.items(), strict=True):
        for place, (label, estimate) in enumerate(values.items()):
            _interval(axis, estimate, place, GRAY if label.startswith("fold") else BLUE)
        _rows(axis, list(values))
        axis.set(xlabel=name)
    figure.suptitle(f"{title}; bars are 95 % intervals", fontsize=11)
    return figure


def forest(
    differences: dict[str, Estimate], seeds: dict[str, list[float]], xlabel: str, title: str, lower_is_better: bool
) -> Figure:
    """Differences to the baseline by change: the mean with its interval, and each seed as a small dot.

    Blue is better than the baseline, orange worse, gray undecided: its interval contains 0.
    """
    figure, axis = _plain(7.2, 1.5 + 0.38 * len(differences))
    for place, (name, e) in enumerate(differences.items()):
        decided = not e.low <= 0 <= e.high
        colour = GRAY if not decided else BLUE if (e.value < 0) == lower_is_better else ORANGE
        _interval(axis, e, place, colour)
        axis.scatter(seeds[name], [place + 0.25] * len(seeds[name]), s=9, color=colour, alpha=0.6, linewidths=0)
    axis.axvline(0, color="black", lw=1)
    _rows(axis, list(differences))
    axis.set(xlabel=xlabel)
    figure.suptitle(title, fontsize=11)
    return figure


def trials_plot(trials: list[Any], metric: str, mode: str, log: set[str]) -> Figure:
    """A sweep: the metric by trial with the best so far, and by each setting that was tried.

    Args:
        trials: Optuna's, complete or pruned; a pruned one is drawn hollow, with its last value.
        mode: "min" or "max".
        log: settings on a logarithmic axis.
    """
    settings = list(trials[0].params)
    columns = min(len(settings) + 1, 4)
    rows = -(-(len(settings) + 1) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.3 * columns + 0.6, 3.1 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    values = np.array([trial.value for trial in trials], float)
    whole = np.array([trial.state.name == "COMPLETE" for trial in trials])
    best = np.where(whole, values, np.inf if mode == "min" else -np.inf)
    best = (np.minimum if mode == "min" else np.maximum).accumulate(best)
    if whole.any():  # a trial that was pruned early would squeeze the others: it is drawn at the border
        low, high = values[whole].min(), values[whole].max()
        room = 0.15 * (high - low) or 0.05 * abs(high) or 1.0
        values = values.clip(low - room, high + room)
    places: dict[str, list[Any]] = {"trial": [trial.number for trial in trials]}
    places |= {key: [trial.params.get(key) for trial in trials] for key in settings}
    for axis, (name, place) in zip(axes, places.items(), strict=False):
        x = np.array(place) if all(isinstance(v, int | float) and not isinstance(v, bool) for v in place) else None
        if x is None:
            names = sorted({str(value) for value in place})
            x = np.array([names.index(str(value)) for value in place])
            axis.set_xticks(range(len(names)), names)
        axis.scatter(x[whole], values[whole], color=BLUE, s=24)
        axis.scatter(x[~whole], values[~whole], facecolors="none", edgecolors=GRAY, s=24)
        if name == "trial":
            axis.step(x, np.where(np.isfinite(best), best, np.nan), where="post", color=ORANGE, lw=1.5)
        axis.set(xlabel=name)
        axis.grid(axis="y", alpha=0.3)
        if name in log:
            axis.set_xscale("log")
    for axis in axes[len(places) :]:
        axis.axis("off")
    for axis in axes[::columns]:
        axis.set(ylabel=metric)
    figure.suptitle("Trials: complete filled, pruned hollow; the line is the best so far", fontsize=11)
    return figure


def slices_forest(slices: Slices) -> Figure:
    """Each group's metric with its interval, the worst in orange; the dashed line is that of all faces."""
    names = [f"{g.column}: {g.group} ({g.estimate.n:,})" for g in slices.groups]
    figure, axis = _plain(7.2, 1.3 + 0.3 * len(names))
    for place, group in enumerate(slices.groups):
        _interval(axis, group.estimate, place, ORANGE if group == slices.worst else BLUE)
    axis.axvline(slices.overall.value, color=GRAY, ls="--", lw=1)
    if slices.gate.bound is not None:
        axis.axvline(slices.gate.bound, color="black", lw=1)
    _rows(axis, names)
    axis.set(xlabel=f"{slices.metric}, with 95 % intervals over {slices.units}")
    figure.suptitle("Slices: worst group in orange, all faces dashed, bound of the gate solid", fontsize=11)
    return figure


def _interval(axis: Axes, estimate: Estimate, place: float, colour: str) -> None:
    axis.plot([estimate.low, estimate.high], [place, place], color=colour, lw=1.5, marker="|", ms=6)
    axis.plot(estimate.value, place, color=colour, marker="o", ms=6)


def _rows(axis: Axes, names: list[str]) -> None:
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG file, atomically."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _plain_names(scores: EmotionScores) -> list[str]:
    """Names of the classes, in which no part is taken for a formula."""
    return [name.replace("$", r"\$") for name in scores.names]


def faces_grid(images: NDArray[np.uint8], scores: EmotionScores, title: str) -> Figure:
    """Faces with predicted class and confidence, and the true class of wrong predictions."""
    figure, axes = _grid(len(images), 6, title)
    names = _plain_names(scores)
    rows = zip(axes, images, scores.predicted, scores.labels, scores.probabilities.max(1), strict=False)
    for axis, image, guess, truth, confidence in rows:
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        words = f"{names[guess]} {confidence:.0%}" + ("" if guess == truth else f"\ntrue: {names[truth]}")
        axis.set_title(words, fontsize=8.5, color="black" if guess == truth else ORANGE)
    figure.tight_layout(h_pad=2.2)
    return figure


def attention_grid(images: NDArray[np.uint8], maps: NDArray[np.float32], scores: EmotionScores, columns: int) -> Figure:
    """Faces overlaid with activation maps of the predicted class, float (N, 96, 96), 0 to 1; a row per true class.

    Args:
        columns: faces in a row, correct predictions first; a row is shorter if there are not enough.
    """
    names = _plain_names(scores)
    figure, axes = _grid(len(names) * columns, columns, "Activation maps (Grad-CAM) of the predicted class")
    taken = [0] * len(names)
    half = columns // 2
    rows = zip(images, maps, scores.predicted, scores.labels, scores.probabilities.max(1), strict=True)
    for image, activation, guess, truth, confidence in sorted(rows, key=lambda row: bool(row[2] != row[3])):
        correct = guess == truth
        taken[truth] = taken[truth] + 1 if correct else max(taken[truth], half) + 1
        axis = axes[truth * columns + taken[truth] - 1]
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, 1, 1, 0))
        # bright where the evidence is, plain gray elsewhere
        axis.imshow(activation, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * activation, extent=(0, 1, 1, 0))
        words = f"{names[guess]} {confidence:.0%}" + ("" if correct else f"\ntrue: {names[truth]}")
        axis.set_title(words, fontsize=8.5, color="black" if correct else ORANGE)
    figure.tight_layout(h_pad=1.5)
    return figure


def confusion(scores: EmotionScores) -> Figure:
    """Counts, shaded by each true class's share."""
    side = 0.9 * max(len(scores.names) - 5, 0)
    figure, axis = _plain(5.6 + side, 4.8 + side)
    counts, names = scores.confusion, _plain_names(scores)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    words = np.array([[f"{c}\n{s:.0%}" for c, s in zip(*row, strict=True)] for row in zip(counts, shares, strict=True)])
    sns.heatmap(
        shares, annot=words, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, square=True,
        xticklabels=names, yticklabels=names, ax=axis, annot_kws={"fontsize": 9},
    )  # fmt: skip
    axis.set(xlabel="predicted", ylabel="true", title="Confusion matrix")
    return figure


def reliability(scores: EmotionScores) -> Figure:
    """Accuracy against confidence; on the diagonal, confidence equals accuracy."""
    figure, axis = _plain(4.8, 4.6)
    bins = scores.reliability(15)
    confidence, accuracy, share = (np.array(column) for column in zip(*bins, strict=True))
    axis.plot([0, 1], [0, 1], color=GRAY, ls="--", lw=1)
    axis.scatter(confidence, accuracy, s=20 + 600 * share, color=BLUE, alpha=0.75)
    axis.plot(confidence, accuracy, color=BLUE, lw=1)
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axis.set_title(f"Reliability: calibration error {scores.calibration_error:.3f}")
    return figure


def risk_coverage(kept: list[RiskCoverage], chosen: float | None) -> Figure:
    """Error rate among the kept faces against their share; `chosen` is the network's own threshold."""
    figure, axis = _plain(6.4, 4.2)
    some = [k for k in kept if k.share > 0]
    axis.plot([k.share for k in some], [1 - k.accuracy for k in some], color=BLUE)
    for k in some:
        if round(k.threshold * 100) in (50, 60, 70, 80, 90):
            axis.plot(k.share, 1 - k.accuracy, "o", color=BLUE, ms=4)
            axis.annotate(
                f"{k.threshold:.1f}", (k.share, 1 - k.accuracy), (-4, 5), textcoords="offset points", ha="right"
            )
    for k in some:
        if k.threshold == chosen:
            label = f"threshold {k.threshold:.2f}: {k.share:.0%} kept, {k.accuracy:.1%} accuracy"
            axis.plot(k.share, 1 - k.accuracy, "D", color=ORANGE, label=label)
            axis.legend(frameon=False, loc="upper left")
    axis.set(xlabel="share of the faces kept", ylabel="error rate among them", xlim=(0, 1.02))
    axis.set_ylim(0, max(1 - k.accuracy for k in some) * 1.35 + 0.01)
    axis.set_title("Abstention (numbers are confidence thresholds)")
    axis.grid(alpha=0.3)
    return figure


def class_scores(scores: EmotionScores) -> Figure:
    """Precision, recall and F1 of each class."""
    figure, axis = _plain(6.4, 3.8)
    place = np.arange(len(scores.names))
    for offset, name, colour in ((-0.26, "precision", BLUE), (0, "recall", ORANGE), (0.26, "f1", GREEN)):
        values = [c[name] for c in scores.per_class.values()]
        axis.bar(place + offset, values, 0.25, label="F1" if name == "f1" else name, color=colour)
    counts = [int(c["faces"]) for c in scores.per_class.values()]
    names = [f"{name}\n{count} faces" for name, count in zip(_plain_names(scores), counts, strict=True)]
    axis.set_xticks(place, names)
    axis.set(ylim=(0, 1), title="Scores of each class")
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    axis.grid(axis="y", alpha=0.3)
    return figure
