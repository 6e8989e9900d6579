"""Seconds of frames since the first one, which always increase."""

import math
import time
from collections.abc import Callable

_STEP = 0.04  # seconds from frame to frame where nothing says it
_NUDGE = 0.001  # seconds after the frame before, for one with nearly the same time
_JUMP = 1.0  # seconds back, from which on the clock was set anew
_LEAP = 43_200.0  # seconds ahead, likewise: that of a transport stream starts anew after 26.5 hours
_ADRIFT = 5.0  # seconds that a stream's clock may differ from the wall's


class Times:
    """Of a file's frames, by its own clock.

    Args:
        fps: of the file, where it says so.
    """

    def __init__(self, fps: float | None) -> None:
        self.step = 1 / fps if fps else _STEP
        self.last = -math.inf
        self._shift: float | None = None

    def __call__(self, time: float | None) -> float:
        """Seconds since the first frame, more than those of the frame before.

        Args:
            time: of the frame by the file's clock; None where it does not say.
        """
        following = self.last + self.step if self.last >= 0 else 0.0
        if time is None or not math.isfinite(time):
            self.last = following
            return self.last
        if self._shift is None:
            self._shift = following - time
        seconds = time + self._shift
        if not self.last - _JUMP < seconds < max(self.last, 0.0) + _LEAP:
            self._shift, seconds = following - time, following
        self.last = max(seconds, self.last + _NUDGE) if self.last >= 0 else 0.0
        return self.last


class WallTimes:
    """Of a live source's frames: by the stream's clock where it runs like the wall's, otherwise by that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.last = -math.inf
        self._clock, self._first = clock, math.nan
        self._shift: float | None = None

    def restart(self) -> None:
        """The stream's clock may have been set anew."""
        self._shift = None

    def __call__(self, time: float | None) -> float:
        """Seconds since the first frame, more than those of the frame before."""
        if math.isnan(self._first):
            self._first = self._clock()
        seconds = passed = self._clock() - self._first
        if time is not None and math.isfinite(time):
            if self._shift is None or abs(time + self._shift - passed) > _ADRIFT:
                self._shift = passed - time
            seconds = time + self._shift
        self.last = max(seconds, self.last + _NUDGE, 0.0)
        return self.last
