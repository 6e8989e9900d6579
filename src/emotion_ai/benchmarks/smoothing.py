"""Smoothing: how much it steadies a face at rest, and how far it lags behind a moving one.

    python -m emotion_ai.benchmarks.smoothing

Videos of 25 frames per second are made from the portraits that come with the package: at rest with camera noise, and
swaying by half the face's box to either side every two seconds.
"""

import argparse

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from emotion_ai.evaluation.statistics import t_interval
from emotion_ai.evaluation.tables import INTERVAL, Column, Interval, ReportTable
from emotion_ai.inference.reader import FaceReader
from emotion_ai.terminal import Console
from emotion_ai.video.smoothing import Smoother
from emotion_ai.vision.photo import PORTRAITS, load_photo

FPS, PERIOD, NOISE = 25, 2.0, 6.0  # frames per second, seconds, gray levels


def video(portrait: NDArray[np.uint8], reach: float, frames: int, seed: int) -> list[NDArray[np.uint8]]:
    """A portrait uint8 (H, W, 3) that sways by `reach` pixels to either side, borders repeated, with noise."""
    rng = np.random.default_rng(seed)
    height, width = portrait.shape[:2]
    margin = int(np.ceil(reach)) + 1
    wide = Image.fromarray(np.pad(portrait, ((0, 0), (margin, margin), (0, 0)), "edge"))
    made = []
    for at in range(frames):
        left = margin + reach * np.sin(2 * np.pi * at / FPS / PERIOD)
        area = (left, 0, left + width, height)
        frame = np.asarray(wide.resize((width, height), Image.Resampling.BICUBIC, area), np.float32)
        made.append(np.clip(frame + rng.normal(0, NOISE, frame.shape) + 0.5, 0, 255).astype(np.uint8))
    return made


def points(reader: FaceReader, frames: list[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Keypoints as read and as smoothed, float (T, 15, 2) each, in pixels of the frames.

    Raises:
        NoFaceError: a frame without a detected face.
    """
    smoother = Smoother()
    read, smoothed = [], []
    for at, frame in enumerate(frames):
        faces = reader.read(frame)
        read.append(faces[0].points)
        smoothed.append(smoother(faces[:1], [1], at / FPS)[0].points)
    return np.array(read, np.float64), np.array(smoothed, np.float64)


def reduction(read: NDArray[np.float64], smoothed: NDArray[np.float64]) -> float:
    """By what share smoothing reduces the movement between frames, up to 1; the first second is left out."""
    moved = [np.linalg.norm(np.diff(some[FPS:], axis=0), axis=-1).mean() for some in (read, smoothed)]
    return float(1 - moved[1] / moved[0])


def lag(read: NDArray[np.float64], smoothed: NDArray[np.float64]) -> float:
    """The delay of x in seconds, by least squares: smoothed = read - lag * speed; the first second is left out."""
    speed = np.gradient(read[..., 0].mean(1)) * FPS
    late = (read - smoothed)[..., 0].mean(1)
    return float((speed * late)[FPS:].sum() / (speed**2)[FPS:].sum())


def benchmark(reader: FaceReader, videos: int, seconds: int) -> ReportTable:
    """Both measures over videos with different noise, with Student's t intervals.

    Args:
        videos: of each portrait and kind.
        seconds: length of each video.
    """
    at_rest, swaying = [], []
    for seed in track(range(videos), "reading", console=Console(stderr=True), transient=True):
        for path in PORTRAITS:
            rgb = load_photo(path).rgb
            reach = reader.read(rgb)[0].box.size / 2
            at_rest.append(reduction(*points(reader, video(rgb, 0, seconds * FPS, seed))))
            swaying.append(1000 * lag(*points(reader, video(rgb, reach, seconds * FPS, seed))))
    rows = []
    for name, values in (("at rest: reduction of movement", at_rest), ("swaying: lag in milliseconds", swaying)):
        e = t_interval(values)
        rows.append((name, e.value, Interval(e.low, e.high), e.n))
    columns = (Column("measure"), Column("mean"), INTERVAL, Column("videos"))
    return ReportTable(f"Smoothing, noise seeds 0 to {videos - 1}", columns, tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.smoothing", description=__doc__)
    parser.add_argument("--videos", type=int, default=5, help="videos of each portrait and kind (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="length of each video (%(default)s)")
    options = parser.parse_args()
    if options.videos < 1 or options.seconds < 2:
        parser.error("--videos must be at least 1 and --seconds at least 2; the first second is left out")
    Console(width=120).print(benchmark(FaceReader.bundled(), options.videos, options.seconds).as_rich())


if __name__ == "__main__":
    main()
