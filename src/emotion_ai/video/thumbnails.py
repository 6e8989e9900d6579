"""One small picture of each person of a video, for its timeline."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.inference.results import FaceReading
from emotion_ai.video.frames import FrameReading

SIZE = 96
"""Pixels of a side."""

MAX_TRACKS = 64
"""Tracks that have a picture; of more, those with the largest faces."""

_BETTER = 1.2  # times as good a new picture must be


@dataclass
class Thumbnails:
    """The best face of each track: large, frontal and without a flag."""

    _quality: dict[int, float] = field(default_factory=dict)
    _files: dict[int, bytes] = field(default_factory=dict)

    def add(self, reading: FrameReading) -> None:
        """Keeps the faces of a frame that are better than those before."""
        for face in reading.faces:
            quality = _quality(face.reading)
            if quality > _BETTER * self._quality.get(face.track, 0.0):
                self._quality[face.track] = quality
                self._files[face.track] = _jpeg(reading.rgb, face.reading)
        while len(self._quality) > MAX_TRACKS:
            worst = min(self._quality, key=lambda track: self._quality[track])
            del self._quality[worst], self._files[worst]

    def pictures(self) -> dict[int, NDArray[np.uint8]]:
        """The pictures by track, uint8 (96, 96, 3)."""
        return {track: np.asarray(Image.open(io.BytesIO(content))) for track, content in sorted(self._files.items())}

    def state(self) -> dict[str, list[float | str]]:
        """What `restore` needs, as plain JSON."""
        return {
            str(track): [quality, base64.b64encode(self._files[track]).decode()]
            for track, quality in self._quality.items()
        }

    def restore(self, state: Mapping[str, list[float | str]]) -> None:
        """Goes on with the pictures of this state."""
        self._quality = {int(track): float(quality) for track, (quality, _) in state.items()}
        self._files = {int(track): base64.b64decode(str(content)) for track, (_, content) in state.items()}


def _quality(face: FaceReading) -> float:
    return face.box.size * face.score * (0.5 if face.flags else 1.0)


def _jpeg(rgb: NDArray[np.uint8], face: FaceReading) -> bytes:
    picture = Image.fromarray(rgb).resize((SIZE, SIZE), Image.Resampling.BILINEAR, _area(rgb, face))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return content.getvalue()


def _area(rgb: NDArray[np.uint8], face: FaceReading) -> tuple[float, float, float, float]:
    """A square around the face, moved into the frame, or as much of it as there is."""
    left, top, right, bottom = face.box.bounds()
    height, width = rgb.shape[:2]
    side = min(max(right - left, 1.0), float(width), float(height))
    x = min(max((left + right - side) / 2, 0.0), width - side)
    y = min(max((top + bottom - side) / 2, 0.0), height - side)
    return x, y, x + side, y + side
