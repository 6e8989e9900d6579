"""All figures of a GPU in one run of at most eight minutes: `python -m emotion_ai.benchmarks.gpu --out FOLDER`.

Writes `gpu.json` and `gpu.md`. It needs the extra [train] and, for the times of `experiment=*_fast` to their targets,
the datasets below EMOTION_AI_DATA. A part that fails or has no time left is named in the result; the others go on. With
`--device cpu --tiny` it runs anywhere in a minute, as a test.
"""

import argparse
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from emotion_ai.benchmarks import gpu_parts as parts
from emotion_ai.benchmarks.gpu_parts import Target
from emotion_ai.benchmarks.training import Comparison, compare, comparison_table, records, stage_table
from emotion_ai.benchmarks.training_runs import StageTimes, TrainingSetting, measure_stages
from emotion_ai.contract import TASKS
from emotion_ai.evaluation.tables import Column, ReportTable
from emotion_ai.files import atomic_path, write_json
from emotion_ai.provenance import environment
from emotion_ai.terminal import Console

_EMOTION = ("data=fer2013", "val/accuracy", 0.80, True)
_KEYPOINTS = ("data=kaggle", "val/rmse", 1.7, False)


def _target(data: str, metric: str, value: float, largest: bool, *overrides: str) -> Target:
    return Target((*overrides, data), metric, value, largest)


TARGETS = (
    _target(*_EMOTION, "experiment=emotion_fast"),
    _target(*_KEYPOINTS, "experiment=keypoints_fast"),
)
"""The recipes whose time to a target is measured."""
VARIANTS = (
    _target(*_EMOTION, "experiment=emotion_fast", "epochs=28"),
    _target(*_KEYPOINTS, "experiment=keypoints_fast", "epochs=40"),
)
"""Shorter cycles, to see whether the recipes are well chosen."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        batch_sizes: of training.
        inference: batch sizes.
        batches, epochs: of each measurement of stages.
        compared, rounds: the batch size and the number of rounds of the comparison.
        seconds: of each measurement of inference.
        extremes: images of each kind for half precision.
        precisions: of inference.
        compiled: whether training is compiled, too.
        overrides: of all training settings.
    """

    batch_sizes: tuple[int, ...] = (64, 256, 512, 1024)
    inference: tuple[int, ...] = (1, 8, 64, 512, 4096)
    batches: int = 20
    epochs: int = 2
    compared: int = 256
    rounds: int = 4
    seconds: float = 0.4
    extremes: int = 64
    precisions: tuple[str, ...] = tuple(parts.PRECISIONS)
    compiled: bool = True
    overrides: tuple[str, ...] = ()


TINY = Sizes((4,), (1, 2), 3, 1, 4, 2, 0.01, 1, ("fp32", "bf16"), compiled=False, overrides=("model=small",))


