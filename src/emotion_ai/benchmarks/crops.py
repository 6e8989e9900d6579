"""Crops: how well detected faces are cropped, and what that does to the keypoints.

    python -m emotion_ai.benchmarks.crops --faces validation.csv.xz --training training.csv.xz

Faces of a keypoint dataset fill their images. They are enlarged twice and padded with their borders, so that the
detector finds them and boxes may lie elsewhere. Errors are in pixels of the annotated 96x96 crop.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from emotion_ai.contract import CROP_SIZE, EMOTIONS
from emotion_ai.data.loaders import load
from emotion_ai.evaluation.statistics import Estimate, bootstrap
from emotion_ai.evaluation.tables import INTERVAL, Cell, Column, Interval, ReportTable
from emotion_ai.inference.pipeline import read_boxes
from emotion_ai.inference.results import CropReader, CropReadings, Crops, check_crops
from emotion_ai.models import load_network
from emotion_ai.terminal import Console
from emotion_ai.vision.crops import Box, box_from_detection, box_from_points, crop, resize_to_crop
from emotion_ai.vision.detector import find_faces

Read = Callable[[NDArray[np.uint8], Sequence[Box], CropReader], tuple[list[Box], CropReadings]]

PADDED_BOX = Box(CROP_SIZE, CROP_SIZE, 2 * CROP_SIZE)
"""The annotated crop in an image that `padded` returns."""

_MIDDLE = 2 * CROP_SIZE


def padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A face uint8 (96, 96), enlarged twice and padded to uint8 (384, 384)."""
    large = Image.fromarray(image).resize((2 * CROP_SIZE, 2 * CROP_SIZE), Image.Resampling.BILINEAR)
    return np.pad(np.asarray(large), CROP_SIZE, mode="edge")


class PointsReader:
    """Reads crops with a keypoint network only; probabilities are NaN."""

    def __init__(self, checkpoint: str | Path) -> None:
        self._network = load_network(checkpoint, "keypoints").network

    def read_crops(self, images: Crops) -> CropReadings:
        crops = torch.from_numpy(np.stack([resize_to_crop(image) for image in check_crops(images)]))[:, None]
        with torch.inference_mode():
            points = self._network(crops).numpy()
        return CropReadings(points, np.full((len(points), len(EMOTIONS)), np.nan, np.float32))


def read_once(gray: NDArray[np.uint8], boxes: Sequence[Box], reader: CropReader) -> tuple[list[Box], CropReadings]:
    """`read_boxes` with a single pass."""
    return [box.rounded() for box in boxes], reader.read_crops([crop(gray, box) for box in boxes])


PASSES: dict[str, Read] = {"one pass": read_once, "pipeline": read_boxes}


def read_points(
    gray: NDArray[np.uint8], boxes: Sequence[Box], reader: CropReader, read: Read = read_boxes
) -> NDArray[np.float32]:
    """The keypoints read in each box, float32 (N, 15, 2), in pixels of the photo."""
    final, readings = read(gray, boxes, reader)
    return np.stack([box.to_photo(points) for box, points in zip(final, readings.keypoints, strict=True)])


def jittered(box: Box) -> list[Box]:
    """The box shifted by a tenth of its side, or scaled by 0.9 or 1.1 (6 boxes); then all combinations (8)."""
    changes = [(0.1, 0, 1), (-0.1, 0, 1), (0, 0.1, 1), (0, -0.1, 1), (0, 0, 0.9), (0, 0, 1.1)]
    changes += [(dx, dy, scale) for dx in (-0.1, 0.1) for dy in (-0.1, 0.1) for scale in (0.9, 1.1)]
    edge = [(1 - scale) / 2 for _, _, scale in changes]
    return [
        Box(box.left + (dx + e) * box.size, box.top + (dy + e) * box.size, box.size * scale)
        for (dx, dy, scale), e in zip(changes, edge, strict=True)
    ]


