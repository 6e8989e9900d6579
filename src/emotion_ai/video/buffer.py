"""Frames on their way from the thread that decodes them to the one that reads them: never more than a few."""

import threading
from collections import deque
from collections.abc import Iterator

from emotion_ai.video.frames import Frame

MAX_FRAMES = 8
MAX_BYTES = 128 * 1024**2


class FrameBuffer:
    """A queue of at most `MAX_FRAMES` frames and `MAX_BYTES`, or of one frame where that is larger.

    Args:
        live: whether the oldest frame is dropped when the buffer is full, rather than the decoder waiting.
    """

    def __init__(self, live: bool) -> None:
        self.live, self.dropped = live, 0
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None

    def put(self, frame: Frame) -> bool:
        """Adds a frame; False once nobody reads any more."""
        with self._changed:
            while self._is_full(frame) and not self._ended:
                if self.live:
                    self._frames.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if not self._ended:
                self._frames.append(frame)
                self._changed.notify_all()
            return not self._ended

    def end(self, error: BaseException | None = None) -> None:
        """No more frames come; a reader gets those that are left, and then the error."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
                self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody reads any more."""
        with self._changed:
            self._ended = True
            self._frames.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._changed:
                while not self._frames and not self._ended:
                    self._changed.wait()
                if not self._frames:
                    if self._error is not None:
                        raise self._error
                    return
                frame = self._frames.popleft()
                self._changed.notify_all()
            yield frame

    def _is_full(self, frame: Frame) -> bool:
        if self.live and self._frames:  # an old frame would only be late
            return len(self._frames) >= 2
        size = sum(held.rgb.nbytes for held in self._frames) + frame.rgb.nbytes
        return bool(self._frames) and (len(self._frames) >= MAX_FRAMES or size > MAX_BYTES)
