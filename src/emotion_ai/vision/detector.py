"""Face detection in photos of any size.

One pass of the network finds faces from about a twelfth of the photo's longer side upwards. Group photos have smaller
ones: halves and quarters of the photo are searched too, and small faces once more, enlarged, for exact points.

The network was trained on nearly upright faces. Beyond 45 degrees of roll it misses them or mistakes a mouth for eyes,
so the photo is searched in all four orientations, and a face that leans once more, turned upright.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.vision import blazeface
from emotion_ai.vision.blazeface import CANVAS
from emotion_ai.vision.crops import Box, check_rgb, eye_roll, turned
from emotion_ai.vision.overlap import overlaps

_SMALL = 48  # pixels of the canvas; the points of smaller faces are coarse
_EXTRA_SCORE = 0.15  # measured on composed photos: real faces pass, enlarged knees and blurs do not
_TURNS = (90.0, 180.0, 270.0)
_LEAD = 0.05  # by which a turned face must score above an upright one in its place
_LEANING = 20.0  # degrees, up to which the points need no second, upright pass
_UPRIGHT = 30.0  # what leans less is left to the passes that are not turned
_SIDEWAYS = 45.0
_PARTS = (2, 4)
_ODD = 60.0  # degrees between two faces of one picture
_SAME = 0.3  # overlap of two detections of one face
_EXPECTED = 0.3  # score of a face where one was seen before
_SURE = 0.85  # a small face with this score is not looked at turned


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

    @classmethod
    def joined(cls, passes: Sequence["_Detections"]) -> "_Detections":
        """Those of one or more passes."""
        return cls(*(np.concatenate([getattr(found, field.name) for found in passes]) for field in fields(cls)))

    @property
    def rolls(self) -> NDArray[np.float64]:
        """Of the eye lines, float64 (N,), in degrees."""
        return np.array([eye_roll(points) for points in self.points], np.float64)

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
    strict = _strict(min_score)
    upright = _without_repeats(_search(photo, 0, 0, longer, min_score), _search_tiles(photo, min_score, _PARTS))
    others = [_search(photo, 0, 0, longer, min_score, roll) for roll in _TURNS]
    found = _by_score(photo, _all_refined(photo, upright, min_score), _turned_only(photo, others, min_score))
    if not len(found):  # a face that fills the picture, as in the training sets, is found with some room around it
        corner = (photo.width / 2 - longer, photo.height / 2 - longer)
        upright = _search(photo, *corner, 2 * longer, min(min_score + 0.1, 0.9))
        others = [_search(photo, *corner, 2 * longer, strict, roll) for roll in _TURNS]
        found = _by_score(photo, upright, _turned_only(photo, others, min_score))
    if not (np.abs(found.rolls) < _SIDEWAYS).any():  # perhaps the whole picture lies on its side
        turns = [roll for roll in _TURNS if not len(found) or (np.abs(_angle(found.rolls - roll)) < _SIDEWAYS).any()]
        for roll in turns:
            others = [_search_tiles(photo, strict, _PARTS[:1], roll)]
            if len(found) or len(others[0]):  # worth a closer look
                others.append(_search_tiles(photo, strict, _PARTS[1:], roll))
            found = _without_repeats(found, _turned_only(photo, others, min_score))
    return _listed(_without_odd_ones(found, min_score))


def find_faces_quickly(rgb: NDArray[np.uint8], expected: Sequence[Box] = (), min_score: float = 0.5) -> list[Detection]:
    """The faces that one pass finds in a frame of a video, and those in the places where faces are expected.

    It takes about a twentieth of the time of `find_faces`, and misses faces below a twelfth of the longer side, and
    faces turned by more than 45 degrees, where none is expected.

    Args:
        rgb: uint8 (H, W, 3).
        expected: boxes of faces seen before; each that the pass misses is looked for once more, enlarged and upright.
        min_score: lowest score of a face; an expected one is also found with less, down to 0.3.

    Raises:
        ImageError: the frame is not colour, uint8 (H, W, 3).
        MissingExtraError: the LiteRT interpreter cannot be loaded.
    """
    frame = Image.fromarray(check_rgb(rgb, "the frame"))
    passes = [_search(frame, 0, 0, max(frame.size), min_score)]
    for box in expected:
        bounds = np.array([box.left, box.top, box.left + box.size, box.top + box.size], np.float32)
        if not (overlaps(bounds, passes[0].boxes)[0] > _SAME).any():
            roll = box.roll if abs(box.roll) > _LEANING else 0.0
            corner = (box.left - box.size, box.top - box.size)
            found = _search(frame, *corner, 3 * box.size, min(_EXPECTED, min_score), roll)
            passes.append(found[np.flatnonzero(overlaps(bounds, found.boxes)[0] > _SAME)[:1]])
    return _listed(_without_repeats(*passes))


def _listed(found: _Detections) -> list[Detection]:
    """Detections from left to right."""
    found = found[np.argsort(found.boxes[:, 0] + found.boxes[:, 2], kind="stable")]
    return [
        Detection((float(box[0]), float(box[1]), float(box[2]), float(box[3])), float(score), points)
        for box, score, points in zip(found.boxes, found.scores, found.points, strict=True)
    ]


def _strict(min_score: float) -> float:
    """The score that a face must reach which was found enlarged or turned."""
    return min(min_score + _EXTRA_SCORE, 0.9)


def _search_tiles(photo: Image.Image, min_score: float, parts: Sequence[int], roll: float = 0.0) -> _Detections:
    """The faces in tiles that are as large as such a part of the photo, halves or quarters."""
    found = _without_repeats()
    for side in (max(photo.size) / part for part in parts):
        if side >= CANVAS:
            tiles = (_search_tile(photo, left, top, side, min_score, roll) for left, top in _grid(photo, side))
            found = _without_repeats(found, *tiles)
    return found


def _by_score(photo: Image.Image, upright: _Detections, others: _Detections) -> _Detections:
    """Each face once: as it was found upright, unless it scores better turned, both in enlarged passes.

    Upside down, a large face can have a good score in a single pass, with the mouth taken for eyes.
    """
    scores = upright.scores + _LEAD
    for i in range(len(upright)):
        if len(others) and (overlaps(upright.boxes[i], others.boxes)[0] > _SAME).any():
            scores[i] = max([*(_enlarged(photo, upright[i : i + 1], 0.0, 0.0).scores + _LEAD), 0.0])
    order = np.argsort(-np.concatenate([scores, others.scores]), kind="stable")
    return _without_repeats(_Detections.joined([upright, others])[order])


def _turned_only(photo: Image.Image, passes: Sequence[_Detections], min_score: float) -> _Detections:
    """The faces of turned passes, refined, that are too far from upright for the other passes."""
    found = _Detections.joined(passes)
    best = _without_repeats(found[np.argsort(-found.scores, kind="stable")])
    refined = _all_refined(photo, best, min_score)
    return refined[np.flatnonzero(np.abs(refined.rolls) > _UPRIGHT)]


def _all_refined(photo: Image.Image, found: _Detections, min_score: float) -> _Detections:
    return _without_repeats(*(_refined(photo, found[i : i + 1], min_score) for i in range(len(found))))


def _grid(photo: Image.Image, side: float) -> Iterator[tuple[float, float]]:
    """Corners of tiles that overlap by at least a quarter, so that any face missed before fits into one."""
    for top in _starts(photo.height, side):
        for left in _starts(photo.width, side):
            yield left, top


def _starts(length: int, side: float) -> list[float]:
    steps = max(ceil((length - side) / (0.75 * side)), 0)
    return [(length - side) * i / steps for i in range(steps + 1)] if steps else [min(0.0, (length - side) / 2)]


def _search_tile(
    photo: Image.Image, left: float, top: float, side: float, min_score: float, roll: float
) -> _Detections:
    """The faces in a tile, without those that its inner edges cut."""
    found = _search(photo, left, top, side, min_score, roll)
    margin = 0.02 * side
    low = np.array([left + margin if left > 0 else -np.inf, top + margin if top > 0 else -np.inf])
    right, bottom = left + side, top + side
    high = np.array(
        [right - margin if right < photo.width else np.inf, bottom - margin if bottom < photo.height else np.inf]
    )
    whole = (found.boxes[:, :2] > low).all(1) & (found.boxes[:, 2:] < high).all(1)
    return found[np.flatnonzero(whole)]


def _refined(photo: Image.Image, face: _Detections, min_score: float) -> _Detections:
    """A face that is small, from a tile or turned, averaged over two enlarged passes; nothing if either misses it.

    Enlarged backgrounds often resemble a face at one scale, so it must score higher, and at both scales. A small face
    with a low score may be one that is turned much farther, with mouth and eyes mistaken for each other.
    """
    width, strict = float(face.boxes[0, 2] - face.boxes[0, 0]), _strict(min_score)
    enlarged = width / face.coarseness[0] < _SMALL or face.coarseness[0] * CANVAS < 0.99 * max(photo.size)
    if abs(face.rolls[0]) > _LEANING:
        refined = _straightened(photo, face, strict)
        if len(refined) or abs(face.rolls[0]) > _SIDEWAYS:
            return refined
    if not enlarged:
        return face
    refined = _enlarged(photo, face, 0.0, strict)
    if not len(refined) or refined.scores[0] < _SURE:
        near = _Detections.joined([_near(photo, face, 3 * width, roll) for roll in _TURNS])
        rivals = near[np.flatnonzero(near.scores > max([*refined.scores, strict - _LEAD]) + _LEAD)]
        if len(rivals):
            best = _straightened(photo, rivals[np.argsort(-rivals.scores)[:1]], strict)
            refined = _by_score(photo, refined, best[np.flatnonzero(np.abs(best.rolls) > _UPRIGHT)])
    return refined


def _straightened(photo: Image.Image, face: _Detections, min_score: float) -> _Detections:
    """A face averaged over two enlarged passes turned by its roll, and by that roll if it is another."""
    refined = _enlarged(photo, face, float(face.rolls[0]), 0.1)
    if len(refined) and abs(_angle(refined.rolls - face.rolls)[0]) > _LEANING / 2:  # eye lines come out too level
        refined = _enlarged(photo, refined, float(refined.rolls[0]), 0.1)
    return refined[np.flatnonzero(refined.scores >= min_score)]


def _without_odd_ones(found: _Detections, min_score: float) -> _Detections:
    """The faces without doubtful ones turned another way than the best, more so if they are much smaller.

    On its side or upside down, a picture has other patterns that resemble an upright face.
    """
    if len(found) < 2:
        return found
    widths, best = found.boxes[:, 2] - found.boxes[:, 0], int(found.scores.argmax())
    needed = np.where(widths < widths[best] / 2, _SURE, _strict(min_score))
    odd = np.abs(_angle(found.rolls - found.rolls[best])) > _ODD
    return found[np.flatnonzero(~odd | (found.scores >= needed))]


def _enlarged(photo: Image.Image, face: _Detections, roll: float, min_score: float) -> _Detections:
    """A face averaged over two enlarged passes turned by a roll; nothing if either misses it or the score is lower."""
    width = float(face.boxes[0, 2] - face.boxes[0, 0])
    passes = [_near(photo, face, side, roll) for side in (3 * width, 4 * width)]
    if not all(len(found) for found in passes):
        return face[:0]
    mean = _Detections(*(np.mean([getattr(p, field.name) for p in passes], 0) for field in fields(_Detections)))
    return mean[np.flatnonzero(mean.scores >= min_score)]


def _near(photo: Image.Image, face: _Detections, side: float, roll: float) -> _Detections:
    """The face that a pass over a square around another finds in its place, if any."""
    box = face.boxes[0]
    found = _search(photo, (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2, side, 0.1, roll)
    return found[np.flatnonzero(overlaps(box, found.boxes)[0] > _SAME)[:1]]


def _angle(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same angles from -180 to 180."""
    return (degrees + 180) % 360 - 180


