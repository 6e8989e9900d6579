"""Pictures per second per core: `emotion-ai score` against `emotion-ai predict`, which reads them one by one.

`python -m emotion_ai.benchmarks.scoring` runs both commands on the same pictures, in turn, on some CPUs of a machine.
Each also reads a few of them, and the time for these is taken off: what it takes to load libraries and models.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from emotion_ai.evaluation.statistics import t_interval
from emotion_ai.evaluation.tables import INTERVAL, Column, Interval, ReportTable
from emotion_ai.terminal import Console
from emotion_ai.vision.photo import PORTRAITS

SIDE = 480
"""Pixels of the longer side of the pictures."""


@dataclass(frozen=True)
class Round:
    """Pictures per second of both commands, one after the other."""

    score: float
    predict: float


def write_pictures(folder: Path, count: int, seed: int) -> None:
    """The two portraits with other brightness, size and angle, as JPEG files."""
    rng = np.random.default_rng(seed)
    portraits = [Image.open(path).convert("RGB") for path in PORTRAITS]
    folder.mkdir()
    for number in range(count):
        side = int(rng.integers(3 * SIDE // 4, SIDE + 1))
        picture = portraits[number % 2].copy()
        picture.thumbnail((side, side))
        picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.7, 1.3)).rotate(rng.uniform(-15, 15))
        picture.save(folder / f"{number}.jpg", quality=90)


def run_round(few: Path, many: Path, cpus: Sequence[int], out: Path) -> Round:
    """Times both commands once.

    Args:
        few, many: folders of pictures, the first of which is read to know what the start of a command takes.
        cpus: to run on.
        out: an empty folder.
    """

    def seconds(photos: Path, *command: str) -> float:
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "emotion_ai.cli", *command],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        return time.monotonic() - started

    count = len(list(many.iterdir())) - len(list(few.iterdir()))
    cpu = ("--device", "cpu")
    predicted = [seconds(p, "predict", str(p), "--csv", str(out / f"{p.name}.csv"), *cpu) for p in (few, many)]
    workers = ("--workers", str(len(cpus)))
    scored = [seconds(p, "score", str(p), str(out / p.name), *workers, *cpu) for p in (few, many)]
    return Round(count / (scored[1] - scored[0]), count / (predicted[1] - predicted[0]))


def benchmark(count: int, few: int, rounds: int, cpus: Sequence[int], seed: int = 0) -> ReportTable:
    """The pictures per second per core of both commands, and their ratio with its interval over rounds."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "few", few, seed)
        write_pictures(folder / "many", count + few, seed)
        for number in range(rounds):
            (folder / str(number)).mkdir()
            found.append(run_round(folder / "few", folder / "many", cpus, folder / str(number)))
    logs = [math.log(one.score / one.predict) for one in found]
    interval = None
    if rounds > 1:
        estimate = t_interval(logs)
        interval = Interval(math.exp(estimate.low), math.exp(estimate.high))
    rows = (
        ("score, pictures per second per core", float(np.mean([one.score for one in found])) / len(cpus), None),
        ("predict, likewise", float(np.mean([one.predict for one in found])) / len(cpus), None),
        ("how many times as fast", math.exp(float(np.mean(logs))), interval),
    )
    title = f"{count} pictures of up to {SIDE} pixels, {len(cpus)} cores, {rounds} rounds"
    return ReportTable(title, (Column("measure"), Column("value", ".2f"), Column(INTERVAL.name, ".2f")), rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.scoring", description=__doc__)
    parser.add_argument("--pictures", type=int, default=400, help="that are timed (%(default)s)")
    parser.add_argument("--few", type=int, default=32, help="pictures whose time is taken off (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs (%(default)s)")
    parser.add_argument("--cores", type=int, default=2, help="CPUs that both commands run on (%(default)s)")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[: options.cores]
    if min(options.pictures, options.few, options.rounds, options.cores) < 1 or len(cpus) < options.cores:
        parser.error("all numbers must be >= 1, and --cores at most the CPUs of this machine")
    Console(width=120).print(benchmark(options.pictures, options.few, options.rounds, cpus).as_rich())


if __name__ == "__main__":
    main()
