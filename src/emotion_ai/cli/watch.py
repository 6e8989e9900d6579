"""Photographs that appear in a folder, read one by one."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from emotion_ai.errors import ClientError, ConfigError, EmotionAIError, ImageError, ServerUnreachableError
from emotion_ai.inference.results import FaceReading
from emotion_ai.inference.tables import PHOTO_COLUMNS, append_csv, face_rows

POLL = 1.0
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

Read = Callable[[Path], list[FaceReading]]


def settled(folder: Path, poll: float = POLL) -> Iterator[Path | None]:
    """Photographs of a folder, by name, those already there first; None after each look.

    One that is still being written is waited for: it must look the same at two looks. One that is replaced comes again.
    """
    seen: dict[Path, tuple[int, int]] = {}
    given: dict[Path, tuple[int, int]] = {}
    while True:
        before, seen = seen, {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                seen[path] = status.st_size, status.st_mtime_ns
        for path, look in seen.items():
            if before.get(path) == look and given.get(path) != look:
                given[path] = look
                yield path
        yield None
        time.sleep(poll)


def watch(
    folder: Path,
    read: Read,
    show: Callable[[Path, list[FaceReading] | EmotionAIError], None],
    csv: Path | None = None,
    poll: float = POLL,
) -> None:
    """Reads every photograph that comes into a folder, until it is interrupted.

    While no server answers, photographs wait; nothing is lost.

    Args:
        folder: is looked at every `poll` seconds.
        read: gives a photograph's faces.
        show: is told each answer.
        csv: rows are added to it, one for each face.

    Raises:
        ConfigError: the folder or the table cannot be used.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give one that photographs come into")
    waiting: list[Path] = []
    unreachable = False
    for path in settled(folder, poll):
        if path is not None:
            waiting.append(path)
            continue
        while waiting:
            answer: list[FaceReading] | EmotionAIError
            try:
                answer = read(waiting[0])
            except ServerUnreachableError as error:
                if not unreachable:
                    show(waiting[0], error)
                unreachable = True
                break  # asked again after the next look
            except (ImageError, ClientError) as error:
                answer = error
            unreachable = False
            if csv and isinstance(answer, list):
                append_csv(csv, face_rows(answer, waiting[0]), PHOTO_COLUMNS)
            show(waiting.pop(0), answer)
