"""Photos that appear in a folder, read one by one."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from emotion_ai.errors import ClientError, ConfigError, EmotionAIError, ImageError, ServerUnreachableError
from emotion_ai.inference.results import FaceReading
from emotion_ai.inference.tables import PHOTO_COLUMNS, append_csv, face_rows

POLL = 1.0
"""Seconds between two looks at the folder."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def settled(folder: Path, poll: float = POLL) -> Iterator[Path | None]:
    """Yields the photos of a folder, by name, those already there first; None after each look.

    A photo is yielded once its size and time are the same at two looks, and again when it is replaced.
    """
    seen: dict[Path, tuple[int, int]] = {}
    yielded: dict[Path, tuple[int, int]] = {}
    while True:
        before, seen = seen, {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                seen[path] = status.st_size, status.st_mtime_ns
        for path, state in seen.items():
            if before.get(path) == state and yielded.get(path) != state:
                yielded[path] = state
                yield path
        yield None
        time.sleep(poll)


def watch(
    folder: Path,
    read: Callable[[Path], list[FaceReading]],
    show: Callable[[Path, list[FaceReading] | EmotionAIError], None],
    csv: Path | None = None,
    poll: float = POLL,
) -> None:
    """Reads every photo that appears in a folder, until interrupted; photos wait while the server is unreachable.

    Args:
        folder: the folder.
        read: returns the faces of a photo.
        show: called with each photo and its faces, or its error.
        csv: a table to append to, one row per face.
        poll: seconds between two looks at the folder.

    Raises:
        ConfigError: the folder or the table cannot be used.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; --watch needs an existing one")
    waiting: list[Path] = []
    unreachable = False
    for path in settled(folder, poll):
        if path is not None:
            waiting.append(path)
            continue
        while waiting:
            result: list[FaceReading] | EmotionAIError
            try:
                result = read(waiting[0])
            except ServerUnreachableError as error:
                if not unreachable:
                    show(waiting[0], error)
                unreachable = True
                break  # tried again after the next look
            except (ImageError, ClientError) as error:
                result = error
            unreachable = False
            if csv and isinstance(result, list):
                append_csv(csv, face_rows(result, waiting[0]), PHOTO_COLUMNS)
            show(waiting.pop(0), result)
