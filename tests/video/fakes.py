"""Readings of frames without any picture: whose face shows what, and when."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from emotion_ai.class_set import SEVEN
from emotion_ai.contract import MEAN_FACE
from emotion_ai.inference.results import FaceReading
from emotion_ai.video.frames import FrameReading, TrackedFace
from emotion_ai.vision.crops import Box

MEAN = np.array(MEAN_FACE, np.float32)
BLACK = np.zeros((8, 8, 3), np.uint8)
SURE = 0.9


def probabilities(expression: str, confidence: float = SURE, second: str = "Neutral") -> np.ndarray:
    """Float32 (7,): of one of the seven classes, the rest for another."""
    values = np.zeros(len(SEVEN), np.float32)
    values[SEVEN.names.index(second)] = 1 - confidence
    values[SEVEN.names.index(expression)] = confidence
    return values


def face(expressions: np.ndarray, left: float = 0.0, threshold: float = 0.55) -> FaceReading:
    box = Box(left, 0.0, 96.0)
    five = expressions[:5] / max(float(expressions[:5].sum()), 1e-6)
    return FaceReading(
        MEAN,
        five.astype(np.float32),
        box,
        box.to_photo(MEAN),
        0.9,
        uncertain_below=threshold,
        expressions=expressions,
        classes=SEVEN.names,
    )


def frame(number: int, seconds: float, faces: Mapping[int, FaceReading]) -> FrameReading:
    return FrameReading(number, seconds, tuple(TrackedFace(t, shown, shown) for t, shown in faces.items()), BLACK)


Shown = tuple[float, float, str]
"""From when, until when, and which expression, or "" for no face."""


def frames(
    script: Mapping[int, Sequence[Shown]], seconds: float, fps: float = 25.0, confidence: float = SURE
) -> Iterator[FrameReading]:
    """Readings of a script, with the shown expressions of each track; Neutral in between."""
    for number in range(round(seconds * fps)):
        now = number / fps
        faces = {}
        for track, parts in script.items():
            expression = next((name for start, end, name in parts if start - 1e-9 <= now < end - 1e-9), "Neutral")
            if expression:
                faces[track] = face(probabilities(expression, confidence), left=100.0 * track)
        yield frame(number, now, faces)
