"""`make bench`: the speed of reading, loading data, training and inference, compared with a baseline.

A stage's figure is its time relative to a fixed workload that takes turns with it, so it depends little on the machine
and on what else runs there. `--fail` exits with 1 if a stage became slower than in the baseline by more than its
margin. `--quick` leaves out training and the table of models, which need the most time.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from emotion_ai.benchmarks import training
from emotion_ai.benchmarks.interleaved import Round, Stage, measure
from emotion_ai.benchmarks.stages import ingest_stages, one_thread, reading_stages
from emotion_ai.benchmarks.training import Comparison
from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.files import write_json, write_text
from emotion_ai.inference.reader import FaceReader
from emotion_ai.terminal import Console, print_error
from emotion_ai_export.bench import compare, models_table
from emotion_ai_export.bench.compare import Change, Figure, median_interval
from emotion_ai_export.bench.models_table import ModelRow
from emotion_ai_export.bench.regression import MOST, ROUNDS, Measure, judge, measure_against
from emotion_ai_export.bench.suite_page import page
from emotion_ai_export.serving.flags import available_cpus

BASELINE = Path("docs/benchmarks/suite.json")
PARTS = ("reading", "ingest", "training", "models")
QUICK = ("reading", "ingest")
_TRAINING_BATCH, _TRAINING_BATCHES = 64, 4
_TRAINING_ROUNDS = 4, 8  # at first, and at most; processes that start anew
_TRAINING_MARGIN = 0.5


@dataclass(frozen=True)
class StageRow:
    """A stage's speed, and its time relative to its fixed workload: the median over rounds with a 95 % interval."""

    name: str
    unit: str
    per_second: float
    ratio: float
    low: float
    high: float
    margin: float


class Suite:
    """What was measured, each figure of the baseline until it is clear.

    Args:
        baseline: by name; a figure that it lacks is measured, but not judged.
        rounds: of a stage at first.
        most: rounds of an unclear stage, or of one that the baseline lacks.
    """

    def __init__(self, baseline: list[Figure], rounds: int = ROUNDS, most: int = MOST) -> None:
        self.baseline = {figure.name: figure for figure in baseline}
        self.rounds, self.most = rounds, most
        self.rows: list[StageRow] = []
        self.figures: list[Figure] = []
        self.changes: list[Change] = []

    def add_stages(self, stages: list[Stage]) -> None:
        for stage in stages:
            taken: list[Round] = []

            def more(count: int, stage: Stage = stage, taken: list[Round] = taken) -> list[float]:
                new = measure(stage, count)
                taken.extend(new)
                return [each.ratio for each in new]

            figure = self._figure(stage.name, more, stage.margin, self.rounds, self.most)
            per_second = stage.items / float(np.median([each.seconds for each in taken]))
            self._add_row(figure, stage.unit, per_second, stage.margin)

    def add_training(self) -> list[Comparison]:
        """Training of both networks on a processor, all its cores, against the customary pipeline."""
        threads, comparisons = available_cpus(), []
        for setting in training.default_settings(training.cpu_trainer(), _TRAINING_BATCH):
            taken: list[Comparison] = []

            def more(count: int, setting: Any = setting, taken: list[Comparison] = taken) -> list[float]:
                taken.append(training.compare(setting, _TRAINING_BATCHES, count, threads))
                ours, customary = (each.images_per_second for each in taken[-1].speeds[:2])
                return [theirs / own for own, theirs in zip(ours, customary, strict=True)]

            name = f"training of {setting.task} with {setting.trainer} against the customary pipeline"
            figure = self._figure(name, more, _TRAINING_MARGIN, *_TRAINING_ROUNDS)
            self._add_row(figure, "images", float(np.median(taken[-1].speeds[0].images_per_second)), _TRAINING_MARGIN)
            comparisons.append(taken[-1])
        return comparisons

    def _figure(self, name: str, more: Measure, margin: float, rounds: int, most: int) -> Figure:
        if name not in self.baseline:
            return Figure(name, more(most))
        figure = measure_against(self.baseline[name], more, margin, rounds, most)
        self.changes.append(judge(figure, self.baseline[name], margin))
        return figure

    def _add_row(self, figure: Figure, unit: str, per_second: float, margin: float) -> None:
        self.figures.append(figure)
        self.rows.append(StageRow(figure.name, unit, per_second, *median_interval(figure.values), margin=margin))