@dataclass
class Measurement:
    """Results so far, and how much time is left for others."""

    device: torch.device
    trainer: str
    folder: Path
    sizes: Sizes
    deadline: float
    results: dict[str, list[Any]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def attempt(self, part: str, name: str, function: Callable[..., Any], *arguments: Any, needs: float = 5) -> None:
        """Adds a result to a part, unless it fails or fewer than `needs` seconds are left."""
        left = self.deadline - time.monotonic()
        if left < needs:
            self.failed.append(f"{part}, {name}: no time left")
            return
        began = time.monotonic()
        try:
            result = function(*arguments)
        except Exception as error:  # one part must not end the others
            self.failed.append(f"{part}, {name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            traceback.print_exc()
            return
        self.results.setdefault(part, []).extend(result if isinstance(result, list) else [result])
        print(f"{part}, {name}: {time.monotonic() - began:.1f} s, {self.deadline - time.monotonic():.0f} s left")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            yield Path(name)


def measure(found: Measurement) -> None:
    """All parts, the most important first."""
    sizes, device = found.sizes, found.device
    precise = "32-true" if device.type == "cpu" else "bf16-mixed"

    def setting(task: Any, size: int, precision: str | None = None, compiled: bool = False) -> TrainingSetting:
        return TrainingSetting(task, task, size, found.trainer, precision or precise, compiled, sizes.overrides)

    def stages(*arguments: Any) -> StageTimes:
        with found.scratch() as folder:
            return measure_stages(setting(*arguments), folder, sizes.batches, sizes.epochs)

    def waits(task: str) -> dict[str, Any]:
        with found.scratch() as folder:
            return {"task": task} | parts.count_waits(setting(task, sizes.batch_sizes[-1]), folder)

    def target(one: Target, compiled: bool = False) -> dict[str, Any]:
        with found.scratch() as folder:
            return parts.time_to_target(one, found.trainer, compiled, folder)

    has_data = bool(os.environ.get("EMOTION_AI_DATA"))
    if device.type == "cuda":
        for task in TASKS:
            found.attempt("waits", task, waits, task)
    for one in TARGETS if has_data else ():
        found.attempt("targets", " ".join(one.overrides), target, one)
    for task in TASKS:
        for precision in sizes.precisions[1:]:
            arguments: tuple[Any, ...] = parts.bundled_network(task), device, precision, sizes.extremes
            found.attempt("half", f"{task} {precision}", parts.half_precision_errors, *arguments)
    for task, size in product(TASKS, sizes.batch_sizes):
        found.attempt("stages", f"{task} {size}", stages, task, size)
    for task in TASKS:
        batches = sizes.batches if device.type == "cpu" else 4 * _threads()  # keeps all workers busy
        arguments = setting(task, sizes.compared), batches, sizes.rounds, _threads()
        found.attempt("comparisons", task, compare, *arguments, needs=40)
    for task, precision, size in product(TASKS, sizes.precisions, sizes.inference):
        arguments = parts.bundled_network(task), device, size, precision, sizes.seconds
        found.attempt("inference", f"{task} {precision} {size}", parts.inference_speed, *arguments)
    for task in TASKS:
        found.attempt("stages", f"{task}, 32 bits", stages, task, sizes.compared, "32-true")
    for one in VARIANTS if has_data else ():
        found.attempt("targets", " ".join(one.overrides), target, one, needs=20)
    for task in TASKS if sizes.compiled else ():
        found.attempt("stages", f"{task}, compiled", stages, task, sizes.batch_sizes[-1], None, True, needs=45)
    for one in TARGETS if has_data and sizes.compiled else ():
        found.attempt("targets", f"{' '.join(one.overrides)}, compiled", target, one, True, needs=45)


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def machine(device: torch.device) -> dict[str, Any]:
    """Versions, processor and GPU."""
    found = environment() | {"cores": _threads(), "device": device.type}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found |= {"device": properties.name, "memory": properties.total_memory} | versions
    return found


def as_dict(found: Measurement) -> dict[str, Any]:
    """For JSON."""
    comparisons: Sequence[Comparison] = found.results.get("comparisons", [])
    results = {
        name: [one if isinstance(one, dict) else asdict(one) for one in values]
        for name, values in found.results.items()
    }
    return {
        "environment": machine(found.device),
        "sizes": asdict(found.sizes),
        "records": records(comparisons, found.results.get("stages", [])),
        **results,
        "failed": found.failed,
    }


def as_markdown(found: Measurement) -> str:
    """All results as tables."""
    results = found.results
    made: list[ReportTable] = []
    if targets := results.get("targets"):
        made.append(_table("Time to a target", targets, _TARGET))
    if stages := results.get("stages"):
        made.append(stage_table(stages))
    if comparisons := results.get("comparisons"):
        made.append(comparison_table(comparisons))
    if inference := results.get("inference"):
        made.append(_inference_table(inference))
    if half := results.get("half"):
        made.append(_table("Half precision against 32 bits", half, {name: ".4f" for name in half[0]}))
    if waits := results.get("waits"):
        made.append(_table("Waits for the GPU in training steps", waits, {"task": "", "steps": "", "waits": ""}))
    described = machine(found.device)
    lines = [
        f"# {described['device']}",
        "",
        f"PyTorch {described['packages']['torch']}, {described['cores']} CPU cores",
    ]
    for table in made:
        lines += ["", f"## {table.title}", "", table.as_markdown()]
    if found.failed:
        lines += ["", "## Not measured", "", *(f"- {text}" for text in found.failed)]
    return "\n".join(lines) + "\n"


_TARGET = {
    "recipe": "",
    "compiled": "",
    "target": "",
    "epochs": "",
    "seconds_to_target": ".2f",
    "best": ".4f",
    "first_epoch": ".2f",
    "epoch": ".3f",
    "loading": ".1f",
}


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> ReportTable:
    cells = [tuple(str(v) if isinstance(v := row[name], bool | dict) else v for name in columns) for row in rows]
    return ReportTable(
        title, tuple(Column(name.replace("_", " "), d or "d") for name, d in columns.items()), tuple(cells)
    )


def _inference_table(rows: Sequence[Mapping[str, Any]]) -> ReportTable:
    sizes = sorted({row["batch_size"] for row in rows})
    rates = {(row["task"], row["precision"], row["batch_size"]): row["faces_per_second"] for row in rows}
    pairs = list(dict.fromkeys((row["task"], row["precision"]) for row in rows))
    cells = tuple((f"{task}, {how}", *(rates.get((task, how, size)) for size in sizes)) for task, how in pairs)
    columns = (Column("network, precision"), *(Column(f"batch {size}", ",.0f") for size in sizes))
    return ReportTable("Inference, faces per second", columns, cells)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder for gpu.json and gpu.md")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=460, help="after which no further part begins (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, as a test")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu --tiny tests the script without one")
    device = torch.device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = "gpu" if device.type == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        sizes = TINY if options.tiny else Sizes()
        found = Measurement(device, trainer, Path(folder), sizes, time.monotonic() + options.seconds)
        measure(found)
    write_json(options.out / "gpu.json", as_dict(found))
    with atomic_path(options.out / "gpu.md") as partial:
        partial.write_text(as_markdown(found))
    console = Console()
    for name in ("gpu.json", "gpu.md"):
        console.wrote(options.out / name, "figures of this machine")


if __name__ == "__main__":
    main()
