"""Time and memory against the number of faces: reading a dataset, an epoch, bulk scoring and a report.

`python -m emotion_ai.benchmarks.growth --out growth` runs each stage as a command of its own at several sizes, writes
`growth.json` and `growth.png`, and exits with 1 if a stage's time grows faster than its size, or its memory exceeds the
budget. Time is the CPU's, without that of the start of the command, which a run on few faces takes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy.stats import linregress
from scipy.stats import t as student

from emotion_ai.benchmarks.growth_plot import draw
from emotion_ai.benchmarks.process_tree import tree_usage
from emotion_ai.benchmarks.small_pictures import write_small_pictures
from emotion_ai.evaluation.tables import INTERVAL, Column, Interval, ReportTable
from emotion_ai.files import write_json
from emotion_ai.provenance import environment
from emotion_ai.terminal import Console

Stage = Literal["ingest", "epoch", "score", "report"]

SIZES: dict[Stage, tuple[int, ...]] = {
    "ingest": (10_000, 30_000, 100_000, 300_000, 1_000_000),
    "epoch": (20_000, 40_000, 80_000, 160_000),
    "score": (400, 1_200, 4_000, 10_000),
    "report": (3_000, 10_000, 30_000, 100_000),
}
"""Faces, or pictures."""

START: dict[Stage, int] = {"ingest": 100, "epoch": 400, "score": 40, "report": 100}
"""Faces of the run whose time is taken off."""

BUDGET: dict[Stage, int] = {"ingest": 1200, "epoch": 2500, "score": 3500, "report": 3000}
"""MiB that the processes of a stage may take at its largest size. Pages of mapped files count as well, although the
system takes them back when others need memory."""

MAX_EXPONENT, FAR_EXPONENT = 1.1, 1.3
"""A stage is not linear if its whole interval is above the first, or its exponent above the second."""

_NETWORK = ("model=small", "model.encoder.widths=[8,16,32]")
_POOL = 500


@dataclass(frozen=True)
class Run:
    """One run: seconds of CPU time without the start, and the most memory that it took, in MiB."""

    stage: Stage
    faces: int
    seconds: float
    memory: float


@dataclass(frozen=True)
class Growth:
    """How the time of a stage grows: the exponent of its power law, with its 95 % interval."""

    exponent: float
    low: float
    high: float

    @classmethod
    def of(cls, faces: Sequence[int], seconds: Sequence[float]) -> "Growth":
        """From three or more runs, by least squares of logarithms."""
        line = linregress(np.log(faces), np.log(seconds))
        half = float(student.ppf(0.975, len(faces) - 2) * line.stderr)
        return cls(float(line.slope), float(line.slope) - half, float(line.slope) + half)

    @property
    def linear(self) -> bool:
        """Whether the runs are compatible with time in proportion to the size."""
        return self.low <= MAX_EXPONENT and self.exponent <= FAR_EXPONENT


def write_csv(path: Path, count: int, part: str = "", pool: int | None = None, seed: int = 0) -> None:
    """A file like FER2013 of noise, in which all faces differ.

    Args:
        path: of the file.
        count: of the faces.
        part: of all of them; by default every fifth is in PublicTest.
        pool: faces that differ in more than a few pixels; by default all.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    texts = [str(level) for level in range(256)]
    rows = [_text(rng, texts) for _ in range(min(pool or 0, count))]
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for i in range(count):
            own = " ".join(texts[i >> shift & 255] for shift in (24, 16, 8, 0))
            pixels = rows[i % len(rows)] if rows else _text(rng, texts)
            usage = part or ("PublicTest" if i % 5 == 0 else "Training")
            file.write(f"{(0, 1, 3, 4, 5)[i % 5]},{pixels} {own},{usage}\n")


def _text(rng: np.random.Generator, texts: list[str]) -> str:
    return " ".join([texts[level] for level in rng.integers(0, 256, 48 * 48 - 4)])


@dataclass(frozen=True)
class _Place:
    """Where runs find what they need."""

    folder: Path

    def run(self, *command: str) -> tuple[float, float]:
        """CPU seconds and MiB of a command, with all its processes."""
        environment = os.environ | {"EMOTION_AI_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1"}
        with (self.folder / "log.txt").open("w") as log:
            process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
            usage = tree_usage(process)
        if process.returncode:
            raise SystemExit(
                f"{' '.join(command)}: exit code {process.returncode}\n{(self.folder / 'log.txt').read_text()}"
            )
        return usage.seconds, usage.memory

    def csv(self, count: int, part: str = "", pool: int | None = None) -> Path:
        """A new file of faces."""
        for old in [*self.folder.glob("*.csv"), *self.folder.glob("cache/*")]:
            old.unlink()
        path = self.folder / f"{count}.csv"
        write_csv(path, count, part, pool)
        return path

    def train(self, path: Path, *settings: str) -> tuple[float, float]:
        """Trains a small network for an epoch."""
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        given = ["task=emotion", f"data.train={path}", *_NETWORK, "epochs=1", "test=false", *settings]
        return self.run("-m", "emotion_ai.cli", "train", *given, f"out={self.folder / 'run'}")


