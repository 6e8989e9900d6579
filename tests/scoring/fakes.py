"""Sources of pictures, and a quick reader that runs in Ray's workers as well."""

import io
import os
import signal
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emotion_ai.class_set import SEVEN
from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import EmotionAIError, NoFaceError, ServerUnreachableError
from emotion_ai.inference.pipeline import DetectedFace
from emotion_ai.inference.results import CropReadings, Crops, FaceReading
from emotion_ai.scoring import part_reader
from emotion_ai.vision.crops import Box
from emotion_ai.vision.photo import Photo, Source


class QuickReader:
    """Reads the brightness of a crop as the place of its keypoints; pictures of one colour have one face.

    Args:
        seconds: that a crop takes.
        down: whether it is a server that is away.
        deadly: level of the pictures that kill the process.
    """

    def __init__(self, seconds: float = 0.0, down: bool = False, deadly: int | None = None) -> None:
        self._seconds, self._down, self._deadly = seconds, down, deadly
        self.batches: list[int] = []

    def class_names(self) -> tuple[str, ...]:
        return SEVEN.names

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        raise NotImplementedError

    def read_crops(self, images: Crops) -> CropReadings:
        if self._down:
            raise ServerUnreachableError("http://127.0.0.1:1: no server answers; start it")
        if any(image.max() == self._deadly for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches.append(len(images))
        time.sleep(self._seconds * len(images))
        brightness = np.array([image.mean() for image in images], np.float32) / 255
        points = np.full((len(images), 15, 2), 48, np.float32)
        expressions = np.tile(brightness[:, None] / 7, (1, len(SEVEN.names))).astype(np.float32)
        return CropReadings(
            points, expressions[:, : len(EMOTIONS)], np.ones_like(points), expressions, classes=SEVEN.names
        )


def one_face(photo: Photo) -> list[DetectedFace]:
    """A face in every picture that is not black."""
    if not photo.gray.any():
        raise NoFaceError(f"{photo.name}: no face found; use a photo with a clear face")
    return [DetectedFace(Box(2.0, 2.0, 24.0), 0.9)]


@dataclass(frozen=True)
class QuickSource:
    """What the workers read with; `name` tells it from another model."""

    name: str = "quick"
    seconds: float = 0.0
    down: bool = False
    deadly: int | None = None
    gives_up: tuple[type[EmotionAIError], ...] = (ServerUnreachableError,)

    def open(self) -> QuickReader:
        vars(part_reader)["detect_faces"] = one_face
        return QuickReader(self.seconds, self.down, self.deadly)

    def identity(self) -> Mapping[str, Any]:
        return {"name": self.name}


def picture(level: int) -> bytes:
    """A small picture of one colour."""
    stream = io.BytesIO()
    Image.new("L", (32, 32), level).save(stream, "PNG")
    return stream.getvalue()


def write_pictures(folder: Path, count: int) -> Path:
    """Pictures 0.png, 1.png, ...; every hundredth, from the 7th on, is none, and from the 8th on has no face."""
    folder.mkdir(parents=True)
    files = [picture(1 + level) for level in range(250)]
    for i in range(count):
        content = b"no picture" if i % 100 == 7 else picture(0) if i % 100 == 8 else files[i % 250]
        (folder / f"{i}.png").write_bytes(content)
    return folder


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    """A tar file."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