@contextmanager
def stages_of(parts: list[str]) -> Iterator[list[Stage]]:
    """The stages of "reading" and "ingest", ready to be measured."""
    stages: list[Stage] = []
    with one_thread(), tempfile.TemporaryDirectory() as folder, ingest_stages(Path(folder)) as ingest:
        if "reading" in parts:
            stages += reading_stages(FaceReader.bundled(device="cpu"))
        if "ingest" in parts:
            stages += ingest
        yield stages


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai_export.bench.suite", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help=f"only {' and '.join(QUICK)}")
    parser.add_argument("--baseline", type=Path, help="suite.json of an earlier run to compare with")
    parser.add_argument("--fail", action="store_true", help="exit with 1 if a stage is slower than in the baseline")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of a stage, at first")
    parser.add_argument("--most", type=int, default=MOST, help="rounds of an unclear stage, or without a baseline")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for suite.json and the figures")
    parser.add_argument(
        "--peers", type=Path, default=Path("build/peers"), help="where `make bench-peers` installed them"
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("EMOTION_AI_DATA"), help="folder of the datasets")
    options = parser.parse_args()
    try:
        sys.exit(run(options))
    except EmotionAIError as error:
        print_error(error)
        sys.exit(2)


def run(options: argparse.Namespace) -> int:
    """Measures, prints, and writes suite.json and models.png; returns the exit code.

    Raises:
        ConfigError: an option is out of range, or the baseline cannot be read or has none of the stages.
    """
    if not 2 <= options.rounds <= options.most:
        raise ConfigError(f"--rounds must be from 2 to --most, got {options.rounds} and {options.most}")
    parts = options.only or list(QUICK if options.quick else PARTS)
    baseline = compare.read_figures(options.baseline) if options.baseline else []
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    suite = Suite(baseline, options.rounds, options.most)
    with stages_of(parts) as stages:
        suite.add_stages(stages)
    comparisons = suite.add_training() if "training" in parts else []
    if comparisons:
        console.print(training.comparison_table(comparisons).as_rich())
    rows: list[ModelRow] = []
    absent: list[str] = []
    if "models" in parts:
        with models_table.loaded_models(options.peers, options.data) as loaded:
            suite.add_stages(loaded.stages)
            rows, absent = models_table.measure(loaded.runtimes, options.rounds), loaded.absent
        console.print(models_table.models_table(rows, absent))
        models_table.draw(rows).savefig(options.out / "models.png", dpi=120)
        console.wrote(options.out / "models.png")
    if options.baseline and not suite.changes:
        raise ConfigError(f"{options.baseline}: has none of the stages; write it anew with `make bench-baseline`")
    record: dict[str, Any] = {
        "environment": compare.machine(),
        "stages": [asdict(row) for row in suite.rows],
        "training": training.records(comparisons, []),
        "models": [asdict(row) for row in rows],
        "packages_left_out": absent,
        "figures": compare.figures_record(suite.figures),
    }
    console.print(stage_table(suite.rows))
    write_json(options.out / "suite.json", record)
    write_text(options.out / "suite.md", page(record))
    console.wrote(f"{options.out}/suite.json and suite.md")
    if not suite.changes:
        return 0
    compare.write_table(suite.changes, console)
    slower = [change.name for change in suite.changes if change.verdict == "worse"]
    summary = f"slower than in {options.baseline}: {', '.join(slower)}" if slower else "no stage became slower"
    console.print(summary, soft_wrap=True, highlight=False)
    return int(bool(slower) and options.fail)


def stage_table(rows: list[StageRow]) -> Table:
    table = Table(title="Stages, relative to their fixed workload", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("stage", "per second", "relative time (95 %)", "margin"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for row in rows:
        ratio = f"{row.ratio:.2f} ({row.low:.2f}-{row.high:.2f})"
        table.add_row(row.name, f"{row.per_second:,.1f} {row.unit}", ratio, f"{row.margin:.0%}")
    return table


if __name__ == "__main__":
    main()
