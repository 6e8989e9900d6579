"""Videos that visitors sent: kept in the page's private folder, and read one after the other."""

import hmac
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from emotion_ai.terminal import printable
from emotion_ai.web.store import Store
from emotion_ai.web.video_process import WORKER, Failure, Progress, VideoProcess, VideoResult, VideoTask

MAX_VIDEO_BYTES = 100 * 2**20
"""Of one video."""

MAX_WAITING = 8
"""Videos that are read or wait for that."""

MAX_WAITING_EACH = 2
"""Of those from one address."""

KEPT_SECONDS = 900.0
"""How long a video's results are kept."""

START_SECONDS = 60.0
"""How long a video is kept that no window asks to read."""

_KEPT_BYTES = 2**30  # of all videos and their results
_RESERVE_BYTES = 16 * 2**20  # left free where they are kept
_WORKERS = max(1, (os.cpu_count() or 1) // 2)  # reading takes about two cores

FILES: Mapping[str, str] = {
    "annotated.mp4": "video/mp4",
    "timeline.png": "image/png",
    "rows.csv": "text/csv",
    "events.json": "application/json",
    "summary.json": "application/json",
}
"""The results that can be downloaded, and their media types."""


@dataclass(frozen=True)
class Waiting:
    """A video whose turn has not come; `ahead` are read before it."""

    ahead: int


State = Waiting | Progress | VideoResult | Failure


@dataclass(eq=False)
class Video:
    """A video that a visitor sent; its folder is removed when nobody holds it any more.

    Attributes:
        token: names it; nobody can guess it.
        folder: of the video, and of what is made of it.
        name: the file's, as the visitor had it.
        address: of the visitor.
        window: that reads it; empty until then.
        state: how far it is.
        received: when, by the monotonic clock.
    """

    token: str
    folder: Path
    name: str
    address: str
    window: str = ""
    state: State = Waiting(0)
    received: float = field(default_factory=time.monotonic)
    process: VideoProcess = field(default_factory=VideoProcess)

    def __post_init__(self) -> None:
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    @property
    def file(self) -> Path:
        """The video itself, until it has been read."""
        return self.folder / _safe(self.name)

    @property
    def out(self) -> Path:
        """The folder of its results."""
        return self.folder / "out"

    @property
    def nbytes(self) -> int:
        """Of all its files."""
        size = 0
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # it was replaced
                size += path.lstat().st_size
        return size

    @property
    def is_finished(self) -> bool:
        """Whether nothing more happens to it."""
        return isinstance(self.state, VideoResult | Failure)


@dataclass
class Videos:
    """The last video of each visitor.

    Attributes:
        folder: private; a video is a folder in it.
        command: of the process that reads a video.
    """

    folder: Path
    command: tuple[str, ...] = WORKER
    _kept: Store[Video] = field(default_factory=lambda: Store(_KEPT_BYTES, KEPT_SECONDS))
    _queue: list[Video] = field(default_factory=list)  # those read, then those that wait
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_WORKERS, "video"))

    def has_room(self, size: int) -> bool:
        """Whether a file of `size` bytes can be kept."""
        return shutil.disk_usage(self.folder).free > size + _RESERVE_BYTES

    def receive(self, name: str, address: str) -> Video:
        """A new video, whose file is then written."""
        folder = Path(tempfile.mkdtemp(prefix="video-", dir=self.folder))  # mode 0700
        return Video(secrets.token_urlsafe(24), folder, _shown(name), address, process=VideoProcess(self.command))

    def add(self, visitor: str, video: Video) -> None:
        """Keeps a video that was received in place of the visitor's last one, which is no longer read."""
        self._drop(visitor)
        self._kept.put(visitor, video, video.nbytes, video.address)

    def find(self, visitor: str, token: str) -> Video | None:
        """A visitor's own video; None for every other token."""
        video = self._kept.get(visitor)
        if video is None or not hmac.compare_digest(video.token.encode(), token.encode(errors="replace")):
            return None
        return video

    def start(self, token: str, window: str, task: VideoTask) -> Video | None:
        """Queues a video to be read in a window; None if it is not kept, or was queued before.

        Args:
            token: the video's; the guard has checked whose it is.
            window: that will show its results.
            task: how to read it.
        """
        with self._lock:
            owner, video = next(((o, v) for o, v in self._kept.items() if v.token == token), ("", None))
            if video is None or video.window:
                return None
            video.window = window
            waiting = [other.address for other in self._queue]
            if len(waiting) >= MAX_WAITING or waiting.count(video.address) >= MAX_WAITING_EACH:
                video.state = Failure("The page is reading other videos; add this one again in a few minutes.")
                video.file.unlink(missing_ok=True)
                return video
            self._queue.append(video)
            self._count_ahead()
        self._pool.submit(self._read, owner, video, task)
        return video

    def stop(self, token: str) -> None:
        """Ends the reading of a video; there are results of what was read so far."""
        for _, video in self._kept.items():
            if video.token == token:
                video.process.stop()

    def close_window(self, window: str) -> None:
        """Forgets the video of a window."""
        for owner, video in self._kept.items():
            if window and video.window == window:
                self._drop(owner)

    def drop_expired(self) -> None:
        """Forgets what was kept for long enough; what waits for its turn stays."""
        oldest = time.monotonic() - START_SECONDS
        for owner, video in self._kept.items():
            if isinstance(video.state, Waiting) and video.window:
                self._kept.put(owner, video, video.nbytes, video.address)
            elif not video.window and video.received < oldest:
                self._drop(owner)

    def close(self) -> None:
        """Ends the processes."""
        with self._lock:
            queue, self._queue = self._queue, []
        for video in queue:
            video.process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _drop(self, owner: str) -> None:
        video = self._kept.get(owner)
        self._kept.drop(owner)
        if video is not None:
            video.process.kill()
            with self._lock:
                self._leave_queue(video)

    def _read(self, owner: str, video: Video, task: VideoTask) -> None:
        def show(progress: Progress) -> None:
            video.state = progress
            if self._kept.get(owner) is video:
                self._kept.put(owner, video, video.nbytes, video.address)  # it counts, and stays while it is read
            else:
                video.process.kill()

        done: State = Failure("This video could not be read; add it again.")
        try:
            video.state = Progress()
            done = video.process.run(video.file, video.out, task, show)
        finally:
            video.file.unlink(missing_ok=True)
            with self._lock:
                self._leave_queue(video)
            if self._kept.get(owner) is video:
                self._kept.put(owner, video, video.nbytes, video.address)
            video.state = done  # last, for then its files are served

    def _leave_queue(self, video: Video) -> None:
        self._queue = [other for other in self._queue if other is not video]
        self._count_ahead()

    def _count_ahead(self) -> None:
        for place, video in enumerate(self._queue):
            if isinstance(video.state, Waiting):
                video.state = Waiting(place)


def _shown(name: str) -> str:
    """A file's name for messages."""
    return printable(re.split(r"[\\/]", name)[-1][-100:]) or "video"


def _safe(name: str) -> str:
    """A file's name on the disk: nothing odd in it, and never a number, which would be a camera's."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-64:].lstrip(".-")
    return plain if re.search("[A-Za-z_]", plain) and plain != "out" else f"video-{plain}"
