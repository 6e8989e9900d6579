"""Videos: how fast they are read, whether people keep their numbers, and whether memory stays flat.

    python -m emotion_ai.benchmarks.video
    python -m emotion_ai.benchmarks.video --minutes 60

The clip is scripted (`emotion_ai.video.script`): two drawn people who cross, a cut, ten seconds without anybody. It is
read by the bundled networks as a video, and of each second one frame is also read as a photograph, right then, so that
both are timed under the same load; ratios are geometric means over the seconds, with Student's t intervals. IDF1
(Ristani et al. 2016, arXiv:1609.01775) and identity switches are those of motmetrics, at an overlap of 0.4.
"""

import argparse
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from rich.progress import track

from emotion_ai.errors import NoFaceError
from emotion_ai.evaluation.statistics import t_interval
from emotion_ai.evaluation.tables import INTERVAL, Column, Interval, ReportTable
from emotion_ai.extras import load
from emotion_ai.inference.reader import FaceReader
from emotion_ai.terminal import Console
from emotion_ai.video import VideoReader
from emotion_ai.video.frames import Frame, FrameReading
from emotion_ai.video.script import SECONDS, ScriptedClip
from emotion_ai.vision.overlap import iou

_Result = TypeVar("_Result")


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


def repeated(clip: ScriptedClip, minutes: int) -> Iterator[Frame]:
    """The frames of a clip, again and again, with numbers and times that go on."""
    for minute in range(minutes):
        for frame in clip:
            yield Frame(frame.number + minute * len(clip), frame.seconds + minute * SECONDS, frame.rgb)


@dataclass(frozen=True)
class TimedSecond:
    """Processor time per frame, in seconds, of one second of a clip.

    Attributes:
        video: mean over its frames, read as a video.
        photograph: of one of them, read as a photograph.
        faces: that are seen in all of its frames.
    """

    video: float
    photograph: float
    faces: int


def ratio(seconds: list[TimedSecond]) -> tuple[float | None, Interval | None, int]:
    """How many times as long photographs take, its interval, and of how many seconds; None of fewer than two."""
    if len(seconds) < 2:
        return None, None, len(seconds)
    found = t_interval([math.log(one.photograph / one.video) for one in seconds])
    return math.exp(found.value), Interval(math.exp(found.low), math.exp(found.high)), len(seconds)


def benchmark(reader: FaceReader, fps: float, minutes: int, end: float = SECONDS) -> ReportTable:
    """All measures.

    Args:
        fps: frames per second of the clip.
        minutes: how often the clip is read in one video.
        end: seconds of the clip that are read, each time.
    """
    clip, video = ScriptedClip(fps, end=end), VideoReader(reader)
    spent, memory, first, seconds = [], [], [], []
    count, each = len(clip), max(round(fps), 1)
    for frame in track(repeated(clip, minutes), "video", minutes * count, console=Console(stderr=True), transient=True):
        reading, used = _timed(partial(video, frame))
        spent.append(used)
        if frame.number < count:
            first.append(reading)
            if (frame.number + 1) % each == 0:
                _, used = _timed(partial(_photograph, reader, frame))
                faces = min(len(clip.truth(number)) for number in range(frame.number + 1 - each, frame.number + 1))
                seconds.append(TimedSecond(float(np.mean(spent[-each:])), used, faces))
        if (frame.number + 1) % count == 0:
            memory.append(megabytes())
    idf1, switches = identities(clip, first)
    minute = [float(np.mean(spent[start : start + count])) for start in (0, len(spent) - count)]
    single = float(np.mean([one.photograph for one in seconds])) if seconds else None
    rows = (
        ("frames per second of processor time, as a video", 1 / float(np.mean(spent)), None, len(spent)),
        ("likewise, each frame as a photograph", single and 1 / single, None, len(seconds)),
        ("how many times as long a photograph takes", *ratio(seconds)),
        ("likewise, seconds with two faces", *ratio([one for one in seconds if one.faces == 2])),
        ("IDF1 of the first minute", idf1, None, len(first)),
        ("identity switches in it", float(switches), None, len(first)),
        ("milliseconds per frame, first minute", 1000 * minute[0], None, count),
        ("milliseconds per frame, last minute", 1000 * minute[1], None, count),
        ("peak memory after the first minute, MB", memory[0], None, 1),
        ("peak memory at the end, MB", memory[-1], None, 1),
    )
    title = f"{minutes} times {end:g} s of 640x480 at {fps:g} frames per second"
    interval = Column(INTERVAL.name, ".3f")
    return ReportTable(title, (Column("measure"), Column("value", ".3f"), interval, Column("n")), rows)


def _timed(call: Callable[[], _Result]) -> tuple[_Result, float]:
    """What a call returns, and its processor time in seconds."""
    started = time.process_time()
    result = call()
    return result, time.process_time() - started


def _photograph(reader: FaceReader, frame: Frame) -> None:
    with suppress(NoFaceError):
        reader.read(frame.rgb)


def megabytes() -> float:
    """The most memory that the process has taken."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.video", description=__doc__)
    parser.add_argument("--fps", type=float, default=25, help="frames per second of the clip (%(default)s)")
    parser.add_argument("--minutes", type=int, default=1, help="length of the video (%(default)s)")
    parser.add_argument("--end", type=float, default=SECONDS, help="seconds of the clip that are read (%(default)s)")
    options = parser.parse_args()
    if not 1 <= options.fps <= 60 or options.minutes < 1 or not 1 <= options.end <= SECONDS:
        parser.error(f"--fps must be from 1 to 60, --minutes at least 1, --end from 1 to {SECONDS:g}")
    found = benchmark(FaceReader.bundled(), options.fps, options.minutes, options.end)
    Console(width=120).print(found.as_rich())


if __name__ == "__main__":
    main()
