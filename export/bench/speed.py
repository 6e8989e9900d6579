"""`make bench-export`: the speed of one set of weights in PyTorch, ONNX Runtime, onnx-tf, our SavedModel and Keras.

Backends take turns. Worker threads of the others spin for a while after a call, so a turn begins with a pause and an
untimed call. `--baseline` compares our SavedModel's time relative to Keras and onnx-tf with an earlier result, which
depends less on the machine than milliseconds; `--absolute` compares its milliseconds too.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

from emotion_ai.contract import CROP_SIZE, TASKS, Task
from emotion_ai.errors import EmotionAIError
from emotion_ai.files import write_json
from emotion_ai.models import load_network
from emotion_ai.terminal import Console, print_error
from emotion_ai_export.bench import compare
from emotion_ai_export.bench.backends import (
    FOLDERS,
    KERAS,
    ONNX_RUNTIME,
    ONNX_TF,
    OURS,
    PYTORCH,
    Call,
    backends,
    count_nodes,
)
from emotion_ai_export.bench.compare import Figure, median_interval

_PAUSE = 0.05  # seconds: longer than idle worker threads spin
_TURN = 0.05  # seconds of timed calls, at least one
_MILLISECONDS = "ms"

Times = dict[str, list[float]]
"""Milliseconds of a call in each round, by backend."""


@dataclass(frozen=True)
class SpeedRow:
    """One backend at one batch size; ratios are medians over rounds with their 95 % intervals."""

    task: Task
    batch: int
    backend: str
    milliseconds: float
    to_keras: tuple[float, float, float]
    to_onnx_tf: tuple[float, float, float]
    to_onnx_runtime: tuple[float, float, float]


def measure(calls: dict[str, Call], batch: int, rounds: int, seed: int = 0) -> Times:
    """Times every backend in every round, in an order that changes from round to round.

    Raises:
        AssertionError: the backends' outputs differ.
    """
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 255, (batch, CROP_SIZE, CROP_SIZE, 1)).astype(np.float32)
    expected = calls[PYTORCH](images)
    repeats = {}
    for name, call in calls.items():
        np.testing.assert_allclose(call(images), expected, atol=1e-4, err_msg=name)
        call(images)
        repeats[name] = max(1, round(_TURN / _seconds(call, images, 1)))
    times: Times = {name: [] for name in calls}
    for _ in track(range(rounds), f"batch {batch}", transient=True, console=Console(stderr=True)):
        for name in rng.permutation(list(calls)):
            time.sleep(_PAUSE)
            calls[name](images)
            times[name].append(1000 * _seconds(calls[name], images, repeats[name]) / repeats[name])
    return times


def rows_of(task: Task, batch: int, times: Times) -> list[SpeedRow]:
    """One row per backend."""
    return [
        SpeedRow(
            task,
            batch,
            name,
            float(np.median(values)),
            *(median_interval(_ratios(values, times[other])) for other in (KERAS, ONNX_TF, ONNX_RUNTIME)),
        )
        for name, values in times.items()
    ]


def figures_of(task: Task, batch: int, times: Times) -> list[Figure]:
    """Our SavedModel's time relative to the other TensorFlow backends', and its milliseconds."""
    relative = [
        Figure(f"{task}, batch {batch}: {OURS} / {other}", _ratios(times[OURS], times[other]))
        for other in (KERAS, ONNX_TF)  # with the same thread pools, so other load on the machine affects both
    ]
    return [*relative, Figure(f"{task}, batch {batch}: {OURS}, {_MILLISECONDS}", times[OURS])]


def main() -> None:
    parser = argparse.ArgumentParser(prog="emotion_ai_export.bench.speed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-export"), help="folder for speed.json and .png")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each backend")
    parser.add_argument("--batches", type=int, nargs="+", help="faces in a call: the baseline's, or 1 8 32 64")
    parser.add_argument("--threads", type=int, help="of each backend: the baseline's, or one per core")
    parser.add_argument("--checkpoint", nargs=2, default=["bundled", "bundled"], metavar=("KEYPOINTS", "EMOTION"))
    parser.add_argument("--baseline", type=Path, help="speed.json of an earlier run to compare with")
    parser.add_argument("--absolute", action="store_true", help="compare milliseconds too: on the same machine only")
    compare.add_options(parser)
    options = parser.parse_args()
    try:
        earlier = compare.read_result(options.baseline) if options.baseline else {}
        options.batches = options.batches or earlier.get("batches", [1, 8, 32, 64])
        options.threads = options.threads or earlier.get("threads", os.cpu_count() or 1)
        figures = run(options)
        if options.baseline:
            compared = [f for f in figures if options.absolute or not f.name.endswith(_MILLISECONDS)]
            sys.exit(compare.report(compared, options.baseline, options))
    except EmotionAIError as error:
        print_error(error)
        sys.exit(2)


def run(options: argparse.Namespace) -> list[Figure]:
    """Measures, and writes speed.json and speed.png."""
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[SpeedRow] = []
    figures: list[Figure] = []
    nodes: dict[str, dict[str, dict[str, int]]] = {}
    for task, checkpoint in zip(TASKS, options.checkpoint, strict=True):
        network = load_network(checkpoint, task).network
        with tempfile.TemporaryDirectory() as folder:
            calls = backends(task, network, Path(folder), options.threads)
            nodes[task] = {name: count_nodes(Path(folder) / name) for name in FOLDERS.values()}
            figures.append(Figure(f"{task}: nodes of the {OURS}", [nodes[task][FOLDERS[OURS]]["nodes"]]))
            for batch in options.batches:
                times = measure(calls, batch, options.rounds)
                rows += rows_of(task, batch, times)
                figures += figures_of(task, batch, times)
    record = {
        "rounds": options.rounds,
        "batches": options.batches,
        "threads": options.threads,
        "environment": compare.machine(),
        "nodes": nodes,
        "rows": [asdict(row) for row in rows],
        "figures": compare.figures_record(figures),
    }
    write_json(options.out / "speed.json", record)
    for task in TASKS:
        Console().print(_speed_table(task, [row for row in rows if row.task == task]))
    draw(rows).savefig(options.out / "speed.png", dpi=150)
    Console().wrote(f"{options.out}/speed.json and speed.png")
    return figures


def draw(rows: list[SpeedRow]) -> Picture:
    """Time relative to Keras, one panel per task."""
    figure, panels = plt.subplots(1, len(TASKS), figsize=(11, 4.2), sharey=True, layout="constrained")
    for task, axes in zip(TASKS, panels, strict=True):
        of_task = [row for row in rows if row.task == task]
        for name in dict.fromkeys(row.backend for row in of_task):
            line = [row for row in of_task if row.backend == name]
            middle, low, high = (np.array([row.to_keras[i] for row in line]) for i in range(3))
            style: dict[str, Any] = {"linewidth": 2.5, "zorder": 3} if name == OURS else {"linewidth": 1.2}
            errors = [middle - low, high - middle]
            axes.errorbar(range(len(line)), middle, errors, marker="o", capsize=3, label=name, **style)
            axes.set_xticks(range(len(line)), [str(row.batch) for row in line])
        axes.set(title=task, xlabel="faces in a call")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("time relative to Keras (median, 95 %)")
    panels[0].set_ylim(0)
    panels[-1].legend(frameon=False)
    return figure


def _speed_table(task: Task, rows: list[SpeedRow]) -> Table:
    table = Table(title=f"{task}: median time of a call, and ratios (95 %)", box=SIMPLE_HEAD, padding=0)
    for name in ("batch", "backend", "ms", "to Keras", "to onnx-tf", "to ONNX Runtime"):
        table.add_column(name, justify="left" if name == "backend" else "right", no_wrap=True)
    for row in rows:
        ratios = ("{:.2f} ({:.2f}-{:.2f})".format(*r) for r in (row.to_keras, row.to_onnx_tf, row.to_onnx_runtime))
        cells = (str(row.batch), row.backend, f"{row.milliseconds:.2f}", *ratios)
        table.add_row(*cells, style="bold" if row.backend == OURS else None)
        if row.backend == KERAS:
            table.add_section()
    return table


def _ratios(times: list[float], others: list[float]) -> list[float]:
    return [time / other for time, other in zip(times, others, strict=True)]


def _seconds(call: Call, images: NDArray[np.float32], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call(images)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
