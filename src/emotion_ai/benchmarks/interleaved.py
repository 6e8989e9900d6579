"""Times work in turns with a fixed workload, so that a busy or slow machine affects both and their ratio stays.

A time leaves out how long the thread was ready to run while other threads had the processors, which Linux counts for
each thread. What the work itself waits for, such as a sleep or a file, stays in. Work that has threads of its own is
timed by the processor time of them all instead.
"""

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from emotion_ai.terminal import Console

_SCHEDULE = Path("/proc/thread-self/schedstat")
"""Nanoseconds on a processor and ready without one, and a count of time slices."""


@dataclass(frozen=True)
class Stage:
    """Work to time.

    Attributes:
        name: the same in every run.
        work: done once in each round, in the thread that calls.
        fixed: uses the same libraries on fixed inputs, and none of this package's code.
        items: that the work handles.
        unit: of the items.
        margin: the largest relative change of the ratio that noise may explain.
        threads: the work has threads of its own.
    """

    name: str
    work: Callable[[], object]
    fixed: Callable[[], object]
    items: int = 1
    unit: str = "photos"
    margin: float = 0.15
    threads: bool = False


@dataclass(frozen=True)
class Round:
    """Seconds of the work, and its ratio to the mean of the fixed workload before and after it."""

    seconds: float
    ratio: float


def measure(stage: Stage, rounds: int) -> list[Round]:
    """Times the stage, after one untimed call of the work and of the fixed workload."""
    stage.work()
    stage.fixed()
    found = []
    gc.collect()
    before = seconds_of(stage.fixed, stage.threads)
    for _ in track(range(rounds), stage.name, console=Console(stderr=True), transient=True):
        seconds = seconds_of(stage.work, stage.threads)
        after = seconds_of(stage.fixed, stage.threads)
        found.append(Round(seconds, 2 * seconds / (before + after)))
        before = after
    return found


def seconds_of(work: Callable[[], object], threads: bool = False) -> float:
    """Seconds that the work took, without this thread's waiting for a processor; or processor time of all threads."""
    clock = time.process_time if threads else lambda: time.perf_counter() - _waited()
    started = clock()
    work()
    return max(clock() - started, 1e-9)


def _waited() -> float:
    with suppress(OSError, ValueError, IndexError):  # not on every system
        return int(_SCHEDULE.read_text().split()[1]) / 1e9
    return 0.0
