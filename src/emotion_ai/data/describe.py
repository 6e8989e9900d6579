"""Statistics and pictures of a dataset."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE, KEYPOINTS
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.duplicates import duplicate_groups
from emotion_ai.data.image_arrays import blocks, level_counts, mean_and_deviation
from emotion_ai.files import atomic_path

_INK, _POINT = "#30475e", "#f05454"


@dataclass(frozen=True)
class Description:
    """Statistics of a dataset.

    Attributes:
        task, source, fingerprint: as in `FaceDataset`.
        faces: number of images.
        height, width: image size in pixels.
        parts: images in each part; {} without a Usage column.
        classes: images of each class; {} for keypoints.
        classes_of_parts: the same within each part.
        duplicate_groups: sets of two or more images with identical pixels.
        duplicate_copies: images that can be removed without losing a distinct one.
        duplicate_groups_across_parts: duplicate groups that span more than one part.
        contradictory_groups, contradictory_faces: duplicate groups with differing targets, and the images in them.
            Keypoints differ if the same point is annotated in two places.
        blank: images whose pixels are all equal.
        missing: for each keypoint, the number of images in which it is not annotated; {} for emotion.
        complete, unannotated: images with all points annotated, and with none; 0 for emotion.
        outside: annotated points outside the crop, that is beyond -0.5 to 95.5.
        pixel_mean, pixel_std: gray levels over all pixels, 0-255.
    """

    task: str
    source: str
    fingerprint: str
    faces: int
    height: int
    width: int
    parts: dict[str, int]
    classes: dict[str, int]
    classes_of_parts: dict[str, dict[str, int]]
    duplicate_groups: int
    duplicate_copies: int
    duplicate_groups_across_parts: int
    contradictory_groups: int
    contradictory_faces: int
    blank: int
    missing: dict[str, int]
    complete: int
    unannotated: int
    outside: int
    pixel_mean: float
    pixel_std: float

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def describe(faces: FaceDataset) -> Description:
    """Statistics worth knowing before training; `faces` must not be empty."""
    parts = [part for part in dict.fromkeys(faces.part.tolist()) if part]
    emotion = faces.task == "emotion"
    points = np.empty((len(faces), 0, 2), np.float32) if emotion else faces.points
    annotated = np.asarray(np.isfinite(points).all(2))
    beyond = ((points < -0.5) | (points > CROP_SIZE - 0.5)).any(2) & annotated
    mean, deviation = mean_and_deviation(faces.images)
    blank = sum(int((block.min((1, 2)) == block.max((1, 2))).sum()) for _, block in blocks(faces.images))
    return Description(
        task=faces.task,
        source=faces.source,
        fingerprint=faces.fingerprint,
        faces=len(faces),
        height=faces.images.shape[1],
        width=faces.images.shape[2],
        parts={part: int((faces.part == part).sum()) for part in parts},
        classes=_classes(faces, faces.targets) if emotion else {},
        classes_of_parts={part: _classes(faces, faces.targets[faces.part == part]) for part in parts}
        if emotion
        else {},
        **_duplicates(faces),
        blank=blank,
        missing={} if emotion else dict(zip(KEYPOINTS, (len(faces) - annotated.sum(0)).tolist(), strict=True)),
        complete=0 if emotion else int(annotated.all(1).sum()),
        unannotated=0 if emotion else len(faces) - int(annotated.any(1).sum()),
        outside=int(beyond.sum()),
        pixel_mean=mean,
        pixel_std=deviation,
    )


def write_pictures(faces: FaceDataset, folder: Path) -> list[Path]:
    """Writes the task's pictures as PNG files into `folder`, which is created if missing; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[FaceDataset], Figure]] = {"samples": _samples}
    if faces.task == "emotion":
        pictures |= {"classes": _class_bars, "class_samples": _class_samples}
    elif not np.isnan(faces.targets).all():
        pictures |= {"points": _point_map}
    pictures |= {"pixels": _pixel_histogram}
    paths = []
    for name, draw in pictures.items():
        paths.append(folder / f"{name}.png")
        with sns.axes_style("whitegrid"):
            figure = draw(faces)
        with atomic_path(paths[-1]) as partial:
            figure.savefig(partial, format="png", dpi=110)
    return paths


def _classes(faces: FaceDataset, labels: NDArray[Any]) -> dict[str, int]:
    counts = np.bincount(labels.astype(np.int64), minlength=len(faces.classes))
    return {name: int(count) for name, count in zip(faces.classes.names, counts, strict=True)}


def _duplicates(faces: FaceDataset) -> dict[str, int]:
    groups = duplicate_groups(faces.images)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    repeated = [rows for rows in members if len(rows) > 1]
    contradictory = [rows for rows in repeated if _contradict(faces.targets[rows])]
    return {
        "duplicate_groups": len(repeated),
        "duplicate_copies": sum(len(rows) - 1 for rows in repeated),
        "duplicate_groups_across_parts": sum(len(set(faces.part[rows])) > 1 for rows in repeated),
        "contradictory_groups": len(contradictory),
        "contradictory_faces": sum(len(rows) for rows in contradictory),
    }


