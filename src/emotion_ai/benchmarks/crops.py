"""From a photograph to the networks' frame: how well it fits, and what it does to the points.

    python -m emotion_ai.benchmarks.crops --faces validation.csv.xz --training training.csv.xz

Annotated faces fill their pictures; they are enlarged twice and their borders repeated, so that frames may lie
elsewhere and the detector finds them. Errors are in pixels of the annotated 96x96 frame.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from emotion_ai.contract import CROP_SIZE, EMOTIONS
from emotion_ai.data.loaders import load
from emotion_ai.evaluation.statistics import Estimate, bootstrap
from emotion_ai.inference.pipeline import read_boxes
from emotion_ai.inference.results import CropReader, CropReadings, Crops
from emotion_ai.models import load_network
from emotion_ai.vision.crops import Box, box_from_detection, box_from_points, crop, resize_to_crop
from emotion_ai.vision.detector import find_faces

Read = Callable[[NDArray[np.uint8], Sequence[Box], CropReader], tuple[list[Box], CropReadings]]

ROOMY = Box(CROP_SIZE, CROP_SIZE, 2 * CROP_SIZE)
"""Where the annotated frame lies in a picture that `roomy` has made."""


def roomy(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A face uint8 (96, 96) with room around it, uint8 (384, 384)."""
    large = Image.fromarray(image).resize((2 * CROP_SIZE, 2 * CROP_SIZE), Image.Resampling.BILINEAR)
    return np.pad(np.asarray(large), CROP_SIZE, mode="edge")


class PointsReader:
    """Reads crops with a keypoint network alone; the emotions are NaN."""

    def __init__(self, checkpoint: str | Path) -> None:
        self._network = load_network(checkpoint, "keypoints")[0]

    def read_crops(self, images: Crops) -> CropReadings:
        crops = torch.from_numpy(np.stack([resize_to_crop(image) for image in images]))[:, None]
        with torch.inference_mode():
            points = self._network(crops).numpy()
        return CropReadings(points, np.full((len(points), len(EMOTIONS)), np.nan, np.float32))


def read_once(gray: NDArray[np.uint8], boxes: Sequence[Box], reader: CropReader) -> tuple[list[Box], CropReadings]:
    """What `read_boxes` returns, but after one pass."""
    return [box.rounded() for box in boxes], reader.read_crops([crop(gray, box) for box in boxes])


def points_of(
    gray: NDArray[np.uint8], boxes: Sequence[Box], reader: CropReader, read: Read = read_boxes
) -> NDArray[np.float32]:
    """The points read in each frame, float32 (N, 15, 2), pixels of the photograph."""
    frames, answers = read(gray, boxes, reader)
    return np.stack([box.to_photo(points) for box, points in zip(frames, answers.keypoints, strict=True)])


def jittered(box: Box) -> list[Box]:
    """The box shifted by a tenth of its side or scaled by 0.9 or 1.1 (6), and everything at once (8)."""
    request_encodings = [(0.1, 0, 1), (-0.1, 0, 1), (0, 0.1, 1), (0, -0.1, 1), (0, 0, 0.9), (0, 0, 1.1)]
    request_encodings += [(dx, dy, scale) for dx in (-0.1, 0.1) for dy in (-0.1, 0.1) for scale in (0.9, 1.1)]
    edge = [(1 - scale) / 2 for _, _, scale in request_encodings]
    return [
        Box(box.left + (dx + e) * box.size, box.top + (dy + e) * box.size, box.size * scale)
        for (dx, dy, scale), e in zip(request_encodings, edge, strict=True)
    ]


def movement(gray: NDArray[np.uint8], box: Box, reader: CropReader, read: Read = read_boxes) -> NDArray[np.float64]:
    """How far the points move in the photograph when the frame does, float (14,) in the order of `jittered`: the mean
    distance over the points as a share of the frame's side."""
    points = points_of(gray, [box, *jittered(box)], reader, read)
    return np.linalg.norm(points[1:] - points[0], axis=2).mean(1).astype(np.float64) / box.size


