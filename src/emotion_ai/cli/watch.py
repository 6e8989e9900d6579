"""Photos that appear in a folder, read one by one."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from natsort import natsorted

from emotion_ai.cli.patience import NO_ANSWERS
from emotion_ai.cli.photo_results import Result, show_error
from emotion_ai.errors import (
    ConfigError,
    EmotionAIError,
    ImageError,
    MissingExtraError,
    NoFaceError,
    ServerTimeoutError,
)
from emotion_ai.inference.photo_files import ANNOTATED, is_photo_name
from emotion_ai.inference.photo_table import PhotoTable
from emotion_ai.inference.results import FaceReading
from emotion_ai.terminal import Console, print_error, printable

POLL = 1.0
"""Seconds between two looks at the folder."""

ATTEMPTS = 3
"""How often a picture that cannot be read is tried, one look apart; it may still be on its way into the folder."""

_State = tuple[int, int, int]


@dataclass(frozen=True)
class Watched:
    """A folder to watch.

    Attributes:
        folder: the folder, without those in it.
        out: folder of annotated photos; those are not read.
        table: to append to; photos that it has are not read again, unless they were changed.
        poll: seconds between two looks.
    """

    folder: Path
    out: Path | None = None
    table: PhotoTable | None = None
    poll: float = POLL


def settled(watched: Watched) -> Iterator[Path | None]:
    """Yields the photos of a folder, by name, those already there first; None after each look.

    A photo is yielded once its size and time are the same at two looks, and again when it is replaced. A folder that
    is removed is waited for.
    """
    seen: dict[Path, _State] = {}
    yielded: dict[Path, _State] = {}
    gone = False
    while True:
        before, seen = seen, {}
        try:
            seen = _look(watched)
            gone = False
        except OSError as error:
            if not gone:
                print_error(printable(f"{watched.folder}: cannot be listed ({error.strerror}); waiting for it"))
            gone = True
        for path, state in seen.items():
            if before.get(path) != state or yielded.get(path) == state:
                continue
            known = path not in yielded and watched.table is not None and watched.table.outcome(path)
            yielded[path] = state
            if known not in ("faces", "no face"):
                yield path
        yield None
        time.sleep(watched.poll)


def watch(watched: Watched, read: Callable[[Path], list[FaceReading]], show: Callable[[Path, Result], None]) -> None:
    """Reads every photo that appears in a folder, until interrupted.

    Photos wait while the server is away, for as long as that takes. A photo whose picture cannot be read is tried
    `ATTEMPTS` times.

    Args:
        watched: the folder.
        read: returns the faces of a photo.
        show: called with each photo and its faces, or its error.

    Raises:
        ConfigError: the folder or the table cannot be used.
    """
    if not watched.folder.is_dir():
        raise ConfigError(f"{watched.folder}: no such folder; --watch needs an existing one")
    waiting = _Waiting(watched, read, show)
    for path in settled(watched):
        if path is None:
            waiting.read()
        else:
            waiting.add(path)


@dataclass
class _Waiting:
    watched: Watched
    read_photo: Callable[[Path], list[FaceReading]]
    show: Callable[[Path, Result], None]
    attempts: dict[Path, int] = field(default_factory=dict)  # in the order of reading
    kept: set[Path] = field(default_factory=set)
    away: bool = False

    def add(self, path: Path) -> None:
        self.attempts[path] = 0

    def read(self) -> None:
        """Reads what waits, each photo once, until the server is away."""
        for path in list(self.attempts):
            try:
                result: Result = self.read_photo(path)
            except NO_ANSWERS as error:
                if not self.away:
                    show_error(Console(stderr=True), path, f"{error}; photos wait until the server is back")
                self.away = True
                if isinstance(error, ServerTimeoutError):  # perhaps this photo's fault; another one goes first
                    self.attempts[path] = self.attempts.pop(path)
                return
            except (ConfigError, MissingExtraError):
                raise
            except NoFaceError as error:
                result = error
            except EmotionAIError as error:
                result = error
            except Exception as error:  # whatever a strange picture does to a library
                result = ImageError(f"{path}: cannot be read ({type(error).__name__}: {error}); use another picture")
            self.away &= isinstance(result, ImageError)
            self.attempts[path] += 1
            if isinstance(result, list | NoFaceError) or self.attempts[path] >= ATTEMPTS:
                del self.attempts[path]
                self._keep(path, result)

    def _keep(self, path: Path, result: Result) -> None:
        if (table := self.watched.table) is not None:
            if path not in self.kept:  # rows of an earlier run, or of a failed attempt
                table.drop([path])
            no_face = isinstance(result, NoFaceError)
            table.append(path, result if isinstance(result, list) else [] if no_face else str(result))
        if not isinstance(result, EmotionAIError):
            self.kept.add(path)
        self.show(path, result)


def _look(watched: Watched) -> dict[Path, _State]:
    """The photos in a folder, by name, with their size, time and inode."""
    found = {}
    out_is_here = watched.out is not None and watched.out.resolve() == watched.folder.resolve()
    with os.scandir(watched.folder) as entries:
        listed = natsorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if not is_photo_name(entry.name) or (out_is_here and entry.name.endswith(ANNOTATED)):
            continue
        try:
            status = entry.stat()
        except OSError:  # gone meanwhile, or a link that leads nowhere
            continue
        if stat.S_ISREG(status.st_mode):
            found[watched.folder / entry.name] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found
