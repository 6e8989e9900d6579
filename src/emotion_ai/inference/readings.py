"""What the networks say of faces, in the crops' frame and in the photograph."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE, EMOTIONS, KEYPOINTS
from emotion_ai.errors import ConfigError, NoFaceError
from emotion_ai.vision.crops import Box, box_from_detection, box_from_points, crop
from emotion_ai.vision.detector import find_faces
from emotion_ai.vision.photo import Photo, Source, load_photo

if TYPE_CHECKING:
    import pandas as pd

Crops = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
"""Gray faces, already cropped: uint8 (N, H, W), or N arrays (H, W) of any sizes."""

MIN_FACE_PX = 20
"""Pixels of a frame's side; a smaller face has no emotion that one could read."""

REREAD_TOLERANCE = 0.05
"""Share of a frame's side by which the points' own may lie elsewhere, or be larger, without another reading."""

Framed = tuple[NDArray[np.uint8], Box, float]
"""A face of a photograph: its crop uint8 (S, S), where that lies, and the detector's score."""

COLUMNS = (
    *("emotion", "confidence", "uncertain", "score"),
    *EMOTIONS,
    *("box_left", "box_top", "box_size"),
    *(f"{name}_{axis}" for name in KEYPOINTS for axis in "xy"),
)
"""Of a table of faces: `score` is the detector's, the box and the points are in pixels of the photograph."""


@dataclass(frozen=True)
class CropReadings:
    """Of N crops: keypoints float32 (N, 15, 2) in pixels of the 96x96 frame, probabilities float32 (N, 5).

    A servable that answers only one of the two leaves the other NaN. Where they were asked for, deviations float32
    (N, 15, 2): standard deviations of the keypoints' coordinates, in pixels of the frame.
    """

    keypoints: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    deviations: NDArray[np.float32] | None = None

    def replaced(self, rows: Sequence[int], others: "CropReadings") -> "CropReadings":
        """The same readings, but for some crops those of `others`, which are as many as the rows."""
        keypoints, probabilities = self.keypoints.copy(), self.probabilities.copy()
        keypoints[rows], probabilities[rows] = others.keypoints, others.probabilities
        if self.deviations is None or others.deviations is None:
            return CropReadings(keypoints, probabilities)
        deviations = self.deviations.copy()
        deviations[rows] = others.deviations
        return CropReadings(keypoints, probabilities, deviations)


@dataclass(frozen=True)
class FaceReading:
    """Of one face of a photograph.

    Attributes:
        keypoints: float32 (15, 2), pixels of the 96x96 frame.
        probabilities: float32 (5,), in the order of `EMOTIONS`.
        box: the frame's square, in pixels of the photograph.
        points: float32 (15, 2), the keypoints in pixels of the photograph.
        score: of the detector, 0 to 1.
        deviations: float32 (15, 2), standard deviations of the points' coordinates in pixels of the photograph; None
            where they were not asked for.
        uncertain_below: confidence below which the emotion is not to be relied on, 0 to 1.
    """

    keypoints: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    box: Box
    points: NDArray[np.float32]
    score: float
    deviations: NDArray[np.float32] | None = None
    uncertain_below: float = 0.0

    @property
    def emotion(self) -> str | None:
        """The likeliest emotion; None from a model that answers keypoints only."""
        return None if np.isnan(self.probabilities).any() else EMOTIONS[int(np.argmax(self.probabilities))]

    @property
    def confidence(self) -> float:
        """Its probability."""
        return float(self.probabilities.max())

    @property
    def uncertain(self) -> bool:
        """Whether the confidence is too low to rely on the emotion."""
        return bool(self.probabilities.max() < self.uncertain_below)  # in float32, as the threshold was chosen

    @property
    def verdict(self) -> str | None:
        """The emotion as people are told it: "uncertain" in its place where it is."""
        return "uncertain" if self.uncertain else self.emotion

    @property
    def caption(self) -> str:
        """In a few words: the emotion and its probability, "uncertain", or "points" where no emotion is answered."""
        if self.emotion is None:
            return "points"
        return "uncertain" if self.uncertain else f"{self.emotion} {self.confidence:.0%}"

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; None for what the model does not answer."""
        answer = {
            "emotion": self.emotion,
            "confidence": _plain(self.confidence, 4),
            "uncertain": self.uncertain,
            "probabilities": {n: _plain(p, 4) for n, p in zip(EMOTIONS, self.probabilities, strict=True)},
            "box": {name: round(value, 2) for name, value in asdict(self.box).items()},
            "points": {n: [_plain(x, 2), _plain(y, 2)] for n, (x, y) in zip(KEYPOINTS, self.points, strict=True)},
            "score": _plain(self.score, 4),
        }
        if self.deviations is not None:
            pairs = zip(KEYPOINTS, self.deviations, strict=True)
            answer["deviations"] = {n: [_plain(x, 2), _plain(y, 2)] for n, (x, y) in pairs}
        return answer

    def as_row(self) -> dict[str, Any]:
        """One flat record with the columns of `COLUMNS`."""
        box = (self.box.left, self.box.top, self.box.size)
        numbers = (self.score, *self.probabilities, *box, *self.points.ravel())
        said = (self.emotion, self.confidence, self.uncertain)
        return dict(zip(COLUMNS, (*said, *(float(number) for number in numbers)), strict=True))

    def to_row(self) -> "pd.Series[Any]":
        """`as_row` as a pandas row; needs pandas."""
        import pandas as pd

        return pd.Series(self.as_row())


def read_photo(
    source: Source | Photo, read_crops: Callable[[Crops], CropReadings], uncertain_below: float = 0.0
) -> list[FaceReading]:
    """Finds the faces of a photograph, from left to right, and has their crops read.

    Args:
        source: the photograph.
        read_crops: reads faces that are cropped.
        uncertain_below: confidence below which an emotion is called uncertain.

    Raises:
        ImageError: the picture cannot be read.
        NoFaceError: no face was found in it.
    """
    photo = source if isinstance(source, Photo) else load_photo(source)
    return read_framed(photo.gray, framed_faces(photo), read_crops, uncertain_below)


def read_framed(
    gray: NDArray[np.uint8],
    framed: Sequence[Framed],
    read_crops: Callable[[Crops], CropReadings],
    uncertain_below: float = 0.0,
) -> list[FaceReading]:
    """`read_photo` for faces that `framed_faces` found before; `gray` is the photograph's, uint8 (H, W)."""
    boxes, answers = read_boxes(gray, [box for _, box, _ in framed], read_crops)
    readings = []
    for i, (box, (_, _, score)) in enumerate(zip(boxes, framed, strict=True)):
        keypoints, probabilities = answers.keypoints[i], answers.probabilities[i]
        points = box.to_photo(keypoints)
        deviations = None if answers.deviations is None else answers.deviations[i] * np.float32(box.size / CROP_SIZE)
        readings.append(FaceReading(keypoints, probabilities, box, points, score, deviations, uncertain_below))
    return readings


