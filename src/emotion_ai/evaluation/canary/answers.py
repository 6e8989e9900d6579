"""Both versions' answers to the same faces, asked in turn so that the machine's noise falls on both."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE, EMOTIONS, FLIP
from emotion_ai.errors import (
    AccessDeniedError,
    RequestRejectedError,
    ServerFailureError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from emotion_ai.evaluation.canary.faces import CanaryFaces
from emotion_ai.inference.results import CropReader, CropReadings

FAILURES = (ServerFailureError, RequestRejectedError, ServerTimeoutError)
"""Errors that count against the canary; others, such as a server that is away or overloaded, end the comparison."""

MAX_FAILURES = 5
"""Failed requests after which no more are sent."""

MIN_TIMED = 60
"""Timed requests to each version; with fewer faces they are sent several times."""

SHIFT = 1 / 48
"""Of a crop's width, by which it is moved right: 2 pixels of the 96x96 crop."""

_BATCH = 32


@dataclass
class Answers:
    """One version's answers to N faces; NaN where a request failed.

    Attributes:
        points: float32 (N, 15, 2), pixels of the 96x96 crop.
        probabilities: float32 (N, 5), or (N, K) from a network of other classes than the five emotions.
        expressions: float32 (N, K), or None from a version without them.
        deviations: float32 (N, 15, 2), or None.
        classes: names of the K classes.
    """

    points: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    expressions: NDArray[np.float32] | None
    deviations: NDArray[np.float32] | None
    classes: tuple[str, ...] = EMOTIONS

    @classmethod
    def joined(cls, parts: Sequence[CropReadings | int]) -> Self:
        """Readings in order; a number stands for so many faces without an answer."""
        known = next(part for part in parts if not isinstance(part, int))

        def join(name: str) -> NDArray[np.float32] | None:
            first = getattr(known, name)
            if first is None:
                return None
            rows = [
                np.full((part, *first.shape[1:]), np.nan, np.float32) if isinstance(part, int) else getattr(part, name)
                for part in parts
            ]
            return None if any(row is None for row in rows) else np.concatenate(rows)

        points, probabilities = join("keypoints"), join("probabilities")
        assert points is not None
        assert probabilities is not None
        return cls(points, probabilities, join("expressions"), join("deviations"), known.classes)


@dataclass
class VersionAnswers:
    """What one version answered.

    Attributes:
        plain: to the faces as they are.
        mirrored: to the mirrored faces, the points mirrored back.
        shifted: to the faces moved right, the points moved back.
        seconds: float64 (M,), of the requests with one face; at least `MIN_TIMED`.
    """

    plain: Answers
    mirrored: Answers
    shifted: Answers
    seconds: NDArray[np.float64]


@dataclass
class BothAnswers:
    """What both versions answered.

    Attributes:
        versions: stable's answers and the canary's; None if the canary failed too often to compare.
        failures: errors of the canary's failed requests.
    """

    versions: tuple[VersionAnswers, VersionAnswers] | None
    failures: list[str] = field(default_factory=list)


def ask_both(
    stable: CropReader, canary: CropReader, faces: CanaryFaces, progress: Callable[[float], None] = lambda share: None
) -> BothAnswers:
    """The answers of both versions.

    Each face is sent alone to both, first to one and then to the other, in alternating order, and timed. Mirrored and
    shifted copies follow in batches.

    Args:
        stable, canary: read crops.
        faces: to send.
        progress: told the share that is done.

    Raises:
        ClientError: stable does not answer, or the server is away.
    """
    readers, failures = (stable, canary), list[str]()
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in faces.crops]
    shifted = [shift(image) for image in faces.crops]
    single = faces.crops * -(-MIN_TIMED // len(faces))
    kinds = [(single, 1), (mirrored, _BATCH), (shifted, _BATCH)]
    total = sum(-(-len(images) // size) for images, size in kinds)
    sent, found, seconds = 0, list[list[Answers]](), ([0.0] * len(single), [0.0] * len(single))
    for reader in readers:  # the first requests open connections
        _read(reader, faces.crops[:1], failures if reader is canary else None)
    for images, size in kinds:
        parts: tuple[list[CropReadings | int], list[CropReadings | int]] = ([], [])
        for i, start in enumerate(range(0, len(images), size)):
            for which in (i % 2, 1 - i % 2):
                began = time.perf_counter()
                parts[which].append(_read(readers[which], images[start : start + size], failures if which else None))
                if size == 1:
                    seconds[which][i] = time.perf_counter() - began
            sent += 1
            progress(sent / total)
            if len(failures) >= MAX_FAILURES:
                return BothAnswers(None, failures)
        if all(isinstance(part, int) for part in parts[1]):
            return BothAnswers(None, failures)
        found.append([Answers.joined(part[: len(faces)]) for part in parts])
    plain, back, moved = found
    for which in (0, 1):
        mirror_back(back[which])
        shift_back(moved[which], faces.crops)
    first, second = (VersionAnswers(plain[w], back[w], moved[w], np.array(seconds[w])) for w in (0, 1))
    return BothAnswers((first, second), failures)


def shift(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop moved right, its left edge repeated."""
    step = _step(image)
    return np.pad(image, ((0, 0), (step, 0)), mode="edge")[:, : image.shape[1]]


def mirror_back(answers: Answers) -> None:
    """Changes the points of mirrored faces into those of the faces as they are."""
    for name in ("points", "deviations"):
        values = getattr(answers, name)
        if values is not None:
            setattr(answers, name, values[:, list(FLIP)].copy())
    answers.points[..., 0] = CROP_SIZE - 1 - answers.points[..., 0]


def shift_back(answers: Answers, crops: Sequence[NDArray[np.uint8]]) -> None:
    """Changes the points of shifted faces into those of the faces as they are."""
    moved = np.array([_step(image) * CROP_SIZE / image.shape[1] for image in crops], np.float32)
    answers.points[..., 0] -= moved[:, None]


def _step(image: NDArray[np.uint8]) -> int:
    return max(1, round(image.shape[1] * SHIFT))


def _read(reader: CropReader, images: Sequence[NDArray[np.uint8]], errors: list[str] | None) -> CropReadings | int:
    """The readings; the number of images if the request fails and failures are listed."""
    try:
        return reader.read_crops(images)
    except FAILURES as error:
        if errors is None or isinstance(error, ServerUnavailableError | AccessDeniedError):
            raise
        errors.append(str(error))
        return len(images)
