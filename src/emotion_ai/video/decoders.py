"""What decodes the frames of a file, a stream, a camera or a folder of frames, in order and in one thread."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import VideoError
from emotion_ai.video.containers import Opening, VideoContainer, file_options
from emotion_ai.video.pixels import MAX_PIXELS, check_size
from emotion_ai.video.selection import Picture
from emotion_ai.video.times import Times
from emotion_ai.vision.photo import load_photo

Notify = Callable[[str], None]


class Decoder(Protocol):
    """Opens a source and decodes its frames.

    Attributes:
        name: for messages; without a password.
        live: whether frames come in real time; final once it is open, as are `fps` and `seconds`.
        fps: frames per second, where the source says so.
        seconds: how long it lasts, likewise.
        broken: packets or pictures so far that could not be decoded.
    """

    name: str
    live: bool
    fps: float | None
    seconds: float | None

    @property
    def broken(self) -> int: ...

    def open(self) -> None: ...

    def pictures(self, stopped: Event) -> Iterator[Picture]:
        """All frames, in order; waiting for one ends once `stopped` is set."""
        ...

    def close(self) -> None: ...


class FileDecoder:
    """A video file."""

    live = False

    def __init__(self, path: Path, notify: Notify) -> None:
        self.name, self._path, self._notify = str(path), path, notify
        self.fps: float | None = None
        self.seconds: float | None = None
        self._container: VideoContainer | None = None
        self._state: tuple[int, int] | None = None

    @property
    def broken(self) -> int:
        return self._container.broken if self._container is not None else 0

    def open(self) -> None:
        self._state = _state(self._path)
        self._container = VideoContainer(Opening(f"file:{self._path}", self.name, options=file_options()))
        self.fps, self.seconds = self._container.fps, self._container.seconds

    def pictures(self, stopped: Event) -> Iterator[Picture]:
        assert self._container is not None
        times, number = Times(self.fps), -1
        for number, decoded in enumerate(self._container):
            yield Picture(number, times(decoded.time), decoded.rgb)
        if number < 0:
            raise VideoError(
                f"{self.name}: no frame can be decoded; use a complete file, of at most {MAX_PIXELS:,} pixels per frame"
            )
        if self.broken:
            self._notify(f"{self.name}: skipped {self.broken} broken packets")
        if self.seconds is not None and times.last + max(1.0, 2 * times.step) < self.seconds:
            self._notify(f"{self.name}: ends after {times.last:.1f} s of {self.seconds:.1f} s; it may be incomplete")
        if _state(self._path) not in (self._state, None):
            self._notify(f"{self.name}: was changed while it was read; read it again once it is complete")

    def close(self) -> None:
        if self._container is not None:
            self._container.close()


class FolderDecoder:
    """A folder of frames.

    Args:
        folder: for messages.
        paths: its pictures, in order.
        fps: their frames per second.
    """

    live = False

    def __init__(self, folder: Path, paths: list[Path], fps: float) -> None:
        self.name, self._paths = str(folder), paths
        self.fps: float | None = fps
        self.seconds: float | None = len(paths) / fps
        self.broken = 0  # pictures are loaded later

    def open(self) -> None: ...

    def pictures(self, stopped: Event) -> Iterator[Picture]:
        assert self.fps
        for number, path in enumerate(self._paths):
            yield Picture(number, number / self.fps, partial(_load, path))

    def close(self) -> None: ...


def _state(path: Path) -> tuple[int, int] | None:
    """The size of a file and when it was changed; None once it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _load(path: Path) -> NDArray[np.uint8]:
    rgb = load_photo(path).rgb
    check_size(rgb.shape[1], rgb.shape[0], str(path))
    return rgb
