"""Face detection in photos of any size.

One pass of the network finds faces from about a twelfth of the photo's longer side upwards. Group photos have smaller
ones: halves and quarters of the photo are searched too, and small faces once more, enlarged, for exact points.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.vision import blazeface
from emotion_ai.vision.blazeface import CANVAS
from emotion_ai.vision.crops import check_rgb
from emotion_ai.vision.overlap import overlaps

_SMALL = 48  # pixels of the canvas; the points of smaller faces are coarse
_EXTRA_SCORE = 0.15  # measured on composed photos: real faces pass, enlarged knees and blurs do not


@dataclass(frozen=True)
class Detection:
    """A face in a photo, in its pixels.

    Attributes:
        box: left, top, right, bottom.
        score: 0 to 1.
        points: float32 (6, 2): right eye, left eye (the subject's), nose tip, mouth, right ear, left ear.
    """

    box: tuple[float, float, float, float]
    score: float
    points: NDArray[np.float32]


@dataclass(frozen=True)
class _Detections:
    """N detections in pixels of the photo.

    Attributes:
        boxes: float32 (N, 4).
        points: float32 (N, 6, 2).
        scores: float32 (N,).
        coarseness: float32 (N,), photo pixels per canvas pixel of the pass that found each.
    """

    boxes: NDArray[np.float32]
    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    coarseness: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: NDArray[Any] | slice) -> "_Detections":
        return _Detections(self.boxes[rows], self.points[rows], self.scores[rows], self.coarseness[rows])


def find_faces(rgb: NDArray[np.uint8], min_score: float = 0.5) -> list[Detection]:
    """The faces in a photo, from left to right.

    Args:
        rgb: uint8 (H, W, 3).
        min_score: lowest score of a face.

    Raises:
        ImageError: the photo is not colour, uint8 (H, W, 3).
        MissingExtraError: the LiteRT interpreter cannot be loaded.
    """
    photo = Image.fromarray(check_rgb(rgb, "the photo"))
    longer = max(photo.size)
    found = _search(photo, 0, 0, longer, min_score)
    for side in (longer / 2, longer / 4):
        if side >= CANVAS:
            tiles = (_search_tile(photo, left, top, side, min_score) for left, top in _grid(photo, side))
            found = _without_repeats(found, *tiles)
    found = _without_repeats(*(_refined(photo, found[i : i + 1], min_score) for i in range(len(found))))
    if not len(found):  # a face that fills the picture, as in the training sets, is found with some room around it
        left, top = photo.width / 2 - longer, photo.height / 2 - longer
        found = _search(photo, left, top, 2 * longer, min(min_score + 0.1, 0.9))
    found = found[np.argsort(found.boxes[:, 0] + found.boxes[:, 2], kind="stable")]
    return [
        Detection((float(box[0]), float(box[1]), float(box[2]), float(box[3])), float(score), points)
        for box, score, points in zip(found.boxes, found.scores, found.points, strict=True)
    ]


def _grid(photo: Image.Image, side: float) -> Iterator[tuple[float, float]]:
    """Corners of tiles that overlap by at least a quarter, so that any face missed before fits into one."""
    for top in _starts(photo.height, side):
        for left in _starts(photo.width, side):
            yield left, top


def _starts(length: int, side: float) -> list[float]:
    steps = max(ceil((length - side) / (0.75 * side)), 0)
    return [(length - side) * i / steps for i in range(steps + 1)] if steps else [min(0.0, (length - side) / 2)]


def _search_tile(photo: Image.Image, left: float, top: float, side: float, min_score: float) -> _Detections:
    """The faces in a tile, without those that its inner edges cut."""
    found = _search(photo, left, top, side, min_score)
    margin = 0.02 * side
    low = np.array([left + margin if left > 0 else -np.inf, top + margin if top > 0 else -np.inf])
    right, bottom = left + side, top + side
    high = np.array(
        [right - margin if right < photo.width else np.inf, bottom - margin if bottom < photo.height else np.inf]
    )
    whole = (found.boxes[:, :2] > low).all(1) & (found.boxes[:, 2:] < high).all(1)
    return found[np.flatnonzero(whole)]


def _refined(photo: Image.Image, face: _Detections, min_score: float) -> _Detections:
    """A face that is small or from a tile, averaged over two enlarged passes; nothing if either misses it.

    Enlarged backgrounds often resemble a face at one scale, so it must score higher, and at both scales.
    """
    box = face.boxes[0]
    width = float(box[2] - box[0])
    from_tile = face.coarseness[0] * CANVAS < 0.99 * max(photo.size)
    if width / face.coarseness[0] >= _SMALL and not from_tile:
        return face
    passes = []
    for side in (3 * width, 4 * width):
        found = _search(photo, (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2, side, 0.1)
        passes.append(found[np.flatnonzero(overlaps(box, found.boxes)[0] > 0.3)[:1]])
    if not all(len(found) for found in passes):
        return face[:0]
    mean = _Detections(*(np.mean([getattr(p, field.name) for p in passes], 0) for field in fields(_Detections)))
    return mean[np.flatnonzero(mean.scores >= min(min_score + _EXTRA_SCORE, 0.9))]


def _search(photo: Image.Image, left: float, top: float, side: float, min_score: float) -> _Detections:
    """The faces that one pass finds in a square of the photo; what lies outside the photo is black."""
    scale = CANVAS / side
    region = (max(left, 0.0), max(top, 0.0), min(left + side, photo.width), min(top + side, photo.height))
    size = (max(round((region[2] - region[0]) * scale), 1), max(round((region[3] - region[1]) * scale), 1))
    canvas = Image.new("RGB", (CANVAS, CANVAS))
    offset = (round((region[0] - left) * scale), round((region[1] - top) * scale))
    canvas.paste(photo.resize(size, Image.Resampling.BILINEAR, box=region, reducing_gap=3.0), offset)
    boxes, points, scores = blazeface.detect(np.asarray(canvas), min_score)
    factor = np.array([(region[2] - region[0]) / size[0], (region[3] - region[1]) / size[1]])
    origin = np.array(region[:2]) - offset * factor - 0.5  # the canvas has pixel edges at integers, photos centres
    boxes = (boxes.reshape(-1, 2, 2) * factor + origin).reshape(-1, 4)
    return _Detections(
        boxes.astype(np.float32),
        (points * factor + origin).astype(np.float32),
        scores,
        np.full(len(scores), side / CANVAS, np.float32),
    )


def _without_repeats(*passes: _Detections) -> _Detections:
    """The detections of several passes, each face once, as the earliest pass found it.

    A detection mostly inside another is not a second face: enlarged, a mouth or an ear can look like one.
    """
    kept: list[_Detections] = []
    for found in passes:
        for i in range(len(found)):
            shares = (overlaps(found.boxes[i], other.boxes) for other in kept)
            if all(union[0] <= 0.3 and smaller[0] <= 0.5 for union, smaller in shares):
                kept.append(found[i : i + 1])
    if not kept:
        return _Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0, 6, 2), 0, 0)))
    return _Detections(*(np.concatenate([getattr(face, field.name) for face in kept]) for field in fields(_Detections)))
