"""`make bench-export`: one set of weights run by PyTorch, ONNX Runtime, onnx-tf as it comes, our SavedModel and Keras.

Each contender runs alone: others' worker threads spin for a while after a call, so a turn begins with a pause and an
untimed call. The TensorFlow ones run in a TF1 session, as TensorFlow Serving runs them.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import bootstrap

from emotion_ai.contract import CROP_SIZE, IMAGES_SIGNATURE, OUTPUTS, TASKS, Task
from emotion_ai.files import write_json
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.provenance import environment
from emotion_ai_export.bench.keras_twin import keras_twin
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.onnx_tf_compat import load_onnx_tf
from emotion_ai_export.convert.saved_model import save_servable
from emotion_ai_export.serving.embedded.store import LoadedModel

OURS, KERAS, ONNX_TF = "SavedModel", "Keras", "onnx-tf"
_PAUSE = 0.05  # seconds: longer than idle worker threads spin
_TURN = 0.05  # seconds of timed calls, at least one

Call = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""images float32 (N, 96, 96, 1) to the network's answer."""


def backends(task: Task, network: FaceNetwork, folder: Path, threads: int) -> dict[str, Call]:
    """All ways to run one network, by name."""
    model = to_onnx(network)
    save_servable({task: to_graph(model)}, task, folder / "ours")
    keras_twin(network).export(folder / "keras", "tf_saved_model", verbose=False)
    load_onnx_tf().prepare(model, logging_level="ERROR").export_graph(str(folder / "onnx_tf"))
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    return {
        "PyTorch": _torch(network),
        "ONNX Runtime": _onnx_runtime(model, threads),
        ONNX_TF: _session(folder / "onnx_tf", OUTPUTS[task][0], channels_first=True),
        OURS: _session(folder / "ours", OUTPUTS[task][0]),
        KERAS: _session(folder / "keras"),
    }


