"""Decoding: whether memory and the time per frame stay flat over a long video.

    python -m emotion_ai.benchmarks.decoding

The video is noise that moves, 640x480 at 25 frames per second, written to a temporary folder first.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.progress import track

from emotion_ai.evaluation.tables import Column, ReportTable
from emotion_ai.extras import load
from emotion_ai.terminal import Console
from emotion_ai.video.sources import open_source

FPS, WIDTH, HEIGHT = 25, 640, 480


def write_video(path: Path, minutes: int, seed: int = 0) -> None:
    """A video of 640x480 at 25 frames per second."""
    av = load("av")
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    large = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in track(range(minutes * 60 * FPS), "writing", console=Console(stderr=True), transient=True):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(large, number % WIDTH, 1), "rgb24")))
        out.mux(stream.encode(None))


def resident_mb() -> float:
    """Memory of this process, in MB; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def benchmark(minutes: int) -> ReportTable:
    """Memory and CPU time per frame at the end of each minute."""
    rows: list[tuple[str, int, float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, minutes)
        with open_source(path) as source:
            started, wall = time.process_time(), time.monotonic()
            for frame in source:
                if (frame.number + 1) % (60 * FPS) == 0:
                    cpu, passed = time.process_time() - started, time.monotonic() - wall
                    each = 1000 * cpu / (60 * FPS)
                    rows.append((str(len(rows) + 1), round(resident_mb()), round(each, 3), round(60 * FPS / passed)))
                    started, wall = time.process_time(), time.monotonic()
    columns = (Column("minute"), Column("memory in MB"), Column("CPU ms per frame"), Column("frames per second"))
    return ReportTable(f"Decoding {minutes} minutes of {WIDTH}x{HEIGHT}, {FPS} frames per second", columns, tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.decoding", description=__doc__)
    parser.add_argument("--minutes", type=int, default=10, help="length of the video (%(default)s)")
    options = parser.parse_args()
    if options.minutes < 1:
        parser.error("--minutes must be at least 1")
    Console(width=120).print(benchmark(options.minutes).as_rich())


if __name__ == "__main__":
    main()
