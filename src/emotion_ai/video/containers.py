"""Video that PyAV decodes: one connection to a file, a camera or a stream, frame by frame, upright and in RGB."""

import errno
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import VideoError
from emotion_ai.extras import load
from emotion_ai.video.pixels import MAX_PIXELS, Converter, check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

MAX_STREAMS = 100
MAX_FPS = 1000.0

_MAX_DAMAGE = 1000  # errors in a row of the file's structure, after which the rest is given up
_PATIENCE = 3  # time-outs without a frame, though data come, after which a stream is lost
_WITHOUT_CLOCK = {"mpjpeg", "mjpeg", "mjpeg_2000", "h264", "hevc", "m4v", "mpegvideo"}
_NO_VIDEO = {"tty", "bin", "xbin", "adf", "idf", "image2", "image2pipe", "lavfi"}  # text as video; patterns of names
_OPEN_OTHERS = {"hls", "applehttp", "dash", "concat", "imf", "rtsp", "rtp", "sap", "sdp", "webm_dash_manifest"}
_CAMERA_ADVICE = {
    errno.EBUSY: "close the program that uses it",
    errno.EACCES: "add your user to its group, often `video`",
}


@dataclass(frozen=True)
class Opening:
    """What PyAV opens.

    Attributes:
        url: a path with "file:" before it, a URL, or a device.
        name: for messages, without a password.
        format: of a device.
        options: for FFmpeg.
        timeout: seconds without data after which reading fails; None waits.
    """

    url: str
    name: str
    format: str | None = None
    options: Mapping[str, str] | None = None
    timeout: float | None = None


@dataclass(frozen=True, eq=False)
class Decoded:
    """A frame as it was decoded.

    Attributes:
        frame: PyAV's.
        time: seconds, by the file's or the stream's clock; None where it does not say.
        converter: of the video.
        aspect: width of a pixel by its height.
    """

    frame: "VideoFrame"
    time: float | None
    converter: Converter
    aspect: float = 1.0

    def rgb(self) -> NDArray[np.uint8]:
        """Its pixels, uint8 (H, W, 3), upright."""
        return self.converter.upright_rgb(self.frame, self.aspect)


