"""Which face is whose: the tracks of a video, by place, motion and look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import KEYPOINTS
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.video.appearance import Look, as_text, blended, from_text, look_of
from emotion_ai.video.assignment import assign
from emotion_ai.vision.crops import Box, box_from_points, eye_roll

Floats = NDArray[np.float64]

_COAST = 0.5  # seconds in which the speed of a face that is out of sight falls to 1 / e
_UNLIKE = -0.1  # correlation below which a face is somebody else's, wherever it is
_DEAREST = 2.0  # cost of the dearest pair: distance in box sides, plus 1 - correlation
_ALIKE = 0.8  # correlation from which a face that was away is taken for the same person's
_LEAD = 0.1  # by which that person must lead the next
_SLIGHT = 4.0  # degrees by which the eyes may turn in a crop before the next one is turned
_EYES = [KEYPOINTS.index("right_eye_center"), KEYPOINTS.index("left_eye_center")]
_LIMIT = 200  # tracks that are remembered, the latest


@dataclass
class Track:
    """One person, as last seen.

    Attributes:
        number: from 1 in the order of appearance.
        box: of the last reading, not smoothed.
        anchors: float (15, 2), its points, or (4, 2), its box's corners where a model has no points.
        velocity: float (2,), pixels per second.
        seconds: when it was last seen.
        look: of its face, from `appearance.look_of`; empty where pixels are not given.
    """

    number: int
    box: Box
    anchors: Floats
    velocity: Floats
    seconds: float
    look: Look

    def shift(self, seconds: float) -> Floats:
        """How far it should have moved by then, float (2,): the speed falls while it is out of sight."""
        return self.velocity * _COAST * (1 - np.exp(-(seconds - self.seconds) / _COAST))

    def predicted(self, seconds: float) -> Box:
        """Where its face should be by then, around its points and along its eyes."""
        box = self.box
        if len(self.anchors) == len(KEYPOINTS):
            roll = eye_roll(self.anchors[_EYES])
            steady = abs((roll - box.roll + 180) % 360 - 180) < _SLIGHT
            box = box_from_points(self.anchors, box.roll if steady else roll)
        right, down = map(float, self.shift(seconds))
        return Box(box.left + right, box.top + down, box.size, box.roll)


class Tracker:
    """Numbers the faces of a video by person.

    Faces and tracks are paired at the least total cost: the distance of the points from where constant velocity puts
    them, in box sides, and how much the look differs. At a cut, and for a face that was away for longer, the look
    alone decides, if it is clear; otherwise the face is a new person.

    Args:
        occlusion: seconds for which the place of a face that is out of sight is trusted.
        memory: seconds for which its look is remembered.

    Raises:
        ConfigError: `occlusion` or `memory` is negative.
    """

    def __init__(self, occlusion: float = 2.0, memory: float = 60.0) -> None:
        if not (occlusion >= 0 and memory >= 0):
            raise ConfigError(f"`occlusion` and `memory` must be >= 0, got {occlusion} and {memory}")
        self.occlusion, self.memory = occlusion, memory
        self.tracks: list[Track] = []  # the latest last
        self.seconds = -np.inf
        self._count = 0

    @property
    def visible(self) -> list[Track]:
        """Tracks of the faces in the last frame."""
        return [track for track in self.tracks if track.seconds == self.seconds]

    def missing(self, seconds: float) -> list[Track]:
        """Tracks that are out of sight, and not for long."""
        return [t for t in self.tracks if t.seconds < self.seconds and seconds - t.seconds <= self.occlusion]

    def __call__(
        self, faces: Sequence[FaceReading], seconds: float, rgb: NDArray[np.uint8] | None = None, cut: bool = False
    ) -> list[int]:
        """The track of each face of a frame, in their order, each once.

        Args:
            faces: of one frame.
            seconds: the frame's time; the steps may differ.
            rgb: the frame, uint8 (H, W, 3); without it looks do not count.
            cut: whether places say nothing, as after a cut.

        Raises:
            ConfigError: the time does not increase.
        """
        if not self.seconds < seconds < np.inf:
            raise ConfigError(f"times must increase, got {seconds} s after {self.seconds} s")
        kept = [track for track in self.tracks if seconds - track.seconds <= max(self.memory, self.occlusion)]
        looks = [np.zeros(0, np.float32) if rgb is None else look_of(rgb, face.box) for face in faces]
        near = [] if cut else [track for track in kept if seconds - track.seconds <= self.occlusion]
        costs = self._costs(near, faces, looks, seconds)
        followed = {near[row].number: face for row, face in assign(costs, _DEAREST).items()}
        away = [track for track in kept if track.number not in followed and track.look.size]
        pairs = followed | (self._recognised(away, looks, set(followed.values())) if rgb is not None else {})
        owners = {face: number for number, face in pairs.items()}
        by_number = {track.number: track for track in kept}
        numbers = []
        for i, (face, look) in enumerate(zip(faces, looks, strict=True)):
            if i in owners:
                track = by_number[owners[i]]
                crowded = any(_close(face.box, other.box) for j, other in enumerate(faces) if j != i) or any(
                    _close(face.box, other.predicted(seconds)) for other in near if other is not track
                )
                _follow(track, face, look, seconds, moved=track.number in followed, known=not crowded)
            else:
                self._count += 1
                track = Track(self._count, face.box, _anchors(face), np.zeros(2), seconds, look)
                kept.append(track)
            numbers.append(track.number)
        self.tracks = sorted(kept, key=lambda track: track.seconds)[-_LIMIT:]
        self.seconds = seconds
        return numbers

    def _costs(
        self, tracks: Sequence[Track], faces: Sequence[FaceReading], looks: Sequence[Look], seconds: float
    ) -> Floats:
        costs = np.full((len(tracks), len(faces)), np.inf)
        for i, track in enumerate(tracks):
            away = seconds - track.seconds
            reach, growth = min(0.6 + 2 * away, 2.5), min(1.6 + away, 2.5)
            for j, face in enumerate(faces):
                apart, ratio = _apart(track, face, seconds), face.box.size / track.box.size
                alike = _alike(track.look, looks[j])
                if apart <= reach and 1 / growth < ratio < growth and alike >= _UNLIKE:
                    costs[i, j] = apart + 1 - alike
        return costs

    def _recognised(self, tracks: Sequence[Track], looks: Sequence[Look], taken: set[int]) -> dict[int, int]:
        """The faces, by number of track, that look like somebody who was away."""
        alike = np.array([[_alike(track.look, look) for look in looks] for track in tracks])
        if not alike.size:
            return {}
        alike[:, sorted(taken)] = -1
        found = {}
        for row, face in assign(1 - alike, 1 - _ALIKE).items():
            others = np.delete(alike[:, face], row)
            if not others.size or alike[row, face] - others.max() >= _LEAD:
                found[tracks[row].number] = face
        return found

    def state(self) -> dict[str, Any]:
        """What it remembers, for JSON; `restore` takes it."""
        return {
            "seconds": None if np.isinf(self.seconds) else self.seconds,
            "count": self._count,
            "tracks": [
                {
                    "number": track.number,
                    "box": [track.box.left, track.box.top, track.box.size, track.box.roll],
                    "anchors": track.anchors.tolist(),
                    "velocity": track.velocity.tolist(),
                    "seconds": track.seconds,
                    "look": as_text(track.look),
                }
                for track in self.tracks
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned, with the same settings."""
        self.seconds = -np.inf if state["seconds"] is None else state["seconds"]
        self._count = state["count"]
        self.tracks = [
            Track(
                saved["number"],
                Box(*saved["box"]),
                np.array(saved["anchors"], np.float64),
                np.array(saved["velocity"], np.float64),
                saved["seconds"],
                from_text(saved["look"]),
            )
            for saved in state["tracks"]
        ]


