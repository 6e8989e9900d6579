"""Training speed: images per second and memory of ours against the customary pipeline, and the stages of a step.

`python -m emotion_ai.benchmarks.training` trains the two default networks on noise. Each pipeline has a process of its
own, and they take turns, epoch by epoch. The customary one is a DataLoader with a worker for each core, torchvision's
transforms and PyTorch's defaults: 32 bits, no channels-last. A third pipeline is the customary one in our precision and
memory layout: what is left is the input.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from emotion_ai.benchmarks.customary import CustomaryTraining
from emotion_ai.benchmarks.training_runs import (
    EpochClock,
    StageTimes,
    TrainingSetting,
    build,
    fit,
    measure_stages,
    synchronize,
)
from emotion_ai.contract import TASKS
from emotion_ai.evaluation.statistics import t_interval
from emotion_ai.evaluation.tables import INTERVAL, Column, Interval, ReportTable
from emotion_ai.files import write_json
from emotion_ai.provenance import environment
from emotion_ai.terminal import Console

Pipeline = Literal["ours", "customary", "customary, our precision"]
PIPELINES: tuple[Pipeline, ...] = ("ours", "customary", "customary, our precision")


@dataclass(frozen=True)
class Turn:
    """An epoch of one pipeline.

    Attributes:
        seconds: that it took.
        memory: the largest number of bytes that tensors took on a GPU until then; None on a processor.
    """

    seconds: float
    memory: int | None


@dataclass(frozen=True)
class PipelineSpeed:
    """One pipeline.

    Attributes:
        images_per_second: of each round.
        memory: bytes: the largest of the process and its workers together; on a GPU the largest of tensors there.
    """

    pipeline: Pipeline
    images_per_second: tuple[float, ...]
    memory: int
    cpu_milliseconds: tuple[float, ...] = ()
    """Of all cores together for an image, workers included: comparable on a busy machine, too."""


@dataclass(frozen=True)
class Comparison:
    """Pipelines that took turns; the first is ours."""

    setting: TrainingSetting
    speeds: tuple[PipelineSpeed, ...]

    def ratio(self, other: PipelineSpeed) -> tuple[float, Interval | None]:
        """How many times as fast ours is, with its 95 % interval over rounds."""
        return _ratio(self.speeds[0].images_per_second, other.images_per_second)

    def cpu_ratio(self, other: PipelineSpeed) -> tuple[float, Interval | None]:
        """How many times as much CPU time the other one takes."""
        return _ratio(other.cpu_milliseconds, self.speeds[0].cpu_milliseconds)


def _ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, Interval | None]:
    logs = [math.log(one / other) for one, other in zip(first, second, strict=True)]
    ratio = math.exp(float(np.mean(logs)))
    if len(logs) < 2:
        return ratio, None
    estimate = t_interval(logs)
    return ratio, Interval(math.exp(estimate.low), math.exp(estimate.high))


def compare(
    setting: TrainingSetting, batches: int, rounds: int, threads: int, workers: int | None = None
) -> Comparison:
    """Trains all pipelines in turns, each in its own process.

    Args:
        batches: of an epoch.
        rounds: epochs that are measured, after one that is not.
        threads: of PyTorch in each process.
        workers: of the DataLoaders; by default as many as threads.
    """
    context = get_context("spawn")
    turns: dict[Pipeline, list[Turn]] = {pipeline: [] for pipeline in PIPELINES}
    busy: dict[Pipeline, list[float]] = {pipeline: [] for pipeline in PIPELINES}
    peaks = dict.fromkeys(PIPELINES, 0)
    with tempfile.TemporaryDirectory() as folder:
        processes, ends = {}, {}
        for pipeline in PIPELINES:
            ends[pipeline], theirs = context.Pipe()
            arguments = (theirs, pipeline, setting, Path(folder) / str(len(ends)), batches, rounds + 1, threads)
            processes[pipeline] = context.Process(target=_serve, args=(*arguments, workers or threads), daemon=False)
            processes[pipeline].start()
            theirs.close()
        try:
            for number in range(rounds + 1):
                for pipeline in PIPELINES[:: 1 if number % 2 else -1]:
                    pid = processes[pipeline].pid or 0
                    before = cpu_seconds_of(pid)
                    ends[pipeline].send(None)
                    turn, peak = _receive(ends[pipeline], pid)
                    busy[pipeline].append(cpu_seconds_of(pid) - before)
                    peaks[pipeline] = max(peaks[pipeline], turn.memory or peak)
                    turns[pipeline].append(turn)
        finally:
            for pipeline, process in processes.items():
                ends[pipeline].close()
                process.join(30)
                process.kill()
    images = setting.batch_size * batches
    return Comparison(
        setting,
        tuple(
            PipelineSpeed(
                pipeline,
                tuple(images / turn.seconds for turn in turns[pipeline][1:]),
                peaks[pipeline],
                tuple(1000 * seconds / images for seconds in busy[pipeline][1:]),
            )
            for pipeline in PIPELINES
        ),
    )


def _receive(connection: Connection, pid: int) -> tuple[Turn, int]:
    """A process's turn, and the most memory that it took meanwhile with all that it started."""
    peak = 0
    while not connection.poll(0.1):
        peak = max(peak, memory_of(pid))
    return connection.recv(), max(peak, memory_of(pid))