class VideoContainer:
    """An open file, camera or stream.

    Raises:
        VideoError: it cannot be opened, or has no video that can be decoded.
    """

    def __init__(self, opening: Opening) -> None:
        self.name, self.broken = opening.name, 0
        av = load("av")
        self._opening, self._converter, started = opening, Converter(), time.monotonic()
        limits = {"max_pixels": str(MAX_PIXELS), "max_streams": str(MAX_STREAMS)}
        clock = {"correct_ts_overflow": "0"}  # it would add 26 hours to each that jumps back; see `Times`
        try:
            self._container: InputContainer = av.open(
                opening.url,
                format=opening.format,
                options={**limits, **clock, **(opening.options or {})},
                timeout=opening.timeout,
                metadata_errors="replace",
            )
        except (av.FFmpegError, MemoryError, ValueError) as error:
            raise self._error(error, time.monotonic() - started) from None  # the cause has the URL
        try:
            self._stream = self._video()
            self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            self._stream.thread_type = av.codec.context.ThreadType.SLICE  # with FRAME, damage would look random
            self._aspect = float(self._stream.sample_aspect_ratio or 1)
        except BaseException:
            self.close()
            raise

    @property
    def is_playlist(self) -> bool:
        return not _OPEN_OTHERS.isdisjoint(self._container.format.name.split(","))

    @property
    def has_clock(self) -> bool:
        """Whether frames carry times; of bare pictures and bare codecs FFmpeg makes them up."""
        name = self._container.format.name
        return name not in _WITHOUT_CLOCK and not name.endswith("_pipe")

    @property
    def size(self) -> int | None:
        """Bytes of the file; None for what is not one."""
        return self._container.size if self._container.size > 0 else None

    @property
    def seconds(self) -> float | None:
        """How long it lasts, where it says so."""
        stream, container = self._stream, self._container
        if container.format.name == "avi" and stream.frames and self.fps:
            return stream.frames / self.fps  # FFmpeg has it from the size of the file, which may be cut off
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return container.duration / 1e6 if container.duration else None

    @property
    def fps(self) -> float | None:
        """Frames per second on average, where it says so."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(rate) if rate and 0 < rate <= MAX_FPS else None

    def __iter__(self) -> Iterator[Decoded]:
        """The frames that can be decoded; damage is skipped and counted in `broken`.

        Raises:
            VideoError: no data came in time, or reading failed.
        """
        av = load("av")
        damage, timeout, seen = 0, self._opening.timeout, time.monotonic()
        while damage < _MAX_DAMAGE:
            try:
                for packet in self._container.demux(self._stream):
                    damage = 0
                    if packet.is_corrupt and self.size is not None and timeout is not None:
                        continue  # of a file on a server, where the connection broke
                    for decoded in self._decoded(packet):
                        yield decoded
                        seen = time.monotonic()
                    if timeout is not None and time.monotonic() > seen + _PATIENCE * timeout:
                        raise VideoError(f"{self.name}: no frame could be decoded for {_PATIENCE * timeout:g} s")
                return
            except av.InvalidDataError:  # what comes after a damaged part may be whole
                damage += 1
                self.broken += 1
            except av.EOFError:
                return
            except (av.FFmpegError, MemoryError) as error:
                raise self._error(error) from None

    def close(self) -> None:
        self._container.close()

    def _error(self, error: Exception, seconds: float = 0.0) -> VideoError:
        """What to raise for an error of PyAV after so many seconds of trying."""
        return VideoError(f"{self.name}: {_reason(error, self._opening, seconds)}")

    def _decoded(self, packet: "Packet[VideoStream]") -> Iterator[Decoded]:
        av = load("av")
        try:
            frames = packet.decode()
        except av.EOFError:
            return
        except (av.FFmpegError, ValueError):
            self.broken += 1
            return
        for frame in frames:
            yield Decoded(frame, None if frame.pts is None else float(frame.time), self._converter, self._aspect)

    def _video(self) -> "VideoStream":
        av = load("av")
        streams = self._container.streams
        pictures = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
        videos = [stream for stream in streams.video if not stream.disposition & pictures]
        if not videos:
            if streams.video or streams.audio:
                raise VideoError(f"{self.name}: has sound but no video; use a video")
            raise VideoError(f"{self.name}: has no video; use a video file")
        readable = [stream for stream in videos if stream.codec_context is not None]
        if not readable:
            raise VideoError(f"{self.name}: its codec is unknown; convert it to H.264, for example")
        stream = next((video for video in readable if video.disposition & av.stream.Disposition.default), readable[0])
        check_size(stream.codec_context.width, stream.codec_context.height, self.name)
        return stream


@cache
def file_options() -> dict[str, str]:
    """Options for a file that may be hostile: it cannot make FFmpeg open other files or addresses."""
    av = load("av")
    names = {name for joined in av.formats_available for name in joined.split(",")}
    formats = ",".join(sorted(names - _NO_VIDEO - _OPEN_OTHERS))
    return {"format_whitelist": formats, "protocol_whitelist": "file"}


def _reason(error: Exception, opening: Opening, seconds: float) -> str:
    """Why opening or reading failed, and what to do, without the address."""
    av = load("av")
    timeout = opening.timeout
    words = getattr(error, "strerror", None) or type(error).__name__
    words = f"{words[:1].lower()}{words[1:]}"
    if opening.format is not None:
        late = isinstance(error, av.ExitError | av.TimeoutError)
        advice = _CAMERA_ADVICE.get(getattr(error, "errno", None) or 0, "check that it is a camera, and plugged in")
        return f"no data for {timeout or seconds:g} s; {advice}" if late else f"cannot be read ({words}); {advice}"
    if isinstance(error, av.ExitError | av.TimeoutError) or (timeout is not None and seconds >= timeout):
        return f"no data for {timeout or seconds:g} s; check the address and the network"
    if timeout is not None and getattr(error, "errno", None) == errno.EIO:
        return "the connection broke, or there is none; check the address and the network"
    if isinstance(error, MemoryError):
        return f"does not fit into memory, or has more than {MAX_STREAMS} streams; scale it down, or keep one stream"
    if isinstance(error, av.HTTPUnauthorizedError | av.HTTPForbiddenError):
        return f"{error.strerror}; give user and password as in scheme://USER:PASSWORD@HOST"
    if isinstance(error, av.InvalidDataError | av.ArgumentError | av.EOFError | ValueError):
        return "is damaged, incomplete or not a video; use the complete file, or convert it to MP4"
    advice = "check the path" if opening.timeout is None else "check that it is there and reachable"
    return f"cannot be read ({words}); {advice}"
