"""The annotated clip: frames with their faces drawn, as H.264 in MP4 for any browser, with the source's sound."""

import heapq
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.errors import VideoError
from emotion_ai.extras import load
from emotion_ai.files import atomic_path, sync_path
from emotion_ai.inference.drawing import annotate
from emotion_ai.video.frames import FrameReading
from emotion_ai.video.sound import sound

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

CLIP = "annotated.mp4"

PARTS = "annotated.parts"
"""Folder of the parts, beside the clip, until they are joined."""

_JOINED = 16  # parts of a kind that are joined to one, so that some 40 are left of an hour

_CLOCK = 1000  # ticks per second, as Matroska has them
_BT709, _LIMITED = 1, 1  # numbers of ISO/IEC 23091-2, section 8
_OPTIONS = {"preset": "veryfast", "crf": "23", "bf": "0"}  # without B-frames, parts join at any frame


def draw(reading: FrameReading) -> NDArray[np.uint8]:
    """A frame with its faces, and the numbers of their tracks, uint8 (H, W, 3); a small one is enlarged."""
    faces = [face.reading for face in reading.faces]
    return np.asarray(annotate(reading.rgb, faces, bars=False, tracks=[face.track for face in reading.faces]))


class ClipWriter:
    """Writes `annotated.mp4` into a folder.

    Frames go into parts, in the folder `annotated.parts`, which are joined without encoding them again. A part that is
    closed survives whatever happens to the process. As nothing can be added to it, each `state` closes one; where these
    get many, they are joined on the way.

    Args:
        folder: exists.
        source: video file whose sound is kept; None for a source without any.
        state: of an earlier writer, which this one continues; what that one wrote later is deleted.

    Raises:
        VideoError: there is no H.264 encoder, or the parts of that state are gone.
    """

    def __init__(self, folder: Path, source: Path | None = None, state: dict[str, Any] | None = None) -> None:
        self.path, self._parts, self._source = folder / CLIP, folder / PARTS, source
        self._names: list[str] = []
        self._replaced: list[str] = []  # parts of the state before
        self._count, self._start, self._last, self._tick = 0, 0.0, 0.0, -1
        self._size: tuple[int, int] | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream
        try:
            load("av").codec.Codec("libx264", "w")
        except ValueError as error:
            raise VideoError("FFmpeg has no H.264 encoder here: pip install --force-reinstall av") from error
        if state is not None and state["parts"]:
            self._names, self._count = list(state["parts"]), state["count"]
            self._start, self._last, self._tick = state["start"], state["last"], state["tick"]
            self._size = (state["width"], state["height"])
        self._discard_later_parts()

    def state(self) -> dict[str, Any]:
        """What another writer takes to continue after the last frame; plain JSON. The one before is void from then on.

        Raises:
            OSError: it cannot be written.
        """
        for name in self._replaced:  # by a state that has been saved since
            (self._parts / name).unlink(missing_ok=True)
        self._replaced = []
        self._close_part()
        self._join_parts()
        width, height = self._size or (0, 0)
        places = {"start": self._start, "last": self._last, "tick": self._tick}
        return {"parts": list(self._names), "count": self._count, **places, "width": width, "height": height}

    def write(self, rgb: NDArray[np.uint8], seconds: float) -> None:
        """Adds a frame, uint8 (H, W, 3); one of another size than the first is fitted into that.

        Args:
            rgb: the frame.
            seconds: its time in the source, later than that of the frame before.

        Raises:
            OSError: it cannot be written.
        """
        av = load("av")
        if self._size is None:
            height, width = rgb.shape[:2]
            self._size, self._start = (width + width % 2, height + height % 2), seconds
        if self._container is None:
            self._open_part(*self._size)
        frame = av.VideoFrame.from_ndarray(_fitted(rgb, *self._size), "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED, threads=1)
        frame.time_base, frame.pts = Fraction(1, _CLOCK), self._ticks(seconds)
        assert self._container is not None
        self._container.mux(self._stream.encode(frame))
        self._last = seconds

    def finish(self, *, resumable: bool = False) -> Path | None:
        """Joins the parts; the clip's path, or None without any frame.

        Args:
            resumable: keeps the parts, so that another writer can continue from the last state.

        Raises:
            OSError: it cannot be written.
        """
        self._close_part()
        if not self._names:
            shutil.rmtree(self._parts)
            return None
        av = load("av")
        options = {"movflags": "faststart"}
        with atomic_path(self.path) as partial, av.open(str(partial), "w", format="mp4", options=options) as out:
            tracks = [self._packets(self._names, out)]
            if self._source is not None:
                tracks.append(sound(self._source, self._start, self._last, out))
            for _, packet in heapq.merge(*tracks, key=lambda timed: timed[0]):
                out.mux(packet)
        if not resumable:
            shutil.rmtree(self._parts)
        return self.path

    def _ticks(self, seconds: float) -> int:
        self._tick = max(round((seconds - self._start) * _CLOCK), self._tick + 1)
        return self._tick

    def _discard_later_parts(self) -> None:
        for name in self._names:
            if not (self._parts / name).is_file():
                raise VideoError(f"{self._parts / name}: this part of the clip is gone; start a new run")
        if not self._names:
            shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir(exist_ok=True)
        for path in self._parts.iterdir():
            if path.name not in self._names:
                path.unlink()

    def _open_part(self, width: int, height: int) -> None:
        self._container = load("av").open(str(self._parts / _name(self._count, 0)), "w", format="matroska")
        self._stream = self._container.add_stream("libx264", rate=25, options=_OPTIONS, time_base=Fraction(1, _CLOCK))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED

    def _close_part(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None
            self._names.append(_name(self._count, 0))
            sync_path(self._parts / self._names[-1])
            self._count += 1

    def _join_parts(self) -> None:
        """Joins the last parts to a larger one, and the last of these to a still larger one, where they are enough."""
        while len(last := self._names[-_JOINED:]) == _JOINED and len({_size(name) for name in last}) == 1:
            name = _name(int(last[0].partition("-")[0]), _size(last[0]) + 1)
            joined, opened = self._parts / name, load("av").open
            with atomic_path(joined, sync=True) as partial, opened(str(partial), "w", format="matroska") as out:
                for _, packet in self._packets(last, out):
                    out.mux(packet)
            self._names[-_JOINED:] = [name]
            self._replaced += last

    def _packets(self, names: list[str], out: "OutputContainer") -> "Iterator[tuple[float, Packet[Any]]]":
        """Those of some parts with their seconds, for a stream that another container gets at once."""
        with load("av").open(str(self._parts / names[0])) as first:
            stream = out.add_stream_from_template(first.streams.video[0])
        return self._of_parts(names, stream)

    def _of_parts(self, names: list[str], stream: "VideoStream") -> "Iterator[tuple[float, Packet[Any]]]":
        for name in names:
            with load("av").open(str(self._parts / name)) as part:
                for packet in part.demux(video=0):
                    if packet.pts is not None:
                        packet.stream = stream
                        yield float(packet.pts * packet.time_base), packet


def _name(number: int, size: int) -> str:
    """Of a part: the number of its first piece, and how often it was joined."""
    return f"{number:06}-{size}.mkv"


def _size(name: str) -> int:
    return int(name[:-4].rpartition("-")[2])


def _fitted(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A frame in the middle of a black one of that size; shrunk or enlarged unless it differs by a pixel at most."""
    tall, wide = rgb.shape[:2]
    if not (0 <= width - wide <= 1 and 0 <= height - tall <= 1):
        scale = min(width / wide, height / tall)
        size = (max(round(wide * scale), 1), max(round(tall * scale), 1))
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
        tall, wide = rgb.shape[:2]
        canvas = np.zeros((height, width, 3), np.uint8)
        top, left = (height - tall) // 2, (width - wide) // 2
        canvas[top : top + tall, left : left + wide] = rgb
        return canvas
    return np.pad(rgb, ((0, height - tall), (0, width - wide), (0, 0)), "edge")