def framing(points: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Where fully annotated points (N, 15, 2) lie in their frames: their mean, distance of the eyes, spread; pixels."""
    centre = points.mean(1)
    return {
        "mean x": centre[:, 0].astype(np.float64),
        "mean y": centre[:, 1].astype(np.float64),
        "between the eyes": np.linalg.norm(points[:, 0] - points[:, 1], axis=1).astype(np.float64),
        "spread": np.sqrt(((points - centre[:, None]) ** 2).sum(2).mean(1)).astype(np.float64),
    }


def detected(images: NDArray[np.uint8]) -> list[Box | None]:
    """The detector's frame of each face, where it found one, in the picture that `roomy` makes."""
    boxes: list[Box | None] = []
    console = Console(stderr=True)
    for image in track(images, "finding", console=console, transient=True, disable=not console.is_terminal):
        found = find_faces(np.repeat(roomy(image)[..., None], 3, 2))
        boxes.append(box_from_detection(max(found, key=lambda face: face.score).points) if found else None)
    return boxes


def _rmse(points: NDArray[np.float32], true: NDArray[np.float32]) -> Estimate:
    squares = ((ROOMY.to_crop(points) - true) ** 2).mean((1, 2))
    return bootstrap(lambda rows: float(np.sqrt(squares[rows].mean())), len(squares), 0)


def _print(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.crops", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="a keypoint CSV whose faces were not trained on")
    parser.add_argument("--training", type=Path, help="the one that was trained on: adds its framing")
    parser.add_argument("--count", type=int, help="so many faces, drawn by chance with seed 0, instead of all")
    parser.add_argument("--keypoints", default="bundled", help="a checkpoint")
    given = parser.parse_args()
    if given.count is not None and given.count < 1:
        parser.error("--count is at least 1")
    faces = load(given.faces, "keypoints")
    faces = faces[np.flatnonzero(~np.isnan(faces.targets).any((1, 2)))]
    if given.count is not None:
        faces = faces[np.random.default_rng(0).permutation(len(faces))[: given.count]]
    found = detected(faces.images)
    here = [i for i, box in enumerate(found) if box is not None]
    boxes = [box for box in found if box is not None]
    rooms = [roomy(faces.images[i]) for i in here]
    true: NDArray[np.float32] = faces.targets[here]  # type: ignore[assignment]
    annotated = ROOMY.to_photo(true)
    reader = PointsReader(given.keypoints)
    frames = {
        "annotated": [ROOMY] * len(here),
        "the detector's": boxes,
        "the points'": [
            box_from_points(points_of(r, [b], reader, read_once)[0]) for r, b in zip(rooms, boxes, strict=True)
        ],
    }

    lying = {}
    if given.training:
        training: NDArray[np.float32] = load(given.training, "keypoints").targets  # type: ignore[assignment]
        lying["training"] = framing(training[~np.isnan(training).any((1, 2))])
    for name, own in frames.items():
        lying[name] = framing(np.stack([box.to_crop(p) for box, p in zip(own, annotated, strict=True)]))
    shown = [
        [name, str(len(next(iter(f.values())))), *(f"{v.mean():.1f} ± {v.std():.1f}" for v in f.values())]
        for name, f in lying.items()
    ]
    _print("Annotated points in the frame: mean ± standard deviation, pixels", ("frames", "n", *lying[name]), shown)

    off = []
    for name, own in list(frames.items())[1:]:
        values = [(b.left + b.size / 2 - 192, b.top + b.size / 2 - 192, b.size / 192) for b in own]
        dx, dy, scale = np.array(values).T
        pairs = ((dx / 2, 1), (dy / 2, 1), (100 * (scale - 1), 0))
        off.append([name, *(f"{np.median(v):+.1f} ± {v.std():.1f}" for v, _ in pairs)])
    _print(
        "Frames against the annotated ones: median ± standard deviation",
        ("frames", "right, pixels", "down, pixels", "larger, %"),
        off,
    )

    roads = []
    for name, own in list(frames.items())[:2]:
        for words, how in (("once", read_once), ("again", read_boxes)):
            points = np.concatenate([points_of(r, [b], reader, how) for r, b in zip(rooms, own, strict=True)])
            e = _rmse(points, true)
            roads.append([name, words, str(e.n), f"{e.value:.2f}", f"{e.low:.2f} to {e.high:.2f}"])
    _print(
        f"Keypoint RMSE, pixels; {len(here)} of {len(faces)} faces found",
        ("first frames", "read", "n", "RMSE", "95 %"),
        roads,
    )

    moved = []
    for words, how in (("once", read_once), ("again", read_boxes)):
        request_encodings = 100 * np.stack([movement(r, b, reader, how) for r, b in zip(rooms, boxes, strict=True)])
        for kind, part in (("one thing", request_encodings[:, :6]), ("all at once", request_encodings[:, 6:])):
            quantiles = [np.median(part), np.percentile(part, 95), part.max()]
            moved.append([words, kind, *(f"{v:.2f}" for v in quantiles), f"{(part < 2).mean():.1%}"])
    _print(
        "Movement of the points when the detector's frame is jittered, % of its side",
        ("read", "jitter of 10 %", "median", "95th percentile", "maximum", "below 2 %"),
        moved,
    )


if __name__ == "__main__":
    main()
