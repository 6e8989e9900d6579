"""`AnswerLog`: what readers return, appended to a folder of Parquet files. Needs the extra [record].

A request only puts its answer into a queue; a thread writes. Each log of each process has a file of its own, so any
number of them can share a folder. About once a second that file is replaced, as a whole, by a longer one, until it has
`PART_ROWS` rows and the next file begins. A killed process loses what it has not written since.
"""

import logging
import os
import secrets
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from emotion_ai.errors import ConfigError
from emotion_ai.extras import optional_imports
from emotion_ai.inference.answer_rows import (
    SCHEMA,
    Answer,
    FaceAnswers,
    Origin,
    crop_files,
    failure,
    source_name,
    thinned,
    to_table,
    without_images,
    write_rows,
)
from emotion_ai.inference.results import CropReadings, Crops, FaceReading, PhotoReader
from emotion_ai.vision.photo import Photo, Source, encode_png

with optional_imports():
    import pyarrow as pa

CAPACITY = 10_000
"""Faces that wait to be written; more are dropped and counted."""

MEASURED = 50
"""Crops whose quality is measured for each write, so that a busy client spends no more than 1 % of its time on it."""

MAX_IMAGE_BYTES = 64 * 2**20
"""Pixels that wait to be measured."""

PART_ROWS = 5_000
"""Rows of a finished file."""

_SHARE_OF_TIME = 0.005  # that writing may take; larger files are written less often
_CLOSING_SECONDS = 10.0
_ABANDONED_SECONDS = 3600.0
_LOGGER = logging.getLogger("emotion_ai")

VersionLookup = Callable[[], int | None]
"""Returns the version that answers now; raises, or None, if it is not known."""


class AnswerLog:
    """Appends answers to the Parquet files of a folder; never waits for them.

    Nothing that happens to the folder or the disk reaches a request. The first failure to write is a warning of the
    logger "emotion_ai"; rows are kept for the next attempt, and beyond `CAPACITY` they are dropped and counted.

    A context manager, and safe to share between threads. Answers are on the disk after `flush` or `close`, otherwise
    about a second later; the end of the process closes the log. Files may be moved away at any time: the log begins a
    new one.

    Args:
        folder: is created; it may hold the files of other logs.
        crops: keep the pixels of every crop, as PNG files.
        seconds: between two writes.

    Raises:
        ConfigError: the folder cannot be written to.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], *, crops: bool = False, seconds: float = 1.0) -> None:
        self.folder, self.crops = Path(folder), crops
        _prepare(self.folder)
        self._writer = _Writer(self.folder, seconds)
        self._close = weakref.finalize(self, self._writer.close)  # runs when the process ends, too

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder, self.crops, self._writer.seconds)

    @property
    def dropped(self) -> int:
        """Rows that are lost: too many waited, or they could not be written before `close`."""
        return self._writer.dropped

    def request(self, origin: Origin, lookup: VersionLookup | None = None) -> "LoggedRequest":
        """Times a request, as a context manager; see there."""
        return LoggedRequest(self, origin, lookup)

    def of(self, reader: PhotoReader) -> "LoggedReader":
        """A reader whose answers are logged here; `FaceClient` takes the log itself."""
        return LoggedReader(reader, self)

    def read(
        self,
        read: Callable[[], list[FaceReading]],
        *,
        version: int | None = None,
        label: str | None = None,
        photo: Source | Photo | None = None,
    ) -> list[FaceReading]:
        """The faces that `read` returns for a photo, logged; crops are kept of a photo that is given."""
        with self.request(Origin("face", version, label, source_name(photo))) as request:
            faces = read()
            kept = crop_files(faces, photo) if self.crops and photo is not None else None
            request.faces = FaceAnswers.of_photo(faces, kept)
        return faces

    def add(self, answer: Answer, lookup: VersionLookup | None = None) -> None:
        """Queues an answer; `lookup` finds out the version if its origin names none."""
        self._writer.add(answer, lookup)

    def flush(self) -> None:
        """Writes what was added so far."""
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left and ends the thread; later answers are dropped."""
        self._close()


