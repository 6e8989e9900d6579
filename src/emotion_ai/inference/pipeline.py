"""From a photo to its faces: detect, crop, read, and crop again where the keypoints lie.

Each face is cropped upright by the detector's eye line. It is read twice: keypoints from the first pass re-crop it for
the second, at the same roll. A third pass runs only if the crop is still off. Keypoints shift with their crop and
detections scatter; the last pass hardly depends on the first box.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE
from emotion_ai.errors import NoFaceError
from emotion_ai.inference.results import CropReader, CropReadings, FaceReading
from emotion_ai.vision.crops import (
    Box,
    box_from_detection,
    box_from_points,
    crop,
    outside,
    share_outside,
    turned,
)
from emotion_ai.vision.detector import find_faces
from emotion_ai.vision.photo import Photo, Source, load_photo
from emotion_ai.vision.pose import fit_pose
from emotion_ai.vision.quality import measure_quality

MIN_FACE_PX = 20
"""Side of the smallest box that is read, in pixels of the photo; smaller faces show no readable expression."""

REREAD_TOLERANCE = 0.05
"""How far the box of the keypoints may differ from their crop, in place or size and as a share of its side, before a
face is read a third time."""

CUT_SHARE = 0.2
"""A face with more of its box outside the photo is cut by its edge."""


@dataclass(frozen=True)
class DetectedFace:
    """A face that the detector found.

    Attributes:
        box: where to crop it, in whole pixels of the photo, upright by the eye line.
        score: the detector's, 0 to 1.
    """

    box: Box
    score: float


def detect_faces(photo: Photo) -> list[DetectedFace]:
    """The faces of a photo, from left to right.

    Raises:
        NoFaceError: there is none, or none of at least `MIN_FACE_PX` pixels.
    """
    found = [(box_from_detection(face.points), face.score) for face in find_faces(photo.rgb)]
    if not found:
        raise NoFaceError(f"{photo.name}: no face found; use a photo with a clear face")
    if (largest := max(box.size for box, _ in found)) < MIN_FACE_PX:
        raise NoFaceError(
            f"{photo.name}: the largest face is {largest:.0f} pixels wide; it must be at least {MIN_FACE_PX}"
        )
    return [DetectedFace(box.rounded(), score) for box, score in found if box.size >= MIN_FACE_PX]


def read_photo(source: Source | Photo, reader: CropReader, uncertain_below: float | None = None) -> list[FaceReading]:
    """Detects and reads the faces of a photo, from left to right.

    Args:
        source: the photo. Boxes and points are in pixels of what is given: of the upright file, or of a `Photo`, which
            is smaller than its file if `scale` is above 1.
        reader: reads the crops.
        uncertain_below: confidence below which an emotion counts as uncertain; by default the readings' own threshold.

    Raises:
        ImageError: the photo cannot be decoded.
        NoFaceError: it shows no face.
    """
    photo = source if isinstance(source, Photo) else load_photo(source)
    readings = read_faces(photo.gray, detect_faces(photo), reader, uncertain_below)
    return readings if photo is source or photo.scale == 1 else [face.scaled(photo.scale) for face in readings]


def read_faces(
    gray: NDArray[np.uint8], faces: Sequence[DetectedFace], reader: CropReader, uncertain_below: float | None = None
) -> list[FaceReading]:
    """Reads faces that `detect_faces` found in a photo, uint8 (H, W)."""
    boxes, crops = read_boxes(gray, [face.box for face in faces], reader)
    return face_readings(gray, boxes, crops, [face.score for face in faces], uncertain_below)


def read_together(
    photos: Sequence[tuple[NDArray[np.uint8], Sequence[DetectedFace]]], reader: CropReader
) -> list[list[FaceReading]]:
    """Reads the faces of several photos, uint8 (H, W), which `detect_faces` found, with all their crops together."""
    grays = [gray for gray, faces in photos for _ in faces]
    found = [face for _, faces in photos for face in faces]
    if not found:
        return [[] for _ in photos]
    boxes, crops = _read_boxes(grays, [face.box for face in found], reader)
    readings, start = [], 0
    for gray, faces in photos:
        rows = slice(start, start := start + len(faces))
        readings.append(face_readings(gray, boxes[rows], crops.part(rows), [face.score for face in faces]))
    return readings


def read_each(
    photos: Sequence[tuple[NDArray[np.uint8], Sequence[DetectedFace]]],
    reader: CropReader,
    gives_up: tuple[type[Exception], ...] = (),
) -> list[list[FaceReading] | Exception]:
    """As `read_together`, or one by one where the reader rejects them together; a photo that it rejects alone, too, has
    the error as its result.

    Args:
        photos: as for `read_together`.
        reader: reads the crops.
        gives_up: errors that are raised.
    """
    try:
        return list(read_together(photos, reader))
    except gives_up:
        raise
    except Exception as error:
        if len(photos) == 1:
            return [error]
        return [found for photo in photos for found in read_each([photo], reader, gives_up)]


def face_readings(
    gray: NDArray[np.uint8],
    boxes: Sequence[Box],
    crops: CropReadings,
    scores: Sequence[float],
    uncertain_below: float | None = None,
) -> list[FaceReading]:
    """The faces of a photo, uint8 (H, W), from what was read in their boxes and the detector's scores."""
    readings = []
    for i, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        deviations = None if crops.deviations is None else _deviations(crops.deviations[i], box)
        points = box.to_photo(crops.keypoints[i])
        readings.append(
            FaceReading(
                keypoints=crops.keypoints[i],
                probabilities=crops.probabilities[i],
                box=box,
                points=points,
                score=score,
                deviations=deviations,
                uncertain_below=crops.threshold(i) if uncertain_below is None else uncertain_below,
                pose=fit_pose(points),
                quality=measure_quality(crop(gray, box)),
                cut=is_cut(box, points, *gray.shape),
                expressions=None if crops.expressions is None else crops.expressions[i],
                classes=crops.classes,
                class_thresholds=crops.class_thresholds(i) if uncertain_below is None else None,
            )
        )
    return readings