def movement(gray: NDArray[np.uint8], box: Box, reader: CropReader, read: Read = read_boxes) -> NDArray[np.float64]:
    """How far the keypoints move in the photo if the box is jittered, float (14,) in the order of `jittered`.

    The mean distance over the keypoints, as a share of the box's side.
    """
    points = read_points(gray, [box, *jittered(box)], reader, read)
    return np.linalg.norm(points[1:] - points[0], axis=2).mean(1).astype(np.float64) / box.size


def placement(points: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Where fully annotated points (N, 15, 2) lie in their crops: mean, distance of the eyes and spread, in pixels."""
    centre = points.mean(1)
    return {
        "mean x": centre[:, 0].astype(np.float64),
        "mean y": centre[:, 1].astype(np.float64),
        "between the eyes": np.linalg.norm(points[:, 0] - points[:, 1], axis=1).astype(np.float64),
        "spread": np.sqrt(((points - centre[:, None]) ** 2).sum(2).mean(1)).astype(np.float64),
    }


def detected_boxes(images: NDArray[np.uint8]) -> list[Box | None]:
    """The box of each face in its padded image; None if the detector does not find it."""
    boxes: list[Box | None] = []
    console = Console(stderr=True)
    for image in track(images, "detecting", console=console, transient=True, disable=not console.is_terminal):
        found = find_faces(np.repeat(padded(image)[..., None], 3, 2))
        boxes.append(box_from_detection(max(found, key=lambda face: face.score).points) if found else None)
    return boxes


@dataclass(frozen=True)
class CropBenchmark:
    """Detected faces of a keypoint dataset.

    Attributes:
        images: padded, uint8 (384, 384) each.
        points: annotated, float32 (N, 15, 2), in pixels of the annotated crop.
        boxes: of each image, by kind: "annotated", "detector" and "keypoints".
        reader: reads the crops.
        total: number of faces, including those that the detector does not find.
    """

    images: list[NDArray[np.uint8]]
    points: NDArray[np.float32]
    boxes: dict[str, list[Box]]
    reader: CropReader
    total: int

    @classmethod
    def of(cls, images: NDArray[np.uint8], points: NDArray[np.float32], reader: CropReader) -> "CropBenchmark":
        """Detects the faces in images uint8 (N, 96, 96) and keeps those that are found."""
        found = detected_boxes(images)
        rows = [i for i, box in enumerate(found) if box is not None]
        detector = [box for box in found if box is not None]
        wide = [padded(images[i]) for i in rows]
        keypoints = [
            box_from_points(read_points(image, [box], reader, read_once)[0])
            for image, box in zip(wide, detector, strict=True)
        ]
        boxes = {"annotated": [PADDED_BOX] * len(rows), "detector": detector, "keypoints": keypoints}
        return cls(wide, points[rows], boxes, reader, len(images))

    def placement_table(self, training: NDArray[np.float32] | None) -> ReportTable:
        """Where the annotated points lie in the crops; and in those of `training`, float32 (N, 15, 2), if given."""
        placements = {} if training is None else {"training faces": placement(training)}
        in_photo = PADDED_BOX.to_photo(self.points)
        for kind, boxes in self.boxes.items():
            placements[kind] = placement(np.stack([b.to_crop(p) for b, p in zip(boxes, in_photo, strict=True)]))
        names = list(placements["annotated"])
        rows: list[tuple[Cell, ...]] = [
            (kind, len(values[names[0]]), *(f"{v.mean():.1f} ± {v.std():.1f}" for v in values.values()))
            for kind, values in placements.items()
        ]
        columns = (Column("box"), Column("n"), *map(Column, names))
        return ReportTable("Annotated points in the crop: mean ± standard deviation, pixels", columns, tuple(rows))

    def offset_table(self) -> ReportTable:
        """Boxes against the annotated ones."""
        rows = []
        for kind, boxes in list(self.boxes.items())[1:]:
            values = [(b.left + b.size / 2 - _MIDDLE, b.top + b.size / 2 - _MIDDLE, b.size / _MIDDLE) for b in boxes]
            dx, dy, scale = np.array(values).T
            offsets = (dx / 2, dy / 2, 100 * (scale - 1))
            rows.append((kind, *(f"{np.median(v):+.1f} ± {v.std():.1f}" for v in offsets)))
        columns = tuple(map(Column, ("box", "right, pixels", "down, pixels", "larger, %")))
        return ReportTable("Boxes against the annotated ones: median ± standard deviation", columns, tuple(rows))

    def error_table(self) -> ReportTable:
        """Keypoint RMSE for annotated and detected boxes, with one pass and with the whole pipeline."""
        rows = []
        for kind in ("annotated", "detector"):
            for name, read in PASSES.items():
                found = zip(self.images, self.boxes[kind], strict=True)
                points = np.concatenate([read_points(image, [box], self.reader, read) for image, box in found])
                e = _rmse(points, self.points)
                rows.append((kind, name, e.n, e.value, Interval(e.low, e.high)))
        columns = (Column("first box"), Column("read by"), Column("n"), Column("RMSE", ".2f"))
        title = f"Keypoint RMSE, pixels; {len(self.images)} of {self.total} faces detected"
        return ReportTable(title, (*columns, Column(INTERVAL.name, ".2f")), tuple(rows))

    def movement_table(self) -> ReportTable:
        """How far the keypoints move if the detector's box is jittered."""
        rows: list[tuple[Cell, ...]] = []
        for name, read in PASSES.items():
            found = zip(self.images, self.boxes["detector"], strict=True)
            moved = 100 * np.stack([movement(image, box, self.reader, read) for image, box in found])
            for kind, part in (("one change", moved[:, :6]), ("all changes", moved[:, 6:])):
                values = [float(v) for v in (np.median(part), np.percentile(part, 95), part.max())]
                rows.append((name, kind, *values, f"{(part < 2).mean():.1%}"))
        numbers = (Column(name, ".2f") for name in ("median", "95th percentile", "maximum", "below 2 %"))
        title = "Movement of the keypoints if the detector's box is jittered, % of its side"
        return ReportTable(title, (Column("read by"), Column("jitter of 10 %"), *numbers), tuple(rows))


def _rmse(points: NDArray[np.float32], true: NDArray[np.float32]) -> Estimate:
    squares = ((PADDED_BOX.to_crop(points) - true) ** 2).mean((1, 2))
    return bootstrap(lambda rows: float(np.sqrt(squares[rows].mean())), len(squares), 0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.crops", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="a keypoint CSV that was not trained on")
    parser.add_argument("--training", type=Path, help="the training CSV: adds the placement of its points")
    parser.add_argument("--count", type=int, help="number of faces, a random sample with seed 0 (default: all)")
    parser.add_argument("--keypoints", default="bundled", help="a checkpoint (%(default)s)")
    options = parser.parse_args()
    if options.count is not None and options.count < 1:
        parser.error(f"--count must be at least 1, got {options.count}")
    faces = load(options.faces, "keypoints")
    faces = faces[np.flatnonzero(~np.isnan(faces.points).any((1, 2)))]
    if options.count is not None:
        faces = faces[np.random.default_rng(0).permutation(len(faces))[: options.count]]
    training = None
    if options.training:
        training = load(options.training, "keypoints").points
        training = training[~np.isnan(training).any((1, 2))]
    benchmark = CropBenchmark.of(faces.images, faces.points, PointsReader(options.keypoints))
    console = Console(width=120)
    console.print(benchmark.placement_table(training).as_rich())
    for table in (benchmark.offset_table, benchmark.error_table, benchmark.movement_table):
        console.print(table().as_rich())


if __name__ == "__main__":
    main()