def _contradict(targets: NDArray[Any]) -> bool:
    """Whether the targets of identical images differ where they are known."""
    if targets.ndim == 1:
        return bool((targets != targets[0]).any())
    return bool((np.fmax.reduce(targets) > np.fmin.reduce(targets)).any())


def _grid(rows: int, columns: int, title: str, left: float = 0.0) -> tuple[Figure, NDArray[Any]]:
    """A figure of `rows` by `columns` empty squares, with `left` inches for row names."""
    width, height = 1.1 * columns + left, 1.2 * rows + 0.45
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, fontsize=12, y=1 - 0.12 / height, va="top")
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(left / width + 0.005, 0.01, 0.995, 1 - 0.58 / height, wspace=0.04, hspace=0.12)
    for ax in axes.flat:
        ax.axis("off")
    return figure, axes


def _show(ax: Axes, image: NDArray[np.uint8]) -> None:
    """Draws the image, of any size, over the 96x96 crop that points refer to."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(-0.5, CROP_SIZE - 0.5, CROP_SIZE - 0.5, -0.5))


def _name(faces: FaceDataset) -> str:
    return Path(faces.source).name.replace("$", r"\$")  # not a formula


def _plain_name(faces: FaceDataset, label: int) -> str:
    return faces.classes.names[label].replace("$", r"\$")


def _samples(faces: FaceDataset) -> Figure:
    rows, columns = 5, 10
    figure, axes = _grid(rows, columns, f"{_name(faces)}: {len(faces):,} faces, a random sample")
    chosen = np.random.default_rng(0).permutation(len(faces))[: rows * columns]
    for ax, row in zip(axes.flat, chosen, strict=False):
        _show(ax, faces.images[row])
        if faces.task == "emotion":
            ax.set_title(_plain_name(faces, int(faces.targets[row])), fontsize=8, pad=1.5)
        else:
            ax.scatter(*faces.targets[row].T, s=5, color=_POINT, linewidths=0)
            ax.set(xlim=(-0.5, CROP_SIZE - 0.5), ylim=(CROP_SIZE - 0.5, -0.5))
    return figure


def _class_bars(faces: FaceDataset) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    names = faces.classes.names
    counts = _classes(faces, faces.targets)
    parts = [part or "all" for part in faces.part]
    sns.countplot(
        x=[names[int(label)] for label in faces.targets],
        hue=parts,
        order=names,
        palette="crest",
        legend=len(set(parts)) > 1,
        ax=ax,
    )
    for bars in (c for c in ax.containers if isinstance(c, BarContainer)):
        ax.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=1)
    shares = [f"{_plain_name(faces, i)}\n{counts[name] / len(faces):.1%}" for i, name in enumerate(names)]
    ax.set_xticks(range(len(names)), shares)
    ax.set(title=f"{_name(faces)}: {len(faces):,} faces", xlabel="", ylabel="faces")
    sns.despine(ax=ax)
    return figure


def _class_samples(faces: FaceDataset) -> Figure:
    columns = 9
    figure, axes = _grid(len(faces.classes), columns, f"{_name(faces)}: samples of each class", left=0.85)
    rng = np.random.default_rng(0)
    for label, line in enumerate(axes):
        place = line[0].get_position()
        figure.text(0.01, (place.y0 + place.y1) / 2, _plain_name(faces, label), va="center")
        chosen = rng.permutation(np.flatnonzero(faces.targets == label))[:columns]
        for ax, row in zip(line, chosen, strict=False):
            _show(ax, faces.images[row])
    return figure


def _point_map(faces: FaceDataset) -> Figure:
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    ax = figure.subplots()
    mean = sum(block.sum(0, dtype=np.int64) for _, block in blocks(faces.images)) / len(faces)
    _show(ax, mean.astype(np.uint8))
    points = faces.targets.reshape(-1, 2)
    points = points[~np.isnan(points).any(1)]
    edges = np.arange(-0.5, CROP_SIZE, 0.5)
    *_, heat = ax.hist2d(points[:, 0], points[:, 1], bins=[edges, edges], cmap="rocket_r", norm=LogNorm(), alpha=0.75)
    figure.colorbar(heat, ax=ax, label="points in a square of half a pixel")
    ax.grid(False)
    ax.set(title=f"{_name(faces)}: {len(points):,} points over the mean face", xlabel="x, pixels", ylabel="y, pixels")
    return figure


def _pixel_histogram(faces: FaceDataset) -> Figure:
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    ax = figure.subplots()
    counts = level_counts(faces.images)
    ax.fill_between(np.arange(256), counts / counts.sum(), step="mid", color=_INK, alpha=0.85, linewidth=0)
    ax.yaxis.set_major_formatter("{x:.1%}")
    ax.set(title=f"{_name(faces)}: gray levels", xlabel="gray level", ylabel="share of pixels", xlim=(-1, 256))
    ax.set_ylim(bottom=0)
    sns.despine(ax=ax)
    return figure