def measure(calls: dict[str, Call], batch: int, rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Milliseconds of a call in each round, by contender; the order changes from round to round.

    Raises:
        AssertionError: the contenders do not answer the same.
    """
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 255, (batch, CROP_SIZE, CROP_SIZE, 1)).astype(np.float32)
    wanted = calls["PyTorch"](images)
    repeats = {}
    for name, call in calls.items():
        np.testing.assert_allclose(call(images), wanted, atol=1e-4, err_msg=name)
        call(images)
        repeats[name] = max(1, round(_TURN / _seconds(call, images, 1)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in track(range(rounds), f"batch {batch}", transient=True, console=Console(stderr=True)):
        for name in rng.permutation(list(calls)):
            time.sleep(_PAUSE)
            calls[name](images)
            times[name].append(1000 * _seconds(calls[name], images, repeats[name]) / repeats[name])
    return times


def ratio(times: list[float], others: list[float]) -> tuple[float, float, float]:
    """Median over rounds of the ratio of two contenders' times, and its bootstrap 95 % interval."""
    quotients = np.array(times) / np.array(others)
    if len(quotients) < 2:
        return (float(quotients[0]),) * 3
    interval = bootstrap((quotients,), np.median, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return float(np.median(quotients)), float(interval.low), float(interval.high)


def main() -> None:
    parser = argparse.ArgumentParser(prog="emotion_ai_export.bench.speed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-export"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--checkpoint", nargs=2, default=["bundled", "bundled"], metavar=("KEYPOINTS", "EMOTION"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    nodes = {}
    for task, checkpoint in zip(TASKS, options.checkpoint, strict=True):
        network, _ = load_network(checkpoint, task)
        with tempfile.TemporaryDirectory() as folder:
            calls = backends(task, network, Path(folder), options.threads)
            nodes[task] = {name: count_nodes(Path(folder) / name) for name in ("ours", "onnx_tf", "keras")}
            for batch in options.batches:
                rows += _rows(task, batch, measure(calls, batch, options.rounds))
    record = {"rounds": options.rounds, "threads": options.threads, "environment": environment()}
    write_json(options.out / "speed.json", {**record, "nodes": nodes, "rows": rows})
    for task in TASKS:
        Console().print(_table(task, [row for row in rows if row["task"] == task]))
    draw(rows).savefig(options.out / "speed.png", dpi=150)
    Console().print(f"[green]wrote[/] {options.out}/speed.json and speed.png", highlight=False)


def count_nodes(folder: Path) -> dict[str, int]:
    """Nodes of a SavedModel, and the transposes among them."""
    from tensorflow.python.saved_model import loader_impl

    graph = loader_impl.parse_saved_model(str(folder)).meta_graphs[0].graph_def
    kinds = [node.op for part in (graph.node, *(f.node_def for f in graph.library.function)) for node in part]
    return {"nodes": len(kinds), "Transpose": kinds.count("Transpose")}


def draw(rows: list[dict[str, Any]]) -> Any:
    """Time relative to Keras, one panel for each task."""
    figure, panels = plt.subplots(1, len(TASKS), figsize=(11, 4.2), sharey=True, layout="constrained")
    for task, axes in zip(TASKS, panels, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        for name in dict.fromkeys(row["contender"] for row in of_task):
            own = [row for row in of_task if row["contender"] == name]
            place = range(len(own))
            middle, low, high = (np.array([row["to_keras"][i] for row in own]) for i in range(3))
            style = {"linewidth": 2.5, "zorder": 3} if name == OURS else {"linewidth": 1.2}
            axes.errorbar(place, middle, [middle - low, high - middle], marker="o", capsize=3, label=name, **style)
            axes.set_xticks(place, [str(row["batch"]) for row in own])
        axes.set(title=task, xlabel="faces in a call")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("time relative to Keras (median, 95 %)")
    panels[0].set_ylim(0)
    panels[-1].legend(frameon=False)
    return figure


def _rows(task: Task, batch: int, times: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "batch": batch,
            "contender": name,
            "milliseconds": float(np.median(values)),
            "to_keras": ratio(values, times[KERAS]),
            "to_onnx_tf": ratio(values, times[ONNX_TF]),
            "to_onnx_runtime": ratio(values, times["ONNX Runtime"]),
        }
        for name, values in times.items()
    ]


def _table(task: Task, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=f"{task}: median time of a call, ratios to the others' (95 %)", box=SIMPLE_HEAD, padding=0)
    for name in ("batch", "contender", "ms", "to Keras", "to onnx-tf", "to ONNX Runtime"):
        table.add_column(name, justify="left" if name == "contender" else "right", no_wrap=True)
    for row in rows:
        ratios = ("{:.2f} ({:.2f}-{:.2f})".format(*row[key]) for key in ("to_keras", "to_onnx_tf", "to_onnx_runtime"))
        shown = (str(row["batch"]), row["contender"], f"{row['milliseconds']:.2f}", *ratios)
        table.add_row(*shown, style="bold" if row["contender"] == OURS else None)
        if row["contender"] == KERAS:
            table.add_section()
    return table


def _seconds(call: Call, images: NDArray[np.float32], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call(images)
    return time.perf_counter() - started


def _torch(network: FaceNetwork) -> Call:
    network = network.to(memory_format=torch.channels_last)

    def call(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()

    return call


def _onnx_runtime(model: onnx.ModelProto, threads: int) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (images_input,) = (tensor.name for tensor in session.get_inputs())
    output = session.get_outputs()[0].name
    return lambda images: session.run([output], {images_input: images.transpose(0, 3, 1, 2)})[0]


def _session(folder: Path, output: str | None = None, channels_first: bool = False) -> Call:
    model = LoadedModel(folder)
    (images_input,) = model.dtypes(IMAGES_SIGNATURE)

    def call(images: NDArray[np.float32]) -> NDArray[np.float32]:
        fed = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if channels_first else images
        answers = model.run(IMAGES_SIGNATURE, {images_input: fed})
        return answers[output or next(iter(answers))]

    return call


if __name__ == "__main__":
    main()
