"""How `emotion-ai predict` reads photos: one by one, or on a GPU the faces of several together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emotion_ai.errors import ConfigError, MissingExtraError
from emotion_ai.inference.photo_files import PhotoFile
from emotion_ai.inference.pipeline import DetectedFace, detect_faces, read_each
from emotion_ai.inference.results import FaceReading, PhotoReader
from emotion_ai.vision.photo import Photo, load_photo

_TOGETHER = 16  # photos on a GPU, whose time for a face hardly depends on their number
_BATCH_PIXELS = 64_000_000  # of the photos that are held at once
_GIVES_UP = (ConfigError, MissingExtraError)


@dataclass(frozen=True)
class PhotoRead:
    """A photo file with its content, and its faces in the content's pixels, or why it cannot be read."""

    file: PhotoFile
    photo: Photo | None
    found: list[FaceReading] | Exception


def photos_together(reader: PhotoReader) -> int:
    """How many photos a reader reads together: a server and a CPU gain nothing from more than one."""
    placement = getattr(reader, "placement", None)
    return 1 if placement is None or placement.device.type == "cpu" else _TOGETHER


def read_files(files: Iterable[PhotoFile], reader: PhotoReader, together: int = 1) -> Iterator[PhotoRead]:
    """Photos in their order, each read as if it were alone.

    Raises:
        ConfigError, MissingExtraError: no photo can be read.
    """
    if together == 1:
        yield from (_alone(file, reader) for file in files)
        return
    batch, pixels = list[tuple[PhotoFile, Photo | None, list[DetectedFace] | Exception]](), 0
    for file in files:
        batch.append((file, *_detected(file)))
        photo = batch[-1][1]
        pixels += 0 if photo is None else photo.gray.size
        if len(batch) >= together or pixels >= _BATCH_PIXELS:
            yield from _read(batch, reader)
            batch, pixels = [], 0
    yield from _read(batch, reader)


def _alone(file: PhotoFile, reader: PhotoReader) -> PhotoRead:
    photo = None
    try:
        photo = load_photo(file.path)
        return PhotoRead(file, photo, reader.read(photo))
    except _GIVES_UP:
        raise
    except Exception as error:  # whatever a strange picture does to a library, the others are read
        return PhotoRead(file, photo, error)


def _detected(file: PhotoFile) -> tuple[Photo | None, list[DetectedFace] | Exception]:
    photo = None
    try:
        photo = load_photo(file.path)
        return photo, detect_faces(photo)
    except Exception as error:
        return photo, error


def _read(
    batch: list[tuple[PhotoFile, Photo | None, list[DetectedFace] | Exception]], reader: PhotoReader
) -> Iterator[PhotoRead]:
    shown = [(photo.gray, faces) for _, photo, faces in batch if photo is not None and not isinstance(faces, Exception)]
    readings = iter(read_each(shown, reader, _GIVES_UP))
    for file, photo, faces in batch:
        yield PhotoRead(file, photo, faces if isinstance(faces, Exception) else next(readings))
