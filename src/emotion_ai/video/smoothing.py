"""Smoothing of readings over the frames of a video: little jitter at rest, little lag in motion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.vision.crops import Box, turned
from emotion_ai.vision.pose import fit_pose

Floats = NDArray[np.float64]


class OneEuroFilter:
    """The One-Euro filter (Casiez, Roussel and Vogel 2012, section 3, doi:10.1145/2207676.2208639): a low-pass filter
    with a cut-off frequency that rises with speed. Each number of an array is filtered on its own.

    Args:
        min_cutoff: cut-off frequency at rest, in hertz; lower means less jitter.
        beta: hertz added to it per unit of speed; higher means less lag.
        d_cutoff: cut-off frequency of the speed, in hertz.

    Raises:
        ConfigError: a cut-off frequency is not positive, or `beta` is negative.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 0.0, d_cutoff: float = 1.0) -> None:
        if not (min_cutoff > 0 and d_cutoff > 0 and beta >= 0):
            raise ConfigError(
                f"`min_cutoff` and `d_cutoff` must be > 0 and `beta` >= 0, got {min_cutoff}, {d_cutoff} and {beta}"
            )
        self.min_cutoff, self.beta, self.d_cutoff = min_cutoff, beta, d_cutoff
        self._seconds = -np.inf
        self._values: Floats | None = None
        self._speed: Floats

    def anew(self) -> "OneEuroFilter":
        """A filter with the same settings that has seen nothing."""
        return OneEuroFilter(self.min_cutoff, self.beta, self.d_cutoff)

    def __call__(self, values: ArrayLike, seconds: float, unit: float = 1.0) -> Floats:
        """The smoothed values; the first values, and those after NaN, are returned unchanged.

        Args:
            values: float, of the same shape in every call; NaN stays NaN.
            seconds: their time; the steps may differ.
            unit: length of one unit in the speed that `beta` multiplies.

        Raises:
            ConfigError: the time does not increase, or the shape changes.
        """
        raw = np.asarray(values, np.float64)
        step = _step(self._seconds, seconds)
        if self._values is None:
            self._values, self._speed = np.full(raw.shape, np.nan), np.zeros(raw.shape)
        if raw.shape != self._values.shape:
            raise ConfigError(f"the shape must stay {self._values.shape}, got {raw.shape}; use another filter")
        self._seconds = seconds
        last = np.where(np.isnan(self._values), raw, self._values)
        speed = np.nan_to_num((raw - last) / (step * unit))
        self._speed = self._speed + _alpha(self.d_cutoff, step) * (speed - self._speed)
        alpha = _alpha(self.min_cutoff + self.beta * np.abs(self._speed), step)
        self._values = last + alpha * (raw - last)
        return self._values.copy()

    def state(self) -> dict[str, Any]:
        """What it remembers, for JSON, NaN as None; `restore` takes it."""
        if self._values is None:
            return {"seconds": None, "values": None, "speed": None}
        values = [None if np.isnan(value) else value for value in self._values.ravel().tolist()]
        return {"seconds": self._seconds, "values": values, "speed": self._speed.ravel().tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned, with values of one axis and the same settings."""
        self._seconds = -np.inf if state["seconds"] is None else state["seconds"]
        self._values = None if state["values"] is None else np.array(state["values"], np.float64)
        if self._values is not None:
            self._speed = np.array(state["speed"], np.float64)


@dataclass
class _Past:
    """What is remembered of one track."""

    seconds: float
    places: OneEuroFilter
    probabilities: OneEuroFilter
    outputs: tuple[tuple[str, ...], int] | None = None  # classes, and how many expressions there are


@dataclass
class Smoother:
    """Smooths the readings of a video, track by track, independently of its resolution.

    Standard deviations are not smoothed.

    Attributes:
        min_cutoff: of points and boxes, in hertz, as in `OneEuroFilter`.
        beta: likewise; speeds are in box sides per second.
        emotion_cutoff: `min_cutoff` of the probabilities.
        emotion_beta: `beta` of the probabilities; by default 0, as a frame that is read wrongly changes them as fast as
            a new expression.
        memory: seconds after which a track that is gone starts afresh.
    """

    min_cutoff: float = 1.0
    beta: float = 20.0
    emotion_cutoff: float = 1.0
    emotion_beta: float = 0.0
    memory: float = 0.5
    _past: dict[int, _Past] = field(default_factory=dict, init=False, repr=False)
    _seconds: float = field(default=-np.inf, init=False, repr=False)

    def __call__(self, faces: Sequence[FaceReading], tracks: Sequence[int], seconds: float) -> list[FaceReading]:
        """The faces of one frame, smoothed, in the same order; a new track's face is returned unchanged.

        Args:
            faces: of one frame.
            tracks: the track of each, each once; `emotion_ai.video.tracking.Tracker` returns them.
            seconds: the frame's time; the steps may differ.

        Raises:
            ConfigError: the time does not increase.
        """
        _step(self._seconds, seconds)
        self._seconds = seconds
        self._past = {track: past for track, past in self._past.items() if seconds - past.seconds <= self.memory}
        smoothed = []
        for face, track in zip(faces, tracks, strict=True):
            past = self._past.setdefault(track, self._afresh())
            past.seconds = seconds
            smoothed.append(_smoothed(face, past, seconds))
        return smoothed

    def forget(self) -> None:
        """Starts all tracks afresh, as after a cut."""
        self._past = {}

    def state(self) -> dict[str, Any]:
        """What it remembers, for JSON; `restore` takes it."""
        return {
            "seconds": None if np.isinf(self._seconds) else self._seconds,
            "tracks": [
                {
                    "track": track,
                    "seconds": past.seconds,
                    "places": past.places.state(),
                    "probabilities": past.probabilities.state(),
                    "outputs": None if past.outputs is None else [list(past.outputs[0]), past.outputs[1]],
                }
                for track, past in self._past.items()
            ],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what `state` returned, with the same settings."""
        self._seconds = -np.inf if state["seconds"] is None else state["seconds"]
        self._past = {}
        for saved in state["tracks"]:
            past = self._past[saved["track"]] = self._afresh()
            past.seconds = saved["seconds"]
            past.places.restore(saved["places"])
            past.probabilities.restore(saved["probabilities"])
            past.outputs = None if saved["outputs"] is None else (tuple(saved["outputs"][0]), saved["outputs"][1])

    def _afresh(self) -> _Past:
        places = OneEuroFilter(self.min_cutoff, self.beta)
        return _Past(-np.inf, places, OneEuroFilter(self.emotion_cutoff, self.emotion_beta))


def _smoothed(face: FaceReading, past: _Past, seconds: float) -> FaceReading:
    edge = face.box.size * turned(np.array([1.0, 0.0]), face.box.roll)  # from 179 to -179 degrees it is a small step
    numbers = np.concatenate([[face.box.left, face.box.top], edge, face.points.ravel()])
    numbers = past.places(numbers, seconds, unit=face.box.size)
    size, roll = np.hypot(*numbers[2:4]), np.degrees(np.arctan2(numbers[3], numbers[2]))
    box, points = Box(*map(float, (*numbers[:2], size, roll))), numbers[4:].reshape(-1, 2).astype(np.float32)
    moved = replace(face, keypoints=box.to_crop(points), box=box, points=points, pose=fit_pose(points))
    expressions = face.probabilities[:0] if face.expressions is None else face.expressions
    outputs = (face.classes, len(expressions))
    if past.outputs != outputs:  # a new track, or another version answers
        past.outputs, past.probabilities = outputs, past.probabilities.anew()
    numbers = past.probabilities(np.concatenate([face.probabilities, expressions]), seconds).astype(np.float32)
    probabilities, expressions = np.split(numbers, [len(face.probabilities)])
    return moved.with_probabilities(_shares(probabilities), None if face.expressions is None else _shares(expressions))


def _shares(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values that add up to 1; zeros stay zeros."""
    shares: NDArray[np.float32] = values / np.maximum(values.sum(), np.finfo(np.float32).tiny)
    return shares


def _step(before: float, seconds: float) -> float:
    """Seconds from one frame to the next."""
    if not before < seconds < np.inf:
        raise ConfigError(f"times must increase, got {seconds} s after {before} s")
    return seconds - before


def _alpha(cutoff: float | Floats, step: float) -> float | Floats:
    """Weight of the new value, for a cut-off frequency in hertz and a step in seconds."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
