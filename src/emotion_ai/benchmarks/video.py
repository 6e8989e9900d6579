"""Videos: how fast they are read, whether people keep their numbers, and whether memory stays flat.

    python -m emotion_ai.benchmarks.video
    python -m emotion_ai.benchmarks.video --minutes 60

The clip is scripted (`emotion_ai.video.script`): two drawn people who cross, a cut, ten seconds without anybody. It is
read by the bundled networks, as a video and, some of its frames, one by one as photographs. IDF1 (Ristani et al. 2016,
arXiv:1609.01775) and identity switches are those of motmetrics, at an overlap of 0.4.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from rich.progress import track

from emotion_ai.errors import NoFaceError
from emotion_ai.evaluation.tables import Column, ReportTable
from emotion_ai.extras import load
from emotion_ai.inference.reader import FaceReader
from emotion_ai.terminal import Console
from emotion_ai.video import VideoReader
from emotion_ai.video.frames import Frame, FrameReading
from emotion_ai.video.script import SECONDS, ScriptedClip
from emotion_ai.vision.overlap import iou


def identities(clip: ScriptedClip, readings: list[FrameReading]) -> tuple[float, int]:
    """IDF1 and identity switches of what was read of a scripted clip; needs motmetrics."""
    motmetrics = load("motmetrics")
    found = motmetrics.MOTAccumulator(auto_id=True)
    for reading in readings:
        truth = clip.truth(reading.frame)
        true, seen = [face.box for face in truth], [face.raw.box for face in reading.faces]
        distances = np.array([[1 - iou(one, other) for other in seen] for one in true]).reshape(len(true), len(seen))
        distances[distances > 0.6] = np.nan
        found.update([face.person for face in truth], [face.track for face in reading.faces], distances)
    row = motmetrics.metrics.create().compute(found, metrics=["idf1", "num_switches"]).iloc[0]
    return float(row["idf1"]), int(row["num_switches"])


def photograph_seconds(clip: ScriptedClip, reader: FaceReader, frames: int) -> float:
    """Mean processor time per frame, if each is read as a photograph: of so many frames, evenly spread."""
    numbers = np.linspace(clip.numbers.start, clip.numbers.stop - 1, frames).astype(int)
    spent = 0.0
    for number in track(numbers, "photographs", console=Console(stderr=True), transient=True):
        rgb = clip.frame(int(number)).rgb
        started = time.process_time()
        with suppress(NoFaceError):
            reader.read(rgb)
        spent += time.process_time() - started
    return spent / frames


def repeated(clip: ScriptedClip, minutes: int) -> Iterator[Frame]:
    """The frames of a clip, again and again, with numbers and times that go on."""
    for minute in range(minutes):
        for frame in clip:
            yield Frame(frame.number + minute * len(clip), frame.seconds + minute * SECONDS, frame.rgb)


def benchmark(reader: FaceReader, fps: float, minutes: int, photographs: int) -> ReportTable:
    """All measures.

    Args:
        fps: frames per second of the clip.
        minutes: how often the clip, a minute long, is read in one video.
        photographs: frames that are read as photographs.
    """
    clip, video = ScriptedClip(fps), VideoReader(reader)
    spent, memory, first = [], [], []
    for frame in track(
        repeated(clip, minutes), "video", minutes * len(clip), console=Console(stderr=True), transient=True
    ):
        started = time.process_time()
        reading = video(frame)
        spent.append(time.process_time() - started)
        if frame.number < len(clip):
            first.append(reading)
        if (frame.number + 1) % len(clip) == 0:
            memory.append(megabytes())
    idf1, switches = identities(clip, first)
    single, followed = photograph_seconds(clip, reader, photographs), float(np.mean(spent))
    minute = [float(np.mean(spent[start : start + len(clip)])) for start in (0, len(spent) - len(clip))]
    rows = (
        ("frames per second of processor time, as a video", 1 / followed),
        ("likewise, each frame as a photograph", 1 / single),
        ("ratio", single / followed),
        ("IDF1 of the first minute", idf1),
        ("identity switches in it", float(switches)),
        ("milliseconds per frame, first minute", 1000 * minute[0]),
        ("milliseconds per frame, last minute", 1000 * minute[1]),
        ("peak memory after the first minute, MB", memory[0]),
        ("peak memory at the end, MB", memory[-1]),
    )
    title = f"{minutes} min of 640x480 at {fps:g} frames per second, {len(spent)} frames, {photographs} photographs"
    return ReportTable(title, (Column("measure"), Column("value", ".3f")), rows)


def megabytes() -> float:
    """The most memory that the process has taken."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.video", description=__doc__)
    parser.add_argument("--fps", type=float, default=25, help="frames per second of the clip (%(default)s)")
    parser.add_argument("--minutes", type=int, default=1, help="length of the video (%(default)s)")
    parser.add_argument("--photographs", type=int, default=60, help="frames read as photographs (%(default)s)")
    options = parser.parse_args()
    if not 1 <= options.fps <= 60 or options.minutes < 1 or options.photographs < 1:
        parser.error("--fps must be from 1 to 60, --minutes and --photographs at least 1")
    found = benchmark(FaceReader.bundled(), options.fps, options.minutes, options.photographs)
    Console(width=120).print(found.as_rich())


if __name__ == "__main__":
    main()
