"""The sound of a video file, for a clip made from its frames."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_ai.errors import VideoError
from emotion_ai.extras import load
from emotion_ai.video.containers import Opening, VideoContainer, file_options

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet

    Timed = tuple[float, Packet[Any]]

_LOGGER = logging.getLogger("emotion_ai")


def sound(source: Path, start: float, end: float, out: "OutputContainer") -> "Iterator[Timed]":
    """The packets of a file's first audio stream, with their seconds in the clip; none if it has no sound.

    AAC and MP3 are copied, since MP4 holds and browsers play them; others are encoded as AAC.

    Args:
        source: the file.
        start: seconds since its first frame at which the clip begins.
        end: and at which it ends.
        out: the clip, which gets an audio stream at once.
    """
    av = load("av")
    try:
        opened = VideoContainer(Opening(f"file:{source}", str(source), options=file_options()))
        try:
            zero = next((decoded.time for decoded in opened), None) or 0.0
        finally:
            opened.close()
        container = av.open(f"file:{source}", options=file_options(), metadata_errors="replace")
    except (VideoError, av.FFmpegError) as error:
        _LOGGER.warning("%s: its sound cannot be read (%s); the clip is silent", source, error)
        return iter(())
    stream = next((stream for stream in container.streams.audio if stream.codec_context is not None), None)
    if stream is None or not stream.sample_rate:
        container.close()
        return iter(())
    begin, stop, codec = zero + start, zero + end, stream.codec_context
    if codec.name.startswith("mp3") or (codec.name == "aac" and codec.extradata):  # it has none in MPEG-TS
        return _copied(container, stream, out.add_stream_from_template(stream), begin, stop)
    layout = "mono" if codec.layout.nb_channels == 1 else "stereo"
    encoder = out.add_stream("aac", rate=48_000, layout=layout)
    return _encoded(container, stream, encoder, begin, stop)


def _copied(
    container: "InputContainer", stream: "AudioStream", out: "AudioStream", begin: float, end: float
) -> "Iterator[Timed]":
    with container:
        for packet in _demuxed(container, stream):
            if packet.pts is None or packet.dts is None:
                continue
            time = float(packet.pts * packet.time_base)
            if time > end:
                return
            if time >= begin:
                shift = round(Fraction(begin) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, out
                yield time - begin, packet


def _encoded(
    container: "InputContainer", stream: "AudioStream", out: "AudioStream", begin: float, end: float
) -> "Iterator[Timed]":
    av = load("av")
    resampler = av.AudioResampler("fltp", out.codec_context.layout, out.codec_context.sample_rate, frame_size=1024)
    with container:
        for frame in _frames(container, stream):
            if frame.pts is None or frame.time_base is None or frame.time is None or frame.time < begin:
                continue
            if frame.time > end:
                break
            frame.pts -= round(Fraction(begin) / frame.time_base)
            for even in resampler.resample(frame):
                yield from _timed(out.encode(even))
        for even in resampler.resample(None):
            yield from _timed(out.encode(even))
        yield from _timed(out.encode(None))


def _timed(packets: "list[Packet[Any]]") -> "Iterator[Timed]":
    for packet in packets:
        if packet.pts is not None and packet.time_base:
            yield float(packet.pts * packet.time_base), packet


def _demuxed(container: "InputContainer", stream: "AudioStream") -> "Iterator[Packet[AudioStream]]":
    """The packets up to the end, or to where the file is damaged."""
    av = load("av")
    try:
        yield from container.demux(stream)
    except av.FFmpegError as error:
        _LOGGER.warning("%s: its sound ends early (%s)", container.name.removeprefix("file:"), error.strerror)


def _frames(container: "InputContainer", stream: "AudioStream") -> "Iterator[AudioFrame]":
    """The frames of the packets that can be decoded."""
    av = load("av")
    for packet in _demuxed(container, stream):
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            continue
        yield from frames
