"""Where frames come from: a video file, a folder of frames, a camera, or a stream; decoded ahead, never far ahead."""

import logging
import math
import os
import stat
import threading
import time
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import Self

from natsort import natsorted, ns

from emotion_ai.errors import ConfigError, ImageError, VideoError
from emotion_ai.video.buffer import FrameBuffer
from emotion_ai.video.decoders import Decoder, FileDecoder, FolderDecoder, Notify
from emotion_ai.video.frames import Frame, FrameSource
from emotion_ai.video.selection import Picture, Selection
from emotion_ai.video.streams import StreamDecoder, camera_opening, url_opening
from emotion_ai.vision.decoding import PICTURE_SUFFIXES

FOLDER_FPS = 25.0
"""Frames per second of a folder of frames, unless it is given."""

TIMEOUT = 10.0
"""Seconds without data after which a stream has stalled."""

_SILENCE = 5.0  # seconds of decoding without a frame to read, after which a line says how long it goes on
_PATIENCE = 0.5  # seconds for the thread to end; one that waits for the network is left behind
_ANIMATED = frozenset((".gif", ".avif"))  # that FFmpeg decodes
_LOGGER = logging.getLogger("emotion_ai")


def open_source(
    spec: str | os.PathLike[str] | int,
    *,
    every: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    limit: int | None = None,
    resume_at: int = 0,
    fps: float = FOLDER_FPS,
    timeout: float = TIMEOUT,
    notify: Notify | None = None,
) -> FrameSource:
    """A source of frames, to be used in a `with` block, which opens it.

    Args:
        spec: the path of a video file or of a folder of frames, which are read in natural order; the number of a
            camera; or the URL of a stream or a file: http(s), rtsp(s), rtmp(s). A folder named 0 is "./0".
        every: reads a frame every so many seconds, "0.5s", or every so many frames, "10"; every frame by default.
        start: seconds since the first frame at which reading begins.
        end: seconds at which it ends; a frame at exactly that time is not read.
        limit: frames that are read at most.
        resume_at: passes over the frames with a lower number, which a run before this one has read; the others have the
            numbers and seconds that they have without. Not for a camera or a live stream.
        fps: frames per second of a folder of frames.
        timeout: seconds without data after which a stream has stalled, and is connected to again.
        notify: is given a line about damage, and when a connection is lost or back; by default it is logged. It is
            called in the thread that decodes.

    Raises:
        ConfigError: an option is not valid.
        VideoError: there is no such file, folder or camera. The `with` block raises it for what cannot be decoded.
    """
    selection = Selection.of(every, start, end, limit)
    if resume_at < 0:
        raise ConfigError(f"`resume_at` must be the number of a frame >= 0, got {resume_at}")
    if not 0 < fps < math.inf:
        raise ConfigError(f"`fps` must be > 0, got {fps:g}")
    if not 0 < timeout < math.inf:
        raise ConfigError(f"`timeout` must be a number of seconds > 0, got {timeout:g}")
    notify = notify or _LOGGER.warning
    return _Source(_decoder(spec, fps, timeout, notify), selection, resume_at, notify)