def memory_of(pid: int) -> int:
    """Bytes of a process and all that it started; pages that they share count once. 0 where Linux's /proc is not."""
    total = 0
    for one in _with_children(pid):
        with suppress(OSError):  # it has ended
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def cpu_seconds_of(pid: int) -> float:
    """CPU time of a process and of all that it started and that still runs. 0 where Linux's /proc is not."""
    ticks = 0
    for one in _with_children(pid):
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                yield from _with_children(int(child))


def _serve(
    connection: Connection,
    pipeline: Pipeline,
    setting: TrainingSetting,
    out: Path,
    batches: int,
    epochs: int,
    threads: int,
    workers: int,
) -> None:
    """One pipeline's process: trains an epoch whenever the other end sends something."""
    torch.set_num_threads(threads)
    run = build(setting, out, batches, epochs)
    device = run.trainer.strategy.root_device

    def send(seconds: float) -> None:
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        connection.send(Turn(seconds, memory))

    try:
        if pipeline == "ours":
            fit(run, EpochClock(device, connection.recv, send))
            return
        same = pipeline != "customary"
        half = torch.bfloat16 if "bf16" in str(run.trainer.precision) and (same or device.type == "cuda") else None
        training = CustomaryTraining(run, workers, half, channels_last=same)
        for _ in range(epochs):
            connection.recv()
            synchronize(device)
            began = time.perf_counter()
            training.epoch()
            synchronize(device)
            send(time.perf_counter() - began)
    except (EOFError, ConnectionError):  # the other end has gone
        return


def comparison_table(found: Sequence[Comparison]) -> ReportTable:
    """Images per second, memory and ratios."""
    rows = []
    for comparison in found:
        for speed in comparison.speeds:
            ratio, interval = comparison.ratio(speed)
            name = f"{comparison.setting.task}: {speed.pipeline}"
            of_ours = (None, None) if speed.pipeline == "ours" else (ratio, interval)
            busy: tuple[float | None, ...] = (None, None)
            if speed.cpu_milliseconds:
                own = speed.pipeline == "ours"
                busy = (float(np.mean(speed.cpu_milliseconds)), None if own else comparison.cpu_ratio(speed)[0])
            rows.append((name, float(np.mean(speed.images_per_second)), speed.memory / 2**20, *of_ours, *busy))
    columns = ["pipeline", "images/s", "memory (MiB)", "ours is faster by", INTERVAL.name]
    columns += ["CPU ms/image", "ratio to ours"]
    digits = (".1f", ".1f", ".0f", ".2f", ".2f", ".2f", ".2f")
    return ReportTable("Training", tuple(map(Column, columns, digits)), tuple(rows))


