"""A process that reads one video, so that no video can bring down the page: with limits on memory, files and time."""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from emotion_ai.web.lanes import Span

MAX_SECONDS = 1800.0
"""Longest time that one video is read."""

SILENT_SECONDS = 180.0
"""Longest time without a frame."""

WORKER = (sys.executable, "-m", "emotion_ai.web.video_worker")

_MAX_LINE = 8 * 2**20  # of what the process writes
_NO_RESULT = "This video could not be read: it is damaged, or takes too much memory."


@dataclass(frozen=True)
class VideoTask:
    """How a video is to be read.

    Attributes:
        server: the model server's address.
        version: of the models.
        signature: to read them with.
        every: as for `open_source`; None for every frame.
        uncertain_below: threshold of confidence; None for the version's own.
        clip: whether to draw an annotated clip.
        thumbnails: whether faces are shown in timeline.png.
        log: a folder that gets the answers, or None.
    """

    server: str
    version: int
    signature: str
    every: str | None
    uncertain_below: float | None
    clip: bool
    thumbnails: bool
    log: str | None


@dataclass(frozen=True)
class Progress:
    """A video that is being read.

    Attributes:
        frames: read so far.
        total: to be read, where that is known.
        seconds: position in the video.
        fps: frames read per second.
    """

    frames: int = 0
    total: int | None = None
    seconds: float = 0.0
    fps: float = 0.0


@dataclass(frozen=True)
class VideoResult:
    """What was found in a video.

    Attributes:
        seconds: its length, as far as it was read.
        frames: read.
        version: of the models.
        classes: that they name.
        tracks: what each track shows over time.
        events: as in events.json.
        notes: for the visitor, such as that only a part was read.
    """

    seconds: float
    frames: int
    version: int
    classes: tuple[str, ...]
    tracks: dict[int, list[Span]]
    events: list[dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class Failure:
    """Why a video was not read, as a sentence."""

    text: str


@dataclass
class VideoProcess:
    """Reads one video in a process of its own.

    Attributes:
        command: that reads a video; its arguments are the video and the folder for the results.
    """

    command: tuple[str, ...] = WORKER
    _process: "subprocess.Popen[bytes] | None" = None
    _killed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, file: Path, out: Path, task: VideoTask, show: Callable[[Progress], None]) -> VideoResult | Failure:
        """Reads a video into the folder `out`; `show` gets the progress about twice a second.

        Args:
            file: the video.
            out: folder for the results, beside it.
            task: how.
            show: called in this thread.
        """
        with self._lock:
            if self._killed:
                return Failure("This video was given up.")
            self._process = subprocess.Popen(
                [*self.command, file.name, out.name],  # the table shows the name; nothing shows the folder
                cwd=file.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        process = self._process
        assert process.stdin
        assert process.stdout
        done: VideoResult | Failure | None = None
        try:
            process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
            process.stdin.flush()  # it stays open: the process ends with the page
            for line in _lines(process.stdout):
                message = json.loads(line)
                if "progress" in message:
                    show(Progress(**message["progress"]))
                elif "error" in message:
                    done = Failure(str(message["error"]))
                else:
                    done = _result(message["result"])
        except TimeoutError as error:
            done = Failure(str(error))
        except (OSError, ValueError, KeyError, TypeError):  # it ended early, or what it wrote is damaged
            done = done or Failure(_NO_RESULT)
        finally:
            process.kill()
            process.wait()
            with suppress(OSError):  # what it did not read
                process.stdin.close()
            process.stdout.close()
        return done or Failure(_NO_RESULT)

    def stop(self) -> None:
        """Ends the reading; there are results of what was read so far."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends the process, without results."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines that a process writes.

    Raises:
        TimeoutError: it took too long, or has not written for too long.
        ValueError: a line is too long.
    """
    ends, pending = time.monotonic() + MAX_SECONDS, b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            left = ends - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"This video took longer than {MAX_SECONDS / 60:.0f} minutes; add a shorter part.")
            if not selector.select(min(left, SILENT_SECONDS)):
                if left <= SILENT_SECONDS:
                    continue
                raise TimeoutError(f"Reading this video stood still for {SILENT_SECONDS:.0f} seconds.")
            content = os.read(stream.fileno(), 2**16)
            if not content:
                return
            *lines, pending = (pending + content).split(b"\n")
            yield from lines
            if len(pending) > _MAX_LINE:
                raise ValueError("a line is too long")


def _result(found: dict[str, Any]) -> VideoResult:
    tracks = {int(track): [Span(*span) for span in spans] for track, spans in found["tracks"].items()}
    return VideoResult(**{**found, "tracks": tracks, "classes": tuple(found["classes"])})
