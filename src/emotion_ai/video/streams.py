"""Cameras and streams: connected again when they are lost, for as long as it takes."""

import os
import sys
from collections.abc import Iterator
from itertools import chain, islice
from threading import Event
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_after_attempt, stop_any, stop_never, stop_when_event_set
from tenacity.wait import wait_exponential

from emotion_ai.client.address import without_login
from emotion_ai.errors import VideoError
from emotion_ai.video.containers import Decoded, Opening, VideoContainer
from emotion_ai.video.decoders import Notify
from emotion_ai.video.selection import Picture
from emotion_ai.video.times import Times, WallTimes

SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps")

ATTEMPTS = 5
"""At a file on a server that is cut off; a live source is tried for ever."""

_BACKOFF = wait_exponential(multiplier=0.5, max=30)  # seconds: 0.5, 1, 2, ... 30
_PUSHED = ("rtsp", "rtsps", "rtmp", "rtmps")  # in real time, whatever they say of their length
_PROTOCOLS = "http,https,httpproxy,crypto,data,rtsp,rtsps,rtp,rtmp,rtmps,srtp,tcp,tls,udp"  # not "file"


class StreamDecoder:
    """A camera, a live stream, or a video file on a server.

    A file on a server is read again from its start when the connection breaks, and goes on where it was.

    Args:
        opening: what to connect to.
        notify: is given a line whenever the connection is lost, tried again, or back.
    """

    def __init__(self, opening: Opening, notify: Notify) -> None:
        self.name, self._opening, self._notify = opening.name, opening, notify
        self.live = True
        self.fps: float | None = None
        self.seconds: float | None = None
        self._broken = 0
        self._container: VideoContainer | None = None

    @property
    def broken(self) -> int:
        return self._broken + (self._container.broken if self._container is not None else 0)

    def open(self) -> None:
        container = self._container = VideoContainer(self._opening)
        self.fps, self.seconds = container.fps, container.seconds
        pushed = self._opening.format is not None or urlsplit(self._opening.url).scheme in _PUSHED
        self.live = pushed or (self.seconds is None and (container.size is None or container.is_playlist))

    def pictures(self, stopped: Event) -> Iterator[Picture]:
        assert self._container is not None
        times = WallTimes() if self.live else Times(self.fps)
        has_clock = not self.live or self._container.has_clock
        number, frames = 0, iter(self._container)
        while True:
            try:
                for decoded in frames:
                    yield Picture(number, times(decoded.time if has_clock else None), decoded.rgb)
                    number += 1
                if self._is_whole(times.last):
                    return
                lost = VideoError(f"{self.name}: the connection broke, or there is none")
            except VideoError as error:
                lost = error
            self._notify(f"{_brief(lost)}; connecting again")
            stopped.wait(_BACKOFF.multiplier)
            frames = self._connected(number, stopped)
            if isinstance(times, WallTimes):
                times.restart()

    def close(self) -> None:
        if self._container is not None:
            self._broken += self._container.broken
            self._container.close()
            self._container = None

    def _is_whole(self, seconds: float) -> bool:
        return not self.live if self.seconds is None else seconds + 1.0 >= self.seconds

    def _connected(self, number: int, stopped: Event) -> Iterator[Decoded]:
        """The frames from a number on, or of a live source the next ones, as soon as there is one.

        Raises:
            VideoError: there is none, after all attempts.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(VideoError),
            wait=_BACKOFF,
            stop=stop_any(stop_when_event_set(stopped), stop_never if self.live else stop_after_attempt(ATTEMPTS)),
            sleep=sleep_using_event(stopped),
            before_sleep=self._say,
            reraise=True,
        )
        frames = retrying(self._connect, 0 if self.live else number)
        self._notify(f"{self.name}: connected again")
        return frames

    def _connect(self, number: int) -> Iterator[Decoded]:
        self.close()
        self._container = VideoContainer(self._opening)
        frames = islice(self._container, number, None)
        for first in frames:
            return chain([first], frames)
        raise VideoError(f"{self.name}: the connection broke before frame {number}; check the server")

    def _say(self, state: RetryCallState) -> None:
        assert state.outcome is not None
        assert state.next_action is not None
        self._notify(f"{_brief(state.outcome.exception())}; connecting again in {state.next_action.sleep:g} s")


def shown(url: str) -> str:
    """A URL for messages: without user and password, and without a query, which may hold a token."""
    return without_login(url.partition("?")[0].partition("#")[0])


def url_opening(url: str, timeout: float) -> Opening:
    """What to connect to for a URL.

    Raises:
        VideoError: of another scheme.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise VideoError(f"{shown(url)}: {scheme}:// is not supported; use {', '.join(SCHEMES)}, or a file's path")
    options = {"protocol_whitelist": _PROTOCOLS, "analyzeduration": "2000000"}  # microseconds before the first frame
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # over UDP lost packets would damage the picture
    return Opening(url, shown(url), options=options, timeout=timeout)


def camera_opening(camera: int | str, timeout: float) -> Opening:
    """What to connect to for a camera: its number, or on Linux its device.

    Raises:
        VideoError: there is no such camera.
    """
    if sys.platform == "darwin":
        return Opening(str(camera), f"camera {camera}", "avfoundation", {"framerate": "30"}, timeout)
    device = f"/dev/video{camera}" if isinstance(camera, int) else camera
    if not os.path.exists(device):
        raise VideoError(f"camera {camera}: there is no {device}; check that it is plugged in, or give another number")
    return Opening(device, f"camera {camera}", "v4l2", timeout=timeout)


def _brief(error: BaseException | None) -> str:
    """What went wrong, without what to do about it."""
    return str(error).rpartition(";")[0] or str(error)