def stage_table(found: Sequence[StageTimes]) -> ReportTable:
    """Milliseconds of a step by stage, and the input pipeline's share."""
    names = list(found[0].milliseconds)
    rows = []
    for times in found:
        setting = times.setting
        name = f"{setting.task}, {setting.batch_size}, {setting.precision or setting.trainer}"
        name += ", compiled" if setting.compile else ""
        memory = None if times.memory is None else times.memory / 2**20
        values = [times.milliseconds[stage] for stage in names]
        rows.append((name, *values, times.input_share, times.images_per_second, memory, times.start_seconds))
    columns = ("network, batch, precision", *(f"{name} (ms)" for name in names), "input's share", "images/s")
    columns += ("memory (MiB)", "first epoch (s)")
    digits = [".1f"] * (len(names) + 1) + [".3f", ".0f", ".0f", ".1f"]
    return ReportTable("Stages of a training step", tuple(map(Column, columns, digits)), tuple(rows))


def records(comparisons: Sequence[Comparison], stages: Sequence[StageTimes]) -> list[dict[str, Any]]:
    """One record for each figure: name, value, unit, and where there are rounds the 95 % interval."""
    found: list[dict[str, Any]] = []
    for comparison in comparisons:
        task = comparison.setting.task
        for speed in comparison.speeds:
            name = f"training/{task}/{speed.pipeline}"
            found.append({"name": name, "value": float(np.mean(speed.images_per_second)), "unit": "images/s"})
            found.append({"name": f"{name}/memory", "value": speed.memory, "unit": "bytes"})
            if speed.pipeline != "ours":
                ratio, interval = comparison.ratio(speed)
                record = {"name": f"training/{task}/ours to {speed.pipeline}", "value": ratio, "unit": "ratio"}
                found.append(record | ({"low": interval.low, "high": interval.high} if interval else {}))
    for times in stages:
        name = f"training/{times.setting.task}/input share"
        found.append({"name": name, "value": times.input_share, "unit": "share of a step"})
    return found


@dataclass(frozen=True)
class TrainingSpeed:
    """Everything that this benchmark measures."""

    comparisons: tuple[Comparison, ...]
    stages: tuple[StageTimes, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        machine = environment() | {"cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads()}
        return {
            "environment": machine,
            "records": records(self.comparisons, self.stages),
            "comparisons": [asdict(one) for one in self.comparisons],
            "stages": [asdict(one) for one in self.stages],
        }


def benchmark(
    settings: Sequence[TrainingSetting], batches: int, rounds: int, threads: int, stage_batches: int
) -> TrainingSpeed:
    """Compares the pipelines and measures the stages, for each setting."""
    comparisons = [compare(setting, batches, rounds, threads) for setting in settings]
    torch.set_num_threads(threads)
    stages = []
    for setting in settings:
        with tempfile.TemporaryDirectory() as folder:
            stages.append(measure_stages(setting, Path(folder), stage_batches))
    return TrainingSpeed(tuple(comparisons), tuple(stages))


def cpu_trainer() -> str:
    """The faster of the two for this processor: "cpu_bf16" if it has bfloat16 units, otherwise "cpu"."""
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return "cpu_bf16" if found.get("avx512_bf16") or found.get("amx_bf16") else "cpu"


def default_settings(trainer: str, batch_size: int) -> list[TrainingSetting]:
    """The two default networks."""
    return [TrainingSetting(task, task, batch_size, trainer) for task in TASKS]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.training", description=__doc__)
    parser.add_argument("--trainer", default=cpu_trainer(), help="ours: cpu, cpu_bf16 or gpu (%(default)s)")
    parser.add_argument("--precision", help="of ours, as of Lightning's Trainer (that of --trainer)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--batches", type=int, default=6, help="of an epoch, which is a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each pipeline (%(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    options = parser.parse_args()
    if min(options.batch_size, options.batches, options.rounds, options.threads) < 1:
        parser.error("all numbers must be >= 1")
    settings = [
        replace(one, precision=options.precision) for one in default_settings(options.trainer, options.batch_size)
    ]
    found = benchmark(settings, options.batches, options.rounds, options.threads, options.batches)
    console = Console(width=180)
    console.print(comparison_table(found.comparisons).as_rich(), stage_table(found.stages).as_rich())
    if options.out:
        write_json(options.out, json.loads(json.dumps(found.as_dict())))


if __name__ == "__main__":
    main()
