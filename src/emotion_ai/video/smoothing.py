"""Readings of a video or webcam without jitter, and with little lag."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.vision.crops import Box
from emotion_ai.vision.overlap import iou

Floats = NDArray[np.float64]


class OneEuroFilter:
    """A low-pass filter that smooths what rests and follows what moves: Casiez, Roussel and Vogel 2012, section 3
    (doi:10.1145/2207676.2208639), for each number of an array on its own.

    Args:
        min_cutoff: cut-off frequency at rest, in hertz; a lower one jitters less.
        beta: hertz by which each unit of speed raises it; a higher one lags less.
        d_cutoff: cut-off frequency of the speed, in hertz.

    Raises:
        ConfigError: a frequency that is not positive, or a negative `beta`.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 0.0, d_cutoff: float = 1.0) -> None:
        if not (min_cutoff > 0 and d_cutoff > 0 and beta >= 0):
            raise ConfigError(
                f"min_cutoff={min_cutoff}, beta={beta}, d_cutoff={d_cutoff}: only beta may be 0, none below it"
            )
        self.min_cutoff, self.beta, self.d_cutoff = min_cutoff, beta, d_cutoff
        self._seconds = -np.inf
        self._values: Floats | None = None
        self._speed: Floats

    def __call__(self, values: ArrayLike, seconds: float, unit: float = 1.0) -> Floats:
        """The smoothed values; the first ones, and those after NaN, are as they come.

        Args:
            values: float, of the same shape each time; NaN stays NaN.
            seconds: when they were seen; the steps may differ.
            unit: what counts as 1 for the speed that `beta` multiplies.

        Raises:
            ConfigError: the time does not go on, or the shape changes.
        """
        raw = np.asarray(values, np.float64)
        step = _step(self._seconds, seconds)
        if self._values is None:
            self._values, self._speed = np.full(raw.shape, np.nan), np.zeros(raw.shape)
        if raw.shape != self._values.shape:
            raise ConfigError(f"values of the shape {raw.shape} come after {self._values.shape}; use another filter")
        self._seconds = seconds
        last = np.where(np.isnan(self._values), raw, self._values)
        speed = np.nan_to_num((raw - last) / (step * unit))
        self._speed = self._speed + _alpha(self.d_cutoff, step) * (speed - self._speed)
        alpha = _alpha(self.min_cutoff + self.beta * np.abs(self._speed), step)
        self._values = last + alpha * (raw - last)
        return self._values.copy()


@dataclass
class _Track:
    box: Box  # as it was found: the smoothed one lags
    seconds: float
    places: OneEuroFilter
    probabilities: OneEuroFilter


@dataclass
class Smoother:
    """Smooths the readings of a stream, face by face; the cut-off does not depend on the photographs' resolution.

    A face is that of the frame before whose box overlaps its own most, intersection over union, greedily. Deviations
    stay those of the single photograph.

    Attributes:
        min_cutoff: of points and boxes, in hertz, as in `OneEuroFilter`.
        beta: likewise; its speeds are sizes of the face's box a second.
        emotion_cutoff: `min_cutoff` of the probabilities.
        emotion_beta: their `beta`.
        overlap: below it two boxes are of two faces, 0 to 1.
        memory: seconds after which a face that is gone is forgotten.
    """

    min_cutoff: float = 1.0
    beta: float = 20.0
    emotion_cutoff: float = 1.0
    emotion_beta: float = 1.0
    overlap: float = 0.3
    memory: float = 0.5
    _tracks: list[_Track] = field(default_factory=list, init=False, repr=False)
    _seconds: float = field(default=-np.inf, init=False, repr=False)

    def __call__(self, faces: list[FaceReading], seconds: float) -> list[FaceReading]:
        """The faces of one photograph, in the same order, smoothed; one that was not seen before is as it comes.

        Args:
            faces: of one photograph.
            seconds: when it was taken; the steps may differ.

        Raises:
            ConfigError: the time does not go on.
        """
        _step(self._seconds, seconds)
        self._seconds = seconds
        self._tracks = [track for track in self._tracks if seconds - track.seconds <= self.memory]
        known = self._match(faces)
        smoothed = []
        for i, face in enumerate(faces):
            if i not in known:
                places = OneEuroFilter(self.min_cutoff, self.beta)
                known[i] = _Track(face.box, seconds, places, OneEuroFilter(self.emotion_cutoff, self.emotion_beta))
                self._tracks.append(known[i])
            known[i].box, known[i].seconds = face.box, seconds
            smoothed.append(_smoothed(face, known[i], seconds))
        return smoothed

    def _match(self, faces: list[FaceReading]) -> dict[int, _Track]:
        """Of each face that was there before, by its position."""
        overlaps = np.array([[iou(track.box, face.box) for face in faces] for track in self._tracks])
        known = {}
        while overlaps.size and overlaps.max() >= self.overlap:
            track, face = np.unravel_index(overlaps.argmax(), overlaps.shape)
            known[int(face)] = self._tracks[track]
            overlaps[track], overlaps[:, face] = -1, -1
        return known


def _smoothed(face: FaceReading, track: _Track, seconds: float) -> FaceReading:
    numbers = np.concatenate([[face.box.left, face.box.top, face.box.size], face.points.ravel()])
    numbers = track.places(numbers, seconds, unit=face.box.size)
    box, points = Box(*(float(number) for number in numbers[:3])), numbers[3:].reshape(-1, 2).astype(np.float32)
    probabilities = track.probabilities(face.probabilities, seconds)
    probabilities = (probabilities / probabilities.sum()).astype(np.float32)
    return replace(face, keypoints=box.to_crop(points), probabilities=probabilities, box=box, points=points)


def _step(before: float, seconds: float) -> float:
    """Seconds from one reading to the next."""
    if not before < seconds < np.inf:
        raise ConfigError(f"{seconds} s comes after {before} s; give readings in the order of their times")
    return seconds - before


def _alpha(cutoff: float | Floats, step: float) -> float | Floats:
    """Weight of the new value, for a cut-off frequency in hertz and a step in seconds."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