def _follow(track: Track, face: FaceReading, look: Look, seconds: float, moved: bool, known: bool) -> None:
    """Moves a track to the face that was found; `known` says that the look is surely its own."""
    anchors = _anchors(face)
    if moved and anchors.shape == track.anchors.shape:
        speed = (anchors - track.anchors).mean(0) / (seconds - track.seconds)
        weight = 1 - np.exp(-(seconds - track.seconds) / 0.1)
        track.velocity = track.velocity + weight * (speed - track.velocity)
    else:
        track.velocity = np.zeros(2)
    if not track.look.size or not look.size:
        track.look = look
    elif known:
        track.look = blended(track.look, look)
    track.box, track.anchors, track.seconds = face.box, anchors, seconds


def _anchors(face: FaceReading) -> Floats:
    return face.box.corners() if np.isnan(face.points).any() else face.points.astype(np.float64)


def _apart(track: Track, face: FaceReading, seconds: float) -> float:
    """Mean distance of a face's points from where the track's should be, in box sides."""
    anchors = _anchors(face)
    expected, size = track.anchors + track.shift(seconds), (track.box.size + face.box.size) / 2
    if anchors.shape != expected.shape:
        anchors, expected = face.box.corners(), track.predicted(seconds).corners()
    return float(np.linalg.norm(anchors - expected, axis=1).mean() / size)


def _alike(one: Look, other: Look) -> float:
    """Correlation of two looks, -1 to 1; 1 where either is unknown."""
    return float(one @ other) if one.size and other.size else 1.0


def _close(one: Box, other: Box) -> bool:
    """Whether two boxes touch, or nearly so."""
    across = abs(one.left + one.size / 2 - other.left - other.size / 2)
    down = abs(one.top + one.size / 2 - other.top - other.size / 2)
    return max(across, down) < 0.6 * (one.size + other.size)
