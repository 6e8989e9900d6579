"""`python -m emotion_ai_export.bench.profile`: where the time of a SavedModel with one face goes.

The bundled networks run in a TF1 session, as in TensorFlow Serving, and in ONNX Runtime, in turns. With one thread the
processor time is compared, which other work on the machine changes least. Then TensorFlow traces every operation. Times
are medians over runs; tracing makes a run a little slower.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from emotion_ai.benchmarks.interleaved import Stage, measure
from emotion_ai.contract import CROP_SIZE, IMAGES_SIGNATURE, TASKS, Task
from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.files import write_json
from emotion_ai.models import load_network
from emotion_ai.terminal import Console, print_error
from emotion_ai_export.bench.backends import FOLDERS, ONNX_RUNTIME, OURS, backends
from emotion_ai_export.bench.compare import median_interval
from emotion_ai_export.bench.threads import session_call
from emotion_ai_export.convert.frameworks import tf

_KINDS = {
    "FusedConv2D": "convolutions with bias and ReLU",
    "Conv2D": "convolutions with bias and ReLU",
    "FusedMatMul": "matrix products",
    "AvgPool": "pooling and means",
    "Mean": "pooling and means",
    "Max": "pooling and means",
    "Sigmoid": "gates and sums",
    "Mul": "gates and sums",
    "AddV2": "gates and sums",
    "Relu": "gates and sums",
    "Sub": "normalisation",
    "Const": "constants",
}
_GATES = "1x1 convolutions of the gates"
_OTHERS = "checks, shapes and the rest"


@dataclass(frozen=True)
class Kind:
    """Operations of one kind in a run: how many, and their microseconds, with what the executor adds to each."""

    name: str
    count: int
    microseconds: float


@dataclass(frozen=True)
class Profile:
    """A network with one face: milliseconds of a call, its ratio to ONNX Runtime's (95 %), and its operations."""

    task: Task
    milliseconds: float
    to_onnx_runtime: tuple[float, float, float]
    kinds: list[Kind]


def kinds_of(runs: list[Any]) -> list[Kind]:
    """The operations in the `StepStats` of several runs, by kind, the longest first."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for stats in runs:
        for node in (node for device in stats.dev_stats for node in device.node_stats):
            times[_kind(node)][node.node_name].append(node.all_end_rel_nanos / 1000)
    found = [
        Kind(name, len(nodes), sum(float(np.median(values)) for values in nodes.values()))
        for name, nodes in times.items()
    ]
    return sorted(found, key=lambda kind: -kind.microseconds)


def _kind(node: Any) -> str:
    operation = node.timeline_label.partition(" = ")[2].partition("(")[0].removeprefix("_").removeprefix("MklNative")
    shape = [dim.size for dim in node.output[0].tensor_description.shape.dim] if node.output else []
    if operation.endswith("Conv2D") and shape[1:3] == [1, 1]:
        return _GATES
    return _KINDS.get(operation.removeprefix("Mkl"), _OTHERS)


def profile(task: Task, threads: int, rounds: int, runs: int) -> Profile:
    """The bundled network's SavedModel with one face."""
    face = np.random.default_rng(0).uniform(0, 255, (1, CROP_SIZE, CROP_SIZE, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        network = load_network("bundled", task).network
        calls = backends(task, network, Path(folder), threads, (ONNX_RUNTIME, OURS))
        saved = Path(folder) / FOLDERS[OURS]
        ours = partial(session_call(saved, intra=threads, inter=1), face)
        stage = Stage(task, ours, partial(calls[ONNX_RUNTIME], face), threads=threads == 1)
        for _ in range(20):
            stage.work()
            stage.fixed()
        found = measure(stage, rounds)
        kinds = kinds_of(_traced(saved, threads, face, runs))
    milliseconds = 1000 * float(np.median([each.seconds for each in found]))
    return Profile(task, milliseconds, median_interval([each.ratio for each in found]), kinds)


def _traced(saved: Path, threads: int, face: Any, runs: int) -> list[Any]:
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1, use_per_session_threads=True
    )
    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.SOFTWARE_TRACE)
    found = []
    with tf.compat.v1.Session(graph=tf.Graph(), config=config) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(saved)).signature_def[IMAGES_SIGNATURE]
        (images,), fetches = signature.inputs.values(), [info.name for info in signature.outputs.values()]
        for _ in range(runs):
            traced = tf.compat.v1.RunMetadata()
            session.run(fetches, {images.name: face}, options=options, run_metadata=traced)
            found.append(traced.step_stats)
    return found[len(found) // 5 :]  # the first ones prepare the kernels


def table(found: Profile) -> Table:
    total = sum(kind.microseconds for kind in found.kinds)
    ratio = "{:.2f} ({:.2f}-{:.2f})".format(*found.to_onnx_runtime)
    title = f"{found.task}: {found.milliseconds:.2f} ms, {ratio} times ONNX Runtime's"
    drawn = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("operations", "number", "microseconds", "share"):
        drawn.add_column(name, justify="left" if name == "operations" else "right")
    for kind in found.kinds:
        drawn.add_row(kind.name, str(kind.count), f"{kind.microseconds:.0f}", f"{kind.microseconds / total:.1%}")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai_export.bench.profile", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of an operation, and of ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each, in turns")
    parser.add_argument("--runs", type=int, default=100, help="traced calls")
    parser.add_argument("--out", type=Path, help="file for the result as JSON")
    options = parser.parse_args()
    try:
        if min(options.threads, options.rounds, options.runs) < 1:
            raise ConfigError("--threads, --rounds and --runs must be >= 1")
        found = [profile(task, options.threads, options.rounds, options.runs) for task in TASKS]
    except EmotionAIError as error:
        print_error(error)
        sys.exit(2)
    for each in found:
        Console().print(table(each))
    if options.out is not None:
        write_json(options.out, [asdict(each) for each in found])


if __name__ == "__main__":
    main()