class _Source:
    """Implements `FrameSource`."""

    def __init__(self, decoder: Decoder, selection: Selection, resume_at: int, notify: Notify) -> None:
        self.name, self.live = decoder.name, decoder.live
        self.fps: float | None = None
        self.frames: int | None = None
        self._decoder, self._selection, self._resume_at, self._notify = decoder, selection, resume_at, notify
        self._unreadable = 0
        self._stopped, self._opened = threading.Event(), threading.Event()
        self._buffer: FrameBuffer | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        return self._buffer.dropped if self._buffer is not None else 0

    @property
    def broken(self) -> int:
        return self._decoder.broken + self._unreadable

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise ConfigError(f"{self.name}: was opened before; open another source")
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"frames of {self.name}")
        self._thread.start()
        try:
            self._opened.wait()  # in the thread, so that Ctrl-C ends the waiting
            if self._error is not None:
                raise self._error
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __iter__(self) -> Iterator[Frame]:
        if self._buffer is None:
            raise ConfigError(f"{self.name}: is not open; use it in a with block")
        yield from islice(self._buffer, self._selection.limit) if self.live else self._buffer

    def _stop(self) -> None:
        self._stopped.set()
        if self._buffer is not None:
            self._buffer.abandon()
        assert self._thread is not None
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        """Opens, decodes, and closes: all in one thread, as a waiting connection cannot be closed from another."""
        try:
            try:
                self._open()
            except BaseException as error:
                self._error = error
                return
            finally:
                self._opened.set()
            assert self._buffer is not None
            try:
                self._decode(self._buffer)
            except BaseException as error:
                self._buffer.end(error)
            else:
                self._buffer.end()
        finally:
            self._decoder.close()

    def _open(self) -> None:
        decoder = self._decoder
        decoder.open()
        if decoder.live and self._resume_at:
            raise ConfigError(f"{self.name}: is live and cannot be resumed; start a new run")
        self.live = decoder.live
        self.fps = self._selection.fps(decoder.fps)
        self.frames = self._selection.frames(decoder.fps, decoder.seconds)
        self._buffer = FrameBuffer(decoder.live)

    def _decode(self, buffer: FrameBuffer) -> None:
        problem: Exception | None = None
        read = 0
        for picture in self._selected():
            read += 1
            if picture.number < self._resume_at:
                continue
            try:
                frame = Frame(picture.number, picture.seconds, picture.rgb())
            except (ImageError, VideoError) as error:
                if problem is None:
                    self._notify(f"{self.name}: frame {picture.number} is passed over: {error}")
                problem, self._unreadable = problem or error, self._unreadable + 1
                continue
            if not buffer.put(frame):
                return
        if problem is not None and read == self._unreadable:
            raise problem
        if not read and not self._stopped.is_set():
            raise VideoError(f"{self.name}: has no frame from {self._selection.start:g} s on; use an earlier start")

    def _selected(self) -> Iterator[Picture]:
        pictures = self._explained(self._decoder.pictures(self._stopped))
        selected = self._selection(takewhile(lambda _: not self._stopped.is_set(), pictures))
        return selected if self.live else islice(selected, self._selection.limit)

    def _explained(self, pictures: Iterator[Picture]) -> Iterator[Picture]:
        """The pictures; says once how long it takes to get to the first one to read, where that is long."""
        started, said = time.monotonic(), False
        for picture in pictures:
            passed = time.monotonic() - started
            if not said and passed > _SILENCE:
                goals = (picture.seconds, self._selection.start), (picture.number, self._resume_at)
                share = min((done / goal for done, goal in goals if goal), default=1.0)
                said = share > 0
                if 0 < share < 1:
                    left = passed / share - passed
                    self._notify(f"{self.name}: passes over what is not read, about {left:.0f} s more")
            yield picture


def _decoder(spec: str | os.PathLike[str] | int, fps: float, timeout: float, notify: Notify) -> Decoder:
    """What decodes the source that a user names.

    Raises:
        VideoError: there is none.
    """
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isascii() and spec.isdigit()):
        return StreamDecoder(camera_opening(int(spec), timeout), notify)
    if isinstance(spec, str) and "://" in spec:
        return StreamDecoder(url_opening(spec, timeout), notify)
    path = Path(spec)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return FolderDecoder(path, _frame_files(path), fps)
        if stat.S_ISCHR(mode) and path.name.startswith("video"):
            return StreamDecoder(camera_opening(str(path), timeout), notify)
        if not stat.S_ISREG(mode):  # a pipe could block for ever
            raise VideoError(f"{path}: is not a regular file; use a video file")
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: is empty (0 bytes); use a video file")
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file or folder; check the path") from error
    except (OSError, ValueError) as error:
        raise VideoError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); check the path"
        ) from error
    if path.suffix.lower() in PICTURE_SUFFIXES - _ANIMATED:
        raise VideoError(
            f"{path}: is a picture; read it with `emotion-ai predict`, give the folder with the frames, or convert an "
            "animation to MP4"
        )
    return FileDecoder(path, notify)


def _frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder, in natural order of their names."""
    paths = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "."]
    if not paths:
        raise VideoError(f"{folder}: no pictures in this folder; give a video file, or a folder with frames")
    return natsorted(sorted(paths), key=lambda path: path.name, alg=ns.PATH)
