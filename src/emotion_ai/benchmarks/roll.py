"""Roll: whether faces are found, and their points in place, however far the picture is turned.

    python -m emotion_ai.benchmarks.roll --step 15
    python -m emotion_ai.benchmarks.roll --faces validation.csv --count 60 --step 45

The truth are the points of the upright picture, turned with it: those that are read in a photo, or annotated ones of a
keypoint dataset, whose faces are enlarged twice and padded with their borders. Distances are shares of the box's side.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.benchmarks.crops import PADDED_BOX, padded
from emotion_ai.data.loaders import load
from emotion_ai.errors import NoFaceError
from emotion_ai.evaluation.tables import Cell, Column, ReportTable
from emotion_ai.inference.pipeline import read_photo
from emotion_ai.inference.reader import FaceReader
from emotion_ai.inference.results import FaceReading, PhotoReader
from emotion_ai.terminal import Console
from emotion_ai.vision.crops import turned
from emotion_ai.vision.photo import PORTRAITS, load_photo

FAR = 0.1
"""Points farther from the truth, on average and as a share of the box's side, are wrong."""

BINS = ((0, 15), (15, 45), (45, 75), (75, 105), (105, 135), (135, 165), (165, 181))


@dataclass(frozen=True)
class TurnedFace:
    """A face in a picture that was turned.

    Attributes:
        degrees: by which the picture was turned, clockwise.
        found: whether a face was found in its place.
        distance: of the points from the truth, the mean over them, as a share of the box's side; NaN if not found.
        roll_error: degrees between the reading's roll and that of the picture; NaN if not found or not known.
        named: whether the verdict is an emotion.
        same: whether the emotion is that of the upright picture.
        invented: faces found elsewhere.
        seconds: for detecting and reading.
    """

    degrees: float
    found: bool
    distance: float
    roll_error: float
    named: bool
    same: bool
    invented: int
    seconds: float

    @property
    def wrong(self) -> bool:
        """Whether the face was found with its points out of place."""
        return self.found and not self.distance <= FAR


def turn(rgb: NDArray[np.uint8], degrees: float, expand: bool = True) -> Image.Image:
    """A photo turned clockwise, on black; `expand` makes room for its corners."""
    return Image.fromarray(rgb).rotate(-degrees, Image.Resampling.BICUBIC, expand=expand)


def turn_points(
    points: NDArray[np.float32], degrees: float, before: tuple[int, int], after: tuple[int, int]
) -> NDArray[np.float32]:
    """Points (…, 2) of a photo where `turn` moves them; `before` and `after` are widths and heights."""
    moved = turned(points + 0.5 - np.array(before) / 2, degrees) + np.array(after) / 2 - 0.5
    return moved.astype(np.float32)


def measure(
    rgb: NDArray[np.uint8], truth: FaceReading, degrees: float, reader: PhotoReader, expand: bool = True
) -> TurnedFace:
    """Reads a photo after turning it; `truth` is its face in the upright photo."""
    picture = turn(rgb, degrees, expand)
    points = turn_points(truth.points, degrees, (rgb.shape[1], rgb.shape[0]), picture.size)
    started = time.perf_counter()
    try:
        faces = read_photo(picture, reader)
    except NoFaceError:
        faces = []
    seconds = time.perf_counter() - started
    middle = points.mean(0)
    gaps = [float(np.linalg.norm(face.points.mean(0) - middle)) / truth.box.size for face in faces]
    if not gaps or min(gaps) > 0.5:
        return TurnedFace(degrees, False, float("nan"), float("nan"), False, False, len(faces), seconds)
    face = faces[int(np.argmin(gaps))]
    distance = float(np.linalg.norm(face.points - points, axis=1).mean()) / truth.box.size
    roll_error = (face.roll - truth.roll - degrees + 180) % 360 - 180
    named = face.emotion is not None and not face.uncertain
    same = face.emotion == truth.emotion
    return TurnedFace(degrees, True, distance, roll_error, named, same, len(faces) - 1, seconds)