def _search(
    photo: Image.Image, left: float, top: float, side: float, min_score: float, roll: float = 0.0
) -> _Detections:
    """The faces that one pass finds in a square of the photo; what lies outside the photo is black.

    With a roll, degrees clockwise, the network sees the square's middle turned back by it, so that faces of that roll
    are upright.
    """
    canvas_side = CANVAS if roll % 90 == 0 else ceil(CANVAS * 2**0.5 / 2) * 2  # room for the corners
    scale = CANVAS / side
    wider = (canvas_side / CANVAS - 1) * side / 2
    left, top, side = left - wider, top - wider, side + 2 * wider
    region = (max(left, 0.0), max(top, 0.0), min(left + side, photo.width), min(top + side, photo.height))
    size = (max(round((region[2] - region[0]) * scale), 1), max(round((region[3] - region[1]) * scale), 1))
    canvas = Image.new("RGB", (canvas_side, canvas_side))
    offset = (round((region[0] - left) * scale), round((region[1] - top) * scale))
    canvas.paste(photo.resize(size, Image.Resampling.BILINEAR, box=region, reducing_gap=3.0), offset)
    if roll:
        edge = (canvas_side - CANVAS) // 2
        canvas = canvas.rotate(roll, Image.Resampling.BILINEAR).crop((edge, edge, edge + CANVAS, edge + CANVAS))
    boxes, found, scores = blazeface.detect(np.asarray(canvas), min_score)
    corners, points = boxes.reshape(-1, 2, 2).astype(np.float64), found.astype(np.float64)
    if roll:
        middle = canvas_side / 2
        points = turned(points - CANVAS / 2, roll) + middle
        centres = turned(corners.mean(1, keepdims=True) - CANVAS / 2, roll) + middle
        corners = centres + corners - corners.mean(1, keepdims=True)
    factor = np.array([(region[2] - region[0]) / size[0], (region[3] - region[1]) / size[1]])
    origin = np.array(region[:2]) - offset * factor - 0.5  # the canvas has pixel edges at integers, photos centres
    return _Detections(
        (corners * factor + origin).reshape(-1, 4).astype(np.float32),
        (points * factor + origin).astype(np.float32),
        scores,
        np.full(len(scores), 1 / scale, np.float32),
    )


def _without_repeats(*passes: _Detections) -> _Detections:
    """The detections of several passes, each face once, as the earliest pass found it.

    A detection mostly inside another is not a second face: enlarged, a mouth or an ear can look like one.
    """
    kept: list[_Detections] = []
    for found in passes:
        for i in range(len(found)):
            shares = (overlaps(found.boxes[i], other.boxes) for other in kept)
            if all(union[0] <= _SAME and smaller[0] <= 0.5 for union, smaller in shares):
                kept.append(found[i : i + 1])
    if not kept:
        return _Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0, 6, 2), 0, 0)))
    return _Detections.joined(kept)
