"""Events: how many are found, at their right times, in readings that flicker.

    python -m emotion_ai.benchmarks.events

Without pictures and networks: each frame shows what a script has, or, at random, another class with the same
confidence. An event is right if start and end lie within half a second of the script, or within two frames where these
take longer, and if no other one was found for that occurrence.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from rich.progress import track
from scipy.stats import binomtest

from emotion_ai.class_set import SEVEN
from emotion_ai.contract import MEAN_FACE
from emotion_ai.evaluation.tables import INTERVAL, Column, Interval, ReportTable
from emotion_ai.inference.results import FaceReading
from emotion_ai.inference.verdict import NEUTRAL
from emotion_ai.terminal import Console
from emotion_ai.video.events import Event, EventFinder
from emotion_ai.video.frames import FrameReading, TrackedFace
from emotion_ai.video.script import ScriptedEvent
from emotion_ai.video.smoothing import Smoother
from emotion_ai.vision.crops import Box

SECONDS = 20.0
"""Length of a clip."""

FPS, FLICKER = (2.0, 5.0, 8.0, 12.0, 25.0, 30.0), (0.05, 0.1, 0.2)

_CONFIDENCE, _THRESHOLD, _TOLERANCE = 0.7, 0.4, 0.5
_POINTS = np.array(MEAN_FACE, np.float32)
_BLACK = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True)
class EventScore:
    """How many events were found in their places, how many there are, and how many were found."""

    right: int = 0
    scripted: int = 0
    found: int = 0

    def __add__(self, other: "EventScore") -> "EventScore":
        return EventScore(self.right + other.right, self.scripted + other.scripted, self.found + other.found)

    @property
    def precision(self) -> float:
        return self.right / max(self.found, 1)

    @property
    def recall(self) -> float:
        return self.right / max(self.scripted, 1)


def score(script: list[ScriptedEvent], found: list[Event], tolerance: float = _TOLERANCE) -> EventScore:
    """Pairs each event of one person with at most one that was found."""
    left = list(found)
    for scripted in script:
        for event in left:
            apart = max(abs(event.start - scripted.start), abs(event.end - scripted.end))
            if event.expression == scripted.expression and apart <= tolerance + 1e-6:
                left.remove(event)
                break
    return EventScore(len(found) - len(left), len(script), len(found))


def random_script(rng: np.random.Generator) -> list[ScriptedEvent]:
    """Emotions of 2 to 4 seconds with 1.5 to 4 neutral seconds between them."""
    script: list[ScriptedEvent] = []
    start, emotions = rng.uniform(1, 3), SEVEN.names[: SEVEN.emotions]
    while (end := start + rng.uniform(2, 4)) < SECONDS - 1.5:
        others = [name for name in emotions if not script or name != script[-1].expression]
        script.append(ScriptedEvent(1, start, end, others[rng.integers(len(others))]))
        start = end + rng.uniform(1.5, 4)
    return script


def flickering(
    script: list[ScriptedEvent], fps: float, flicker: float, rng: np.random.Generator, smooth: bool = True
) -> Iterator[FrameReading]:
    """Readings of one face that shows a script.

    Args:
        script: what it shows.
        fps: frames per second.
        flicker: share of frames that show a random other class.
        rng: draws these and the probabilities.
        smooth: whether the readings are smoothed.
    """
    classes, smoother, box = SEVEN.names, Smoother(), Box(0.0, 0.0, 96.0)
    blank = FaceReading(
        _POINTS, np.zeros(5, np.float32), box, _POINTS, 0.9, uncertain_below=_THRESHOLD, classes=classes
    )
    for number in range(round(SECONDS * fps)):
        seconds = number / fps
        shown = next((event.expression for event in script if event.start <= seconds < event.end), NEUTRAL)
        named = classes.index(shown)
        if rng.random() < flicker:
            named = (named + int(rng.integers(1, len(classes)))) % len(classes)
        weights = np.full(len(classes), (1 - _CONFIDENCE) / (len(classes) - 1))
        weights[named] = _CONFIDENCE
        expressions = rng.dirichlet(30 * weights).astype(np.float32)
        emotions = expressions[: SEVEN.emotions]
        raw = replace(blank, probabilities=emotions / emotions.sum(), expressions=expressions)
        face = smoother([raw], [1], seconds)[0] if smooth else raw
        yield FrameReading(number, seconds, (TrackedFace(1, face, raw),), _BLACK)


def event_score(fps: float, flicker: float, clips: int, smooth: bool = True, seed: int = 0) -> EventScore:
    """The score over so many clips of one face each."""
    total, tolerance = EventScore(), max(_TOLERANCE, 2 / fps)
    for clip in range(clips):
        rng, finder = np.random.default_rng([seed, clip]), EventFinder()
        script = random_script(rng)
        readings = flickering(script, fps, flicker, rng, smooth)
        found = [event for reading in readings for event in finder(reading).ended]
        total += score(script, [*found, *finder.finish().ended], tolerance)
    return total


def benchmark(clips: int) -> ReportTable:
    """Precision and recall for some frame rates and shares of flicker, with Wilson's intervals.

    Args:
        clips: for each of them.
    """
    rows = []
    cases = [(fps, flicker) for flicker in FLICKER for fps in FPS]
    for fps, flicker in track(cases, "events", console=Console(stderr=True), transient=True):
        found = event_score(fps, flicker, clips)
        precision, recall = _interval(found.right, found.found), _interval(found.right, found.scripted)
        rows.append((f"{flicker:.0%}", fps, found.precision, precision, found.recall, recall, found.scripted))
    columns = (
        Column("flicker"),
        Column("frames per second", "g"),
        Column("precision"),
        INTERVAL,
        Column("recall"),
        INTERVAL,
        Column("events"),
    )
    return ReportTable(f"Events in {clips} clips of {SECONDS:g} s each, seeds 0", columns, tuple(rows))


def _interval(hits: int, count: int) -> Interval:
    found = binomtest(hits, max(count, 1)).proportion_ci(method="wilson")
    return Interval(float(found.low), float(found.high))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.events", description=__doc__)
    parser.add_argument("--clips", type=int, default=200, help="clips of each kind (%(default)s)")
    options = parser.parse_args()
    if options.clips < 1:
        parser.error("--clips must be at least 1")
    Console(width=120).print(benchmark(options.clips).as_rich())


if __name__ == "__main__":
    main()