def photo_faces(paths: Sequence[Path], reader: PhotoReader) -> Iterator[tuple[NDArray[np.uint8], FaceReading]]:
    """Photos of one face each, with the reading of the upright photo."""
    for path in paths:
        photo = load_photo(path)
        faces = read_photo(photo, reader)
        yield photo.rgb, max(faces, key=lambda face: face.box.size)


def dataset_faces(path: Path, count: int, reader: PhotoReader) -> Iterator[tuple[NDArray[np.uint8], FaceReading]]:
    """Padded faces of a keypoint dataset, a random sample with seed 0, with the annotated points."""
    faces = load(path, "keypoints")
    faces = faces[np.flatnonzero(~np.isnan(faces.points).any((1, 2)))]
    for i in np.random.default_rng(0).permutation(len(faces))[:count]:
        rgb = np.repeat(padded(faces.images[i])[..., None], 3, 2)
        try:
            face = max(read_photo(rgb, reader), key=lambda face: face.score)
        except NoFaceError:
            continue
        yield (
            rgb,
            replace(face, box=replace(PADDED_BOX, roll=face.box.roll), points=PADDED_BOX.to_photo(faces.points[i])),
        )


def results_table(results: Sequence[TurnedFace]) -> ReportTable:
    """One row for each range of angles, whichever way the picture was turned."""
    rows: list[tuple[Cell, ...]] = []
    for low, high in (*BINS, (0, 181)):
        part = [r for r in results if low <= abs((r.degrees + 180) % 360 - 180) < high]
        if not part:
            continue
        found = [r for r in part if r.found]
        distances, rolls = [r.distance for r in found], [abs(r.roll_error) for r in found]
        rows.append(
            (
                f"{low} to {high - 1}" if (low, high) != (0, 181) else "all",
                len(part),
                len(found),
                sum(r.wrong for r in part),
                sum(r.wrong and r.named for r in part),
                float(100 * np.median(distances)) if found else float("nan"),
                float(100 * np.percentile(distances, 95)) if found else float("nan"),
                float(np.median(rolls)) if found else float("nan"),
                sum(r.named for r in found),
                sum(r.named and r.same for r in found),
                sum(r.invented for r in part),
                float(np.median([r.seconds for r in part])),
            )
        )
    names = ("degrees", "n", "found", "points off", "and named")
    measures = (("median, %", ".1f"), ("95 %, %", ".1f"), ("roll off", ".1f"))
    columns = (
        *map(Column, names),
        *(Column(name, form) for name, form in measures),
        *map(Column, ("named", "same", "invented")),
        Column("seconds", ".2f"),
    )
    return ReportTable(f"Turned pictures; points off: farther than {FAR:.0%} of the box", columns, tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.roll", description=__doc__)
    parser.add_argument("--photos", type=Path, nargs="*", default=list(PORTRAITS), help="of one face (two portraits)")
    parser.add_argument("--faces", type=Path, help="a keypoint CSV that was not trained on, instead of photos")
    parser.add_argument("--count", type=int, default=20, help="faces of the CSV (%(default)s)")
    parser.add_argument("--step", type=float, default=15, help="degrees between two angles (%(default)s)")
    parser.add_argument("--cut", action="store_true", help="keep the photo's size, so that turning cuts its corners")
    options = parser.parse_args()
    if options.count < 1 or not 0 < options.step <= 360:
        parser.error("--count must be at least 1, and --step more than 0 and at most 360")
    reader = FaceReader.bundled()
    if options.faces:
        faces = dataset_faces(options.faces, options.count, reader)
    else:
        faces = photo_faces(options.photos, reader)
    results = [
        measure(rgb, truth, float(degrees), reader, not options.cut)
        for rgb, truth in faces
        for degrees in np.arange(0, 360, options.step)
    ]
    Console(width=140).print(results_table(results).as_rich())


if __name__ == "__main__":
    main()