def read_boxes(
    gray: NDArray[np.uint8], boxes: Sequence[Box], read_crops: Callable[[Crops], CropReadings]
) -> tuple[list[Box], CropReadings]:
    """Has faces read twice: in these frames, then in those that their points of the first reading give; and a third
    time where the second reading's points say that the frame was still off.

    Points move with the frame, and the detector's scatters; the last hardly depends on where the first one lay. A model
    without keypoints reads once.

    Returns:
        The frames of the answers, in whole pixels of the photograph, and the answers.
    """
    crops = [crop(gray, box) for box in boxes]
    answers = read_crops([pixels for pixels, _ in crops])
    if np.isnan(answers.keypoints).any():
        return [box for _, box in crops], answers
    crops = [crop(gray, box) for box in _own(crops, answers, boxes)]
    answers = read_crops([pixels for pixels, _ in crops])
    own = _own(crops, answers, boxes)
    pairs = enumerate(zip(own, (box for _, box in crops), strict=True))
    unsettled = [
        i for i, (box, last) in pairs if max(_apart(box, last), abs(box.size / last.size - 1)) > REREAD_TOLERANCE
    ]
    if unsettled:
        again = [crop(gray, own[i]) for i in unsettled]
        answers = answers.replaced(unsettled, read_crops([pixels for pixels, _ in again]))
        for i, each in zip(unsettled, again, strict=True):
            crops[i] = each
    return [box for _, box in crops], answers


def _own(crops: Sequence[tuple[NDArray[np.uint8], Box]], answers: CropReadings, first: Sequence[Box]) -> list[Box]:
    """The frames that the points of some crops give; the first ones where those are another face's, or none."""
    own = [box_from_points(box.to_photo(points)) for (_, box), points in zip(crops, answers.keypoints, strict=True)]
    near = [_apart(box, one) < 1 / 3 and 0.6 < box.size / one.size < 1.6 for box, one in zip(own, first, strict=True)]
    return [box if keep else one for box, one, keep in zip(own, first, near, strict=True)]


def _apart(one: Box, other: Box) -> float:
    """How far the centres lie apart, along the axis where it is more, as a share of the other's side."""
    larger = (one.size - other.size) / 2
    return max(abs(one.left - other.left + larger), abs(one.top - other.top + larger)) / other.size


def framed_faces(photo: Photo) -> list[Framed]:
    """Crops uint8 (S, S) in the training faces' framing, where they lie, and the detector's scores.

    Raises:
        NoFaceError: no face was found, or none of at least `MIN_FACE_PX` pixels.
    """
    found = find_faces(photo.rgb)
    if not found:
        raise NoFaceError(f"{photo.name}: no face was found; give a picture with a clear, upright face")
    boxes = [box_from_detection(face.points) for face in found]
    if (widest := max(box.size for box in boxes)) < MIN_FACE_PX:
        raise NoFaceError(
            f"{photo.name}: the largest face is only {widest:.0f} pixels wide; at least {MIN_FACE_PX} are needed"
        )
    return [
        (*crop(photo.gray, box), face.score) for box, face in zip(boxes, found, strict=True) if box.size >= MIN_FACE_PX
    ]


def checked_threshold(uncertain_below: float) -> float:
    """The same confidence.

    Raises:
        ConfigError: it is none from 0 to 1.
    """
    if not 0 <= uncertain_below <= 1:
        raise ConfigError(f"uncertain_below={uncertain_below}: a confidence lies between 0 (always sure) and 1")
    return uncertain_below


def _plain(value: float | np.floating[Any], digits: int) -> float | None:
    return None if np.isnan(value) else round(float(value), digits)
