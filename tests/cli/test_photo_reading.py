"""`predict` reads the faces of several photos together, and finds in each what it finds when it is alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emotion_ai.cli import photo_reading
from emotion_ai.cli.photo_reading import photos_together, read_files
from emotion_ai.contract import EMOTIONS, MEAN_FACE
from emotion_ai.errors import ConfigError, ImageError, NoFaceError
from emotion_ai.inference import pipeline
from emotion_ai.inference.photo_files import PhotoFile
from emotion_ai.inference.pipeline import DetectedFace, read_photo
from emotion_ai.inference.reader import FaceReader
from emotion_ai.inference.results import CropReadings, Crops, FaceReading
from emotion_ai.models.device import Placement
from emotion_ai.vision.crops import Box
from emotion_ai.vision.photo import Photo, Source


class Reader:
    """Reads a crop's brightness as its probabilities; rejects calls with as many crops as `rejected`."""

    def __init__(self, rejected: int = 0, error: type[Exception] = RuntimeError) -> None:
        self.rejected, self.error = rejected, error
        self.calls: list[int] = []

    def class_names(self) -> tuple[str, ...]:
        return EMOTIONS

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        return read_photo(photo, self)

    def read_crops(self, images: Crops) -> CropReadings:
        self.calls.append(len(images))
        if len(images) == self.rejected:
            raise self.error("too many")
        brightness = np.array([image.mean() / 255 for image in images], np.float32)
        points = np.repeat(np.array(MEAN_FACE, np.float32)[None], len(images), 0)
        return CropReadings(points, np.tile(brightness[:, None], (1, len(EMOTIONS))).astype(np.float32))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[PhotoFile]:
    """Six photos: the second without a face, the third damaged, the sixth with two faces."""

    def detect(photo: Photo) -> list[DetectedFace]:
        if not photo.gray.any():
            raise NoFaceError(f"{photo.name}: no face found; use a photo with a clear face")
        return [DetectedFace(Box(2.0, 2.0, 24.0), 0.9)] * (2 if photo.gray.max() == 250 else 1)

    monkeypatch.setattr(photo_reading, "detect_faces", detect)
    monkeypatch.setattr(pipeline, "detect_faces", detect)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, level in zip(paths, (40, 0, 0, 90, 160, 250), strict=True):
        Image.fromarray(np.full((32, 32), level, np.uint8)).save(path)
    paths[2].write_bytes(b"no picture")
    return [PhotoFile(path, Path(path.name)) for path in paths]


@pytest.mark.parametrize(("together", "faces"), [(2, 3), (4, 3), (16, 5)])
def test_photos_read_together_have_the_faces_that_they_have_alone(
    files: list[PhotoFile], together: int, faces: int
) -> None:
    reader = Reader()
    alone, found = list(read_files(files, reader)), list(read_files(files, reader, together))
    assert [read.file for read in found] == files
    assert [type(read.found) for read in found] == [list, NoFaceError, ImageError, list, list, list]
    for one, other in zip(alone, found, strict=True):
        if isinstance(one.found, Exception) or isinstance(other.found, Exception):
            assert str(one.found) == str(other.found)
            continue
        assert [face.as_dict() for face in one.found] == [face.as_dict() for face in other.found]
    assert max(reader.calls) == faces, "of all photos of a batch"


def test_a_batch_that_is_rejected_is_read_one_by_one(files: list[PhotoFile]) -> None:
    assert sum(isinstance(read.found, list) for read in read_files(files, Reader(5), 16)) == 4
    with pytest.raises(ConfigError, match="too many"):
        list(read_files(files, Reader(5, ConfigError), 16))


def test_photos_are_read_as_soon_as_a_batch_is_full(files: list[PhotoFile]) -> None:
    """So few are held at once, and rows are appended as the run goes."""
    taken: list[int] = []

    def listed() -> Any:
        for number, file in enumerate(files):
            taken.append(number)
            yield file

    found = read_files(listed(), Reader(), 2)
    next(found)
    assert taken == [0, 1]


def test_a_gpu_reads_several_together_and_a_cpu_or_a_server_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = FaceReader.bundled(device="cpu")
    assert photos_together(reader) == photos_together(Reader()) == 1
    monkeypatch.setattr(FaceReader, "placement", Placement(torch.device("cuda")))
    assert photos_together(reader) > 1
