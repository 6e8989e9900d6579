"""Small videos made with PyAV, whose frames bear their number."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

BITS = 8
WIDTH, HEIGHT, FPS = 128, 64, 25
RED = (220, 30, 30)


def marked(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A frame with its number as white bars in its lower half, and red in the left corner on top."""
    rgb = np.full((height, width, 3), 60, np.uint8)
    rgb[: height // 4, : width // 4] = RED
    for bit in range(BITS):
        if number >> bit & 1:
            rgb[height // 2 :, bit * width // BITS : (bit + 1) * width // BITS] = 230
    return rgb


def number_of(rgb: NDArray[np.uint8]) -> int:
    """The number that a frame bears."""
    height, width = rgb.shape[:2]
    bars = rgb[height * 5 // 8 : height * 7 // 8].mean((0, 2)).reshape(BITS, width // BITS)
    return sum(1 << bit for bit, level in enumerate(bars[:, bars.shape[1] // 2]) if level > 145)


def is_red(rgb: NDArray[np.uint8], top: float, left: float) -> bool:
    """Whether a place, as shares of height and width, is red."""
    row, column = int(top * rgb.shape[0]), int(left * rgb.shape[1])
    colour = rgb[row - 3 : row + 4, column - 3 : column + 4].mean((0, 1))
    return bool(np.abs(colour - RED).max() < 40)


def write_clip(
    path: Path,
    codec: str = "libx264",
    count: int = 20,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    format: str = "yuv420p",
    times: Sequence[float] | None = None,
    rotation: float | None = None,
    mirrored: bool = False,
    sound: str | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """A clip of numbered frames at 25 per second, or at given times, with a tone in a codec of that name."""
    with av.open(str(path), "w", format=container, options=muxing or {}) as out:
        quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        stream: Any = out.add_stream(codec, rate=FPS, options={**quiet, **(options or {})})
        stream.width, stream.height, stream.pix_fmt = *size, format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirrored)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        audio: Any = out.add_stream(sound, rate=48_000, layout="mono") if sound else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(marked(number, *size), "rgb24")
            if times is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), round(times[number] * 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio is not None:
            _write_tone(out, audio, count / FPS)
    return path


def write_sound(path: Path, codec: str = "aac", seconds: float = 1.0) -> Path:
    """A file with a tone alone."""
    with av.open(str(path), "w") as out:
        _write_tone(out, out.add_stream(codec, rate=48_000, layout="mono"), seconds)
    return path


def _write_tone(out: Any, stream: Any, seconds: float) -> None:
    resampler = av.AudioResampler(stream.codec_context.format, "mono", 48_000, frame_size=stream.frame_size or 1024)
    samples = np.sin(np.arange(int(seconds * 48_000)) * 2 * np.pi * 440 / 48_000).astype(np.float32)[None] / 4
    tone = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
    tone.sample_rate, tone.time_base, tone.pts = 48_000, Fraction(1, 48_000), 0
    for frame in (*resampler.resample(tone), *resampler.resample(None)):
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))