def read_boxes(gray: NDArray[np.uint8], boxes: Sequence[Box], reader: CropReader) -> tuple[list[Box], CropReadings]:
    """Reads the faces in some boxes of a photo, uint8 (H, W): twice, or three times where the box still moves.

    A model without keypoints reads once.

    Returns:
        The boxes of the last crops, in whole pixels of the photo, and the readings in them.
    """
    return _read_boxes([gray] * len(boxes), boxes, reader)


def reread_moved(
    gray: NDArray[np.uint8], placed: list[Box], readings: CropReadings, detected: Sequence[Box], reader: CropReader
) -> tuple[list[Box], CropReadings]:
    """Boxes and readings, with one more pass where the keypoints lie too far from the middle of their crop."""
    return _reread_moved([gray] * len(placed), placed, readings, detected, reader)


def _read_boxes(
    grays: Sequence[NDArray[np.uint8]], boxes: Sequence[Box], reader: CropReader
) -> tuple[list[Box], CropReadings]:
    """`read_boxes` with the photo of each box."""
    placed = [box.rounded() for box in boxes]
    readings = _read(grays, placed, reader)
    if np.isnan(readings.keypoints).any():
        return placed, readings
    placed = [box.rounded() for box in boxes_from_points(placed, readings, boxes)]
    readings = _read(grays, placed, reader)
    return _reread_moved(grays, placed, readings, boxes, reader)


def _reread_moved(
    grays: Sequence[NDArray[np.uint8]],
    placed: list[Box],
    readings: CropReadings,
    detected: Sequence[Box],
    reader: CropReader,
) -> tuple[list[Box], CropReadings]:
    moved = {
        i: box.rounded()
        for i, (box, last) in enumerate(zip(boxes_from_points(placed, readings, detected), placed, strict=True))
        if max(center_distance(box, last), abs(box.size / last.size - 1)) > REREAD_TOLERANCE
    }
    if moved:
        placed = [moved.get(i, box) for i, box in enumerate(placed)]
        again = _read([grays[i] for i in moved], list(moved.values()), reader)
        same = again.classes == readings.classes  # a label may have moved to a version with other classes
        readings = readings.replaced(list(moved), again) if same else _read(grays, placed, reader)
    return placed, readings


def boxes_from_points(boxes: Sequence[Box], readings: CropReadings, detected: Sequence[Box]) -> list[Box]:
    """The boxes that the keypoints read in `boxes` give; the detected one where they lie on another face or on none."""
    found = [
        box_from_points(box.to_photo(points), box.roll) for box, points in zip(boxes, readings.keypoints, strict=True)
    ]
    return [
        box if center_distance(box, first) < 1 / 3 and 0.6 < box.size / first.size < 1.6 else first
        for box, first in zip(found, detected, strict=True)
    ]


def is_cut(box: Box, points: NDArray[np.float32], height: int, width: int) -> bool:
    """Whether the edge of a photo of that many pixels cuts a face: a point beyond it, or much of the box."""
    return bool(outside(points, height, width).any()) or share_outside(box, height, width) > CUT_SHARE


def _deviations(deviations: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    """Standard deviations along the crop's axes as those along the photo's, in its pixels; errors in x and y are taken
    as independent."""
    scaled = deviations * np.float32(box.size / CROP_SIZE)
    if not box.roll:
        return scaled
    shares = np.square(turned(np.eye(2), box.roll)).astype(np.float32)
    mixed: NDArray[np.float32] = np.sqrt(np.square(scaled) @ shares)
    return mixed


def center_distance(box: Box, other: Box) -> float:
    """How far two centres lie apart along the axis where it is more, as a share of the other's side."""
    larger = (box.size - other.size) / 2
    return max(abs(box.left - other.left + larger), abs(box.top - other.top + larger)) / other.size


def _read(grays: Sequence[NDArray[np.uint8]], boxes: Sequence[Box], reader: CropReader) -> CropReadings:
    return reader.read_crops([crop(gray, box) for gray, box in zip(grays, boxes, strict=True)])