class LoggedRequest:
    """Logs a request: its time, its latency, and either the `faces` set in its block or the exception of the block.

    A block that sets no faces is logged as a photo without a face.
    """

    def __init__(self, log: AnswerLog, origin: Origin, lookup: VersionLookup | None) -> None:
        self._log, self._origin, self._lookup = log, origin, lookup
        self.faces: FaceAnswers | None = None

    def __enter__(self) -> Self:
        self._started, self._clock = time.time(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        latency = time.perf_counter() - self._clock
        if error is None:
            answer = Answer(self._origin, self._started, latency, faces=self.faces)
        elif isinstance(error, Exception):  # not an interrupt
            answer = Answer(self._origin, self._started, latency, error=failure(error))
        else:
            return
        self._log.add(answer, self._lookup)


@dataclass(frozen=True)
class LoggedReader:
    """A `PhotoReader` that logs what another one returns."""

    reader: PhotoReader
    log: AnswerLog

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of `expressions`."""
        return self.reader.class_names()

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        """The faces of a photo, from left to right."""
        return self.log.read(lambda: self.reader.read(photo), photo=photo)

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints and probabilities of crops, in their order."""
        with self.log.request(Origin("face")) as request:
            readings = self.reader.read_crops(images)
            files = [encode_png(image) for image in images] if self.log.crops else None
            request.faces = FaceAnswers.of_crops(readings, list(images), files)
        return readings


@dataclass
class _Part:
    """A file that grows: its rows, and how many of them it has on the disk."""

    path: Path
    rows: pa.Table = field(default_factory=SCHEMA.empty_table)
    written: int = 0

    @classmethod
    def new(cls, folder: Path) -> Self:
        return cls(folder / f"answers-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.parquet")


class _Writer:
    """The queue of a log, and the thread that empties it; separate from the log, which is closed when it is deleted."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self.seconds = folder, seconds
        self._warned = False
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._queue_lock, self._write_lock, self._wake = threading.Lock(), threading.Lock(), threading.Event()
        self._queue: list[tuple[Answer, VersionLookup | None]] = []
        self._waiting = self._image_bytes = self.dropped = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._versions: dict[VersionLookup, int | None] = {}
        self._pause = self.seconds
        self._part = _Part.new(self._folder)

    def add(self, answer: Answer, lookup: VersionLookup | None) -> None:
        if self._process != os.getpid():
            self._reset()  # the thread and what it writes stayed in the other process
        count = len(answer)
        with self._queue_lock:
            if self._closed or self._waiting + count > CAPACITY:
                self.dropped += count
                return
            size = sum(image.nbytes for image in answer.faces.images or () if image is not None) if answer.faces else 0
            if self._image_bytes + size > MAX_IMAGE_BYTES:
                answer, size = without_images(answer), 0
            self._queue.append((answer, lookup))
            self._waiting += count
            self._image_bytes += size
            if self._thread is None:
                self._start()
            if self._waiting > CAPACITY / 2:
                self._wake.set()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="answer log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # while the interpreter shuts down; `close` writes
            return
        self._thread = thread

    def _run(self) -> None:
        while not self._closed:
            self.flush()
            self._wake.wait(self._pause)
            self._wake.clear()
        self.flush()

    def flush(self) -> None:
        """Writes what waits; an error is a warning."""
        if self._process != os.getpid():
            return
        with self._write_lock:
            started = time.perf_counter()
            with self._queue_lock:
                queue, self._queue, lost = self._queue, [], self._waiting
                self._waiting = self._image_bytes = 0
            try:
                self._part = self._current_part()
                rows = to_table(thinned(self._with_versions(queue), MEASURED))
                lost = 0
                self._keep(rows)
                self._write()
            except Exception as error:  # whatever it is, requests go on
                self.dropped += lost
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                self._warn(f"answers are not logged at present ({reason})")
            self._pause = max(self.seconds, (time.perf_counter() - started) / _SHARE_OF_TIME)

    def close(self) -> None:
        if self._process != os.getpid():
            return
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is threading.current_thread():  # the log was deleted while this thread collected garbage
            return
        if thread is not None:
            thread.join(_CLOSING_SECONDS)
        if thread is None or not thread.is_alive():
            self.flush()
        self.dropped += self._part.rows.num_rows - self._part.written + self._waiting
        if self.dropped:
            self._warn(f"{self.dropped} rows were not logged")

    def _with_versions(self, queue: list[tuple[Answer, VersionLookup | None]]) -> list[Answer]:
        """The answers, with the version that their server had before and after them; without one if it changed."""
        found: dict[VersionLookup, int | None] = {}
        for lookup in {lookup for answer, lookup in queue if lookup and answer.origin.version is None}:
            try:
                found[lookup] = lookup()
            except Exception:  # the server is away
                found[lookup] = None
        same = {lookup: now if self._versions.get(lookup, now) == now else None for lookup, now in found.items()}
        self._versions = found
        return [answer.by_version(same[lookup]) if lookup in same else answer for answer, lookup in queue]

    def _current_part(self) -> _Part:
        """The file that grows; a new one if that is full, or was moved away."""
        part = self._part
        if not part.written:
            return part
        if part.path.exists():
            return _Part.new(self._folder) if part.written >= PART_ROWS else part
        if not self._folder.exists():
            self._warn("the folder was removed; a new one is written")
        rest = _Part.new(self._folder)
        rest.rows = part.rows.slice(part.written)
        return rest

    def _keep(self, rows: pa.Table) -> None:
        part = self._part
        free = max(CAPACITY - (part.rows.num_rows - part.written), 0)
        self.dropped += max(rows.num_rows - free, 0)
        part.rows = pa.concat_tables([part.rows, rows.slice(0, free)]).combine_chunks()

    def _write(self) -> None:
        part = self._part
        if part.rows.num_rows == part.written:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        write_rows(part.rows, part.path, sync=part.rows.num_rows >= PART_ROWS)
        part.written = part.rows.num_rows

    def _warn(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            _LOGGER.warning("%s: %s", self._folder, problem)


def _prepare(folder: Path) -> None:
    """Creates a folder if it is missing, and deletes files that a killed process began long ago.

    Raises:
        ConfigError: it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for partial in folder.glob(".answers-*.partial"):
            if partial.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: answers cannot be logged there ({error.strerror}); choose another folder"
        ) from error


def _reopened(folder: Path, crops: bool, seconds: float) -> AnswerLog:
    return AnswerLog(folder, crops=crops, seconds=seconds)
