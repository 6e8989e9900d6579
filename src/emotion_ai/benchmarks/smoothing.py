"""How much smoothing steadies a face at rest, and how far it lags behind a moving one.

    python -m emotion_ai.benchmarks.smoothing

Videos of 25 frames a second are made of the portraits that come with the package: at rest with noise as a camera's, and
swaying, by half the frame of the face to either side, every two seconds.
"""

import argparse

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from emotion_ai.evaluation.statistics import t_interval
from emotion_ai.inference.reader import FaceReader
from emotion_ai.video.smoothing import Smoother
from emotion_ai.vision.photo import PORTRAITS, load_photo

FPS, PERIOD, NOISE = 25, 2.0, 6.0  # frames a second, seconds, gray levels


def video(portrait: NDArray[np.uint8], reach: float, frames: int, seed: int) -> list[NDArray[np.uint8]]:
    """A portrait, uint8 (H, W, 3), that moves `reach` pixels to either side, its border repeated, with noise."""
    rng = np.random.default_rng(seed)
    height, width = portrait.shape[:2]
    room = int(np.ceil(reach)) + 1
    wide = Image.fromarray(np.pad(portrait, ((0, 0), (room, room), (0, 0)), "edge"))
    made = []
    for at in range(frames):
        left = room + reach * np.sin(2 * np.pi * at / FPS / PERIOD)
        area = (left, 0, left + width, height)
        frame = np.asarray(wide.resize((width, height), Image.Resampling.BICUBIC, area), np.float32)
        made.append(np.clip(frame + rng.normal(0, NOISE, frame.shape) + 0.5, 0, 255).astype(np.uint8))
    return made


def points(reader: FaceReader, frames: list[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As they are read and as they are smoothed, each float (T, 15, 2) in pixels of the frames.

    Raises:
        NoFaceError: a frame in which none is found.
    """
    smoother = Smoother()
    read, smoothed = [], []
    for at, frame in enumerate(frames):
        faces = reader.read(frame)
        read.append(faces[0].points)
        smoothed.append(smoother(faces, at / FPS)[0].points)
    return np.array(read, np.float64), np.array(smoothed, np.float64)


def calmer(read: NDArray[np.float64], smoothed: NDArray[np.float64]) -> float:
    """By what share points move less from frame to frame, 0 to 1; the first second is left out."""
    moved = [np.linalg.norm(np.diff(some[FPS:], axis=0), axis=-1).mean() for some in (read, smoothed)]
    return float(1 - moved[1] / moved[0])


def lag(read: NDArray[np.float64], smoothed: NDArray[np.float64]) -> float:
    """Seconds by which x comes late, by least squares: what is smoothed is what was read, less lag times speed."""
    speed = np.gradient(read[..., 0].mean(1)) * FPS
    late = (read - smoothed)[..., 0].mean(1)
    return float((speed * late)[FPS:].sum() / (speed**2)[FPS:].sum())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.smoothing", description=__doc__)
    parser.add_argument("--videos", type=int, default=5, help="of each portrait and kind, with other noise each")
    parser.add_argument("--seconds", type=int, default=4, help="of each video")
    given = parser.parse_args()
    if given.videos < 1 or given.seconds < 2:
        parser.error("--videos is at least 1, --seconds at least 2: the first second is left out")
    reader = FaceReader.bundled()
    still, late = [], []
    for seed in track(range(given.videos), "reading"):
        for path in PORTRAITS:
            rgb = load_photo(path).rgb
            reach = reader.read(rgb)[0].box.size / 2
            still.append(calmer(*points(reader, video(rgb, 0, given.seconds * FPS, seed))))
            late.append(1000 * lag(*points(reader, video(rgb, reach, given.seconds * FPS, seed))))
    console = Console(highlight=False)
    console.print(f"{len(still)} videos of each kind, seeds 0 to {given.videos - 1}, Student's t intervals over them")
    console.print(f"at rest, less movement from frame to frame: {t_interval(still)}")
    console.print(f"swaying, lag in milliseconds: {t_interval(late)}")


if __name__ == "__main__":
    main()