def _ingest(place: _Place, count: int) -> tuple[float, float]:
    code = "import sys; from emotion_ai.data.loaders import load; load(sys.argv[1])"
    return place.run("-c", code, str(place.csv(count, pool=_POOL)))


def _epoch(place: _Place, count: int) -> tuple[float, float]:
    path = place.csv(count, pool=_POOL)
    place.run("-c", "import sys; from emotion_ai.data.loaders import load; load(sys.argv[1])", str(path))
    return place.train(path)


def _score(place: _Place, count: int) -> tuple[float, float]:
    photos, out = place.folder / f"photos{count}", place.folder / f"scores{count}"
    for old in (photos, out):
        shutil.rmtree(old, ignore_errors=True)
    write_small_pictures(photos, count, 0)
    return place.run("-m", "emotion_ai.cli", "score", str(photos), str(out), "--device", "cpu")


def _report(place: _Place, count: int) -> tuple[float, float]:
    network = place.folder / "run" / "network.safetensors"
    if not network.exists():
        place.train(place.csv(2000))
    given = ["task=emotion", f"checkpoint={network}", f"data.path={place.csv(count, 'PublicTest')}"]
    return place.run("-m", "emotion_ai.cli", "evaluate", *given, f"out={place.folder / 'report'}")


_RUN: dict[Stage, Callable[[_Place, int], tuple[float, float]]] = {
    "ingest": _ingest,
    "epoch": _epoch,
    "score": _score,
    "report": _report,
}


def measure(stages: Sequence[Stage], largest: int | None = None) -> list[Run]:
    """Runs stages at all their sizes, or at those up to the largest one."""
    console, runs = Console(stderr=True), []
    for stage in stages:
        with tempfile.TemporaryDirectory() as name:
            place = _Place(Path(name))
            start = min(_RUN[stage](place, START[stage])[0] for _ in range(2))  # the first also fills the disk's cache
            for count in SIZES[stage]:
                if largest is None or count <= largest:
                    seconds, memory = _RUN[stage](place, count)
                    runs.append(Run(stage, count, round(max(seconds - start, 0.01), 2), round(memory, 1)))
                    console.print(f"{stage}, {count:,}: {runs[-1].seconds:.1f} s, {memory:,.0f} MiB")
    return runs


def growths(runs: Sequence[Run]) -> dict[Stage, Growth]:
    """The growth of each stage that ran at three or more sizes."""
    found: dict[Stage, Growth] = {}
    for stage in get_args(Stage):
        own = [run for run in runs if run.stage == stage]
        if len(own) >= 3:
            found[stage] = Growth.of([run.faces for run in own], [run.seconds for run in own])
    return found


def faults(runs: Sequence[Run]) -> list[str]:
    """What is not as it must be."""
    found = []
    for stage, growth in growths(runs).items():
        if not growth.linear:
            found.append(f"{stage}: time grows with the power {growth.exponent:.2f} of the size, from {growth.low:.2f}")
    for run in runs:
        if run.memory > BUDGET[run.stage]:
            found.append(f"{run.stage}: {run.faces:,} take {run.memory:,.0f} MiB, more than {BUDGET[run.stage]:,}")
    return found


def table(runs: Sequence[Run]) -> ReportTable:
    """A row for each stage: its largest run, and how it grows."""
    columns = (
        *(Column("stage"), Column("faces", ","), Column("CPU seconds", ".0f"), Column("milliseconds each", ".3f")),
        *(Column("MiB", ",.0f"), Column("budget", ",.0f"), Column("exponent", ".2f"), Column(INTERVAL.name, ".2f")),
    )
    rows = []
    for stage, growth in growths(runs).items():
        last = max((run for run in runs if run.stage == stage), key=lambda run: run.faces)
        each, interval = 1000 * last.seconds / last.faces, Interval(growth.low, growth.high)
        rows.append(
            (stage, last.faces, last.seconds, each, last.memory, float(BUDGET[stage]), growth.exponent, interval)
        )
    return ReportTable("Growth", columns, tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.growth", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("growth"), help="folder for the results (%(default)s)")
    parser.add_argument("--stages", nargs="+", choices=get_args(Stage), default=list(get_args(Stage)))
    parser.add_argument("--largest", type=int, help="faces of the largest run; by default all sizes")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "growth.json"
    runs = measure(options.stages, options.largest)
    if file.exists():  # of other stages
        others = [Run(**run) for run in json.loads(file.read_text())["runs"]]
        runs = [run for run in others if run.stage not in options.stages] + runs
    found = {stage: asdict(growth) for stage, growth in growths(runs).items()}
    write_json(
        file,
        {
            "machine": environment()["machine"],
            "cores": os.cpu_count(),
            "runs": [asdict(run) for run in runs],
            "growth": found,
        },
    )
    draw({stage: [run for run in runs if run.stage == stage] for stage in found}, found, options.out / "growth.png")
    Console(width=140).print(table(runs).as_rich())
    if wrong := faults(runs):
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
