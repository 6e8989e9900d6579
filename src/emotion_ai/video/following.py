"""Finding and following the faces of a video with a reader of crops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE
from emotion_ai.errors import NoFaceError
from emotion_ai.inference.pipeline import (
    MIN_FACE_PX,
    DetectedFace,
    boxes_from_points,
    center_distance,
    detect_faces,
    face_readings,
    read_faces,
    reread_moved,
)
from emotion_ai.inference.results import CropReader, FaceReading
from emotion_ai.video.frames import TrackedFace
from emotion_ai.video.tracking import Track, Tracker
from emotion_ai.vision.crops import Box, box_from_detection, crop, share_outside
from emotion_ai.vision.detector import find_faces_quickly
from emotion_ai.vision.photo import Photo

_DOUBT = 1.4  # rise of a face's standard deviations with which the detector looks for it
_OUT = 0.6  # share of a box outside the frame with which its face has left
_LEVEL = 0.1  # weight of a frame in a track's usual standard deviation
_SAME = 0.35  # distance of two boxes of one face, in box sides
_DRIFTED = 0.2  # distance of a followed face from its detection with which it is read anew
_TICK = 1e-6  # seconds that two times may differ by rounding


@dataclass(frozen=True)
class _Known:
    """The detector's last score of a visible track, and the usual mean standard deviation in its crop, in pixels."""

    score: float
    level: float


@dataclass(frozen=True)
class FoundFaces:
    """The faces of a frame, and when the detector last ran.

    Attributes:
        faces: of the frame.
        searched: time of the last whole search, in seconds.
        checked: time of the last short or whole search.
    """

    faces: list[FaceReading]
    searched: float
    checked: float


class Follower:
    """Reads the faces of successive frames; those that are followed take one pass of the network.

    Args:
        reader: of crops.
        detect_every: seconds between two whole searches, by `detect_faces`.
        check_every: seconds between two short ones, by `find_faces_quickly`.
    """

    def __init__(self, reader: CropReader, detect_every: float, check_every: float) -> None:
        self.reader, self.detect_every, self.check_every = reader, detect_every, check_every
        self._known: dict[int, _Known] = {}
        self._searched = self._checked = -np.inf

    def find(self, photo: Photo, seconds: float, tracker: Tracker, cut: bool) -> FoundFaces:
        """The faces of the next frame; `confirm` says when they were taken in, and until then nothing changes."""
        visible = [] if cut else tracker.visible
        followed = self._follow(photo.gray, visible, seconds)
        kept = _without_repeats([face for face, _ in followed])
        places = [track.predicted(seconds) for track in visible]
        whole = cut or seconds - self._searched >= self.detect_every - _TICK
        lost = len(kept) < len(visible) or not all(sure for _, sure in followed)
        if not (whole or lost or seconds - self._checked >= self.check_every - _TICK):
            return FoundFaces(kept, self._searched, self._checked)
        expected = places + [track.predicted(seconds) for track in tracker.missing(seconds)]
        found = _search(photo, expected, whole)
        if not whole and any(_nearest(place, found) is None for place in places):
            whole, found = True, _search(photo, expected, True)
        confirmed, fresh = _confirmed(kept, found)
        faces = confirmed + (read_faces(photo.gray, fresh, self.reader) if fresh else [])
        return FoundFaces(_without_repeats(faces), seconds if whole else self._searched, seconds)

    def confirm(self, found: FoundFaces, tracked: Sequence[TrackedFace]) -> None:
        """Takes in the faces of a frame with their tracks."""
        self._searched, self._checked = found.searched, found.checked
        known = {}
        for face in tracked:
            level = _level(face.raw)
            if face.track in self._known:
                before = self._known[face.track].level
                level = before + _LEVEL * (level - before)
            known[face.track] = _Known(face.raw.score, level)
        self._known = known

    def state(self) -> dict[str, Any]:
        """What it remembers, for JSON; `restore` takes it."""
        return {
            "known": [[track, known.score, known.level] for track, known in self._known.items()],
            "searched": None if np.isinf(self._searched) else self._searched,
            "checked": None if np.isinf(self._checked) else self._checked,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned, with the same settings."""
        self._known = {track: _Known(score, level) for track, score, level in state["known"]}
        self._searched, self._checked = (
            -np.inf if state[name] is None else state[name] for name in ("searched", "checked")
        )

    def _follow(
        self, gray: NDArray[np.uint8], tracks: Sequence[Track], seconds: float
    ) -> list[tuple[FaceReading, bool]]:
        """The faces where visible tracks should be, and whether their points are as sure as before.

        Those whose points lie elsewhere are left out.
        """
        predicted = [track.predicted(seconds).rounded() for track in tracks]
        inside = [share_outside(box, *gray.shape) < _OUT and box.size >= MIN_FACE_PX for box in predicted]
        tracks = [track for track, seen in zip(tracks, inside, strict=True) if seen]
        predicted = [box for box, seen in zip(predicted, inside, strict=True) if seen]
        if not tracks:
            return []
        crops = self.reader.read_crops([crop(gray, box) for box in predicted])
        if np.isnan(crops.keypoints).any():  # a model without points: they cannot lead
            return []
        placed, crops = reread_moved(gray, list(predicted), crops, predicted, self.reader)
        centred = boxes_from_points(placed, crops, predicted)
        known = [self._known[track.number] for track in tracks]
        faces = face_readings(gray, placed, crops, [one.score for one in known])
        return [
            (face, not one.level or _level(face) < _DOUBT * one.level)
            for face, box, first, one in zip(faces, centred, predicted, known, strict=True)
            if box is not first
        ]


def _level(face: FaceReading) -> float:
    """Mean standard deviation of the points, in pixels of the crop; 0 without any."""
    return 0.0 if face.deviations is None else float(face.deviations.mean()) * CROP_SIZE / face.box.size


def _search(photo: Photo, expected: Sequence[Box], whole: bool) -> list[DetectedFace]:
    """The faces that the detector finds; those expected are looked for in their places if the search misses them."""
    found: list[DetectedFace] = []
    if whole:
        try:
            found = detect_faces(photo)
        except NoFaceError:
            found = []
        expected = [box for box in expected if _nearest(box, found) is None]
        if not expected:
            return found
    for face in find_faces_quickly(photo.rgb, expected):
        box = box_from_detection(face.points).rounded()
        if box.size >= MIN_FACE_PX and _nearest(box, found) is None:
            found.append(DetectedFace(box, face.score))
    return found


def _confirmed(
    faces: Sequence[FaceReading], found: Sequence[DetectedFace]
) -> tuple[list[FaceReading], list[DetectedFace]]:
    """The followed faces that were detected as well, and the detections to be read: new faces, and those that moved."""
    confirmed, fresh = [], list(found)
    for face in faces:
        at = _nearest(face.box, fresh)
        if at is not None and center_distance(fresh[at].box, face.box) < _DRIFTED:
            confirmed.append(replace(face, score=fresh.pop(at).score))
    return confirmed, fresh


def _nearest(box: Box, found: Sequence[DetectedFace]) -> int | None:
    """The detection in the place of a box, if any."""
    distances = [center_distance(face.box, box) for face in found]
    return int(np.argmin(distances)) if distances and min(distances) < _SAME else None


def _without_repeats(faces: Sequence[FaceReading]) -> list[FaceReading]:
    """Each face once: the reading with the surer points where two tracks followed the same one."""
    kept: list[FaceReading] = []
    for face in sorted(faces, key=_level):
        if all(center_distance(face.box, other.box) >= _SAME for other in kept):
            kept.append(face)
    return kept
