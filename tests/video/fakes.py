"""Readings of frames without any picture: whose face shows what, and when."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import av
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


BITS, SIDE = 10, 16


def write_clip(path: Path, count: int, fps: int = 25, after: int = 0) -> Path:
    """A video whose frames show their numbers as squares, black or white; `after` is added to each."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = BITS * SIDE, 2 * SIDE, "yuv420p"
        for number in range(count):
            bits = [(number + after) >> bit & 1 for bit in range(BITS)]
            gray = np.repeat(np.array(bits, np.uint8) * 255, SIDE)
            picture = np.broadcast_to(gray[None, :, None], (2 * SIDE, BITS * SIDE, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        container.mux(stream.encode(None))
    return path


def shown_number(rgb: np.ndarray) -> int:
    """The number that a frame of `write_clip` shows."""
    squares = rgb[SIDE, SIDE // 2 :: SIDE, 0] > 127
    return int(sum(1 << bit for bit in np.flatnonzero(squares)))


def restless(rgb: np.ndarray) -> list[FaceReading]:
    """Reads a frame of `write_clip`: none to two faces that move, with expressions that last for 40 frames."""
    number = shown_number(rgb)
    rng = np.random.default_rng(number)
    if number % 50 >= 45:
        return []
    faces = []
    for place in range(1 + (number // 30) % 2):
        values = probabilities(SEVEN.names[(number // 40 + place) % 5], float(rng.uniform(0.6, 0.95)))
        seen = face(values, left=200.0 * place + number)
        faces.append(replace(seen, keypoints=MEAN + rng.normal(0, 1, MEAN.shape).astype(np.float32)))
    return faces
