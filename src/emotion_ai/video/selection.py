"""Which frames of a source are read: every so many frames or seconds, from a start to an end, at most so many."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import ConfigError

_EVERY = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>s?)")
_CLOSE = 1e-6  # seconds by which times may be rounded


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded frame that has not been converted yet.

    Attributes:
        number: from 0, counted as the source has them.
        seconds: since the source's first frame.
        rgb: makes the pixels, uint8 (H, W, 3), upright.
    """

    number: int
    seconds: float
    rgb: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Selection:
    """Which frames are read.

    Attributes:
        step: every so many frames.
        interval: or every so many seconds; 0 means every frame.
        start: seconds since the first frame, from which frames are read.
        end: seconds at which reading ends; a frame at exactly that time is not read.
        limit: frames that are read at most.
    """

    step: int = 1
    interval: float = 0.0
    start: float = 0.0
    end: float | None = None
    limit: int | None = None

    @classmethod
    def of(cls, every: str | None, start: float, end: float | None, limit: int | None) -> "Selection":
        """The selection that options name.

        Raises:
            ConfigError: an option is not valid.
        """
        if not 0 <= start < math.inf:
            raise ConfigError(f"`start` must be a number of seconds >= 0, got {start:g}")
        if end is not None and not start < end < math.inf:
            raise ConfigError(f"`end` must be a number of seconds > `start` ({start:g}), got {end:g}")
        if limit is not None and limit < 1:
            raise ConfigError(f"`limit` must be a number of frames >= 1, got {limit}")
        step, interval = _step(every)
        return cls(step, interval, start, end, limit)

    def __call__(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """The selected ones, without regard to `limit`."""
        first, due = None, 0
        for picture in pictures:
            if self.end is not None and picture.seconds >= self.end - _CLOSE:
                return
            if picture.seconds < self.start - _CLOSE:
                continue
            if first is None:
                first = picture.number
            if (picture.number - first) % self.step:
                continue
            if self.interval:
                passed = math.floor((picture.seconds - self.start + _CLOSE) / self.interval)
                if passed < due:
                    continue
                due = passed + 1
            yield picture

    def fps(self, fps: float | None) -> float | None:
        """Frames per second that are read of a source with so many."""
        if fps is None:
            return None
        return min(fps / self.step, 1 / self.interval if self.interval else math.inf)

    def frames(self, fps: float | None, seconds: float | None) -> int | None:
        """About how many frames are read of a source with so many per second that lasts so long."""
        rate, ends = self.fps(fps), [bound for bound in (self.end, seconds) if bound is not None]
        if rate is None or not ends:
            return self.limit
        count = math.ceil(max(min(ends) - self.start, 0.0) * rate - _CLOSE)
        return count if self.limit is None else min(count, self.limit)


def _step(every: str | None) -> tuple[int, float]:
    """Frames and seconds from "10" or "0.5s"."""
    if every is None:
        return 1, 0.0
    found = _EVERY.fullmatch(every.strip())
    number = float(found["number"]) if found else 0.0
    if found and number > 0 and found["unit"]:
        return 1, number
    if found and number >= 1 and number.is_integer():
        return int(number), 0.0
    raise ConfigError(f"`every` must be seconds, such as 0.5s, or a number of frames, such as 10; got {every!r}")
