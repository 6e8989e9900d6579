"""Inference: our networks in every runtime, and served, beside networks of other packages: one table and one plot."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure as Picture
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

from emotion_ai.benchmarks.interleaved import Stage
from emotion_ai.benchmarks.stages import one_thread
from emotion_ai.client import FaceClient
from emotion_ai.contract import BYTES_SIGNATURE, CROP_SIZE, TASKS, Task
from emotion_ai.data.batches import resize_to_crops
from emotion_ai.data.loaders import load
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.terminal import Console
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.bench import threads
from emotion_ai_export.bench.backends import FOLDERS, ONNX_RUNTIME, OURS, PYTORCH, Call, backends
from emotion_ai_export.bench.compare import median_interval
from emotion_ai_export.bench.peers import Peer, load_peers
from emotion_ai_export.serving.launch import running

Images = NDArray[np.uint8]

SERVED = "embedded server, REST"
_RUNTIMES = (PYTORCH, ONNX_RUNTIME, OURS)
_ONE, _MANY = 1, 32
_TURN = 0.04  # seconds of timed calls, at least one
_REPEATS = 10
_PAUSE = 0.02  # seconds: longer than idle worker threads spin


@dataclass(frozen=True)
class Runtime:
    """One way to run a network.

    Attributes:
        calls: by the number of faces: runs that many and returns when they are done.
        score: accuracy of the five emotions on PublicTest, or the keypoints' RMSE in pixels on the validation file;
            None without the data.
        megabytes: of the weights as they are published.
        clock: seconds.
    """

    task: Task
    name: str
    calls: dict[int, Callable[[], object]]
    score: float | None
    parameters: int
    megabytes: float
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class ModelRow:
    """A runtime's speed by its clock: medians over rounds.

    Attributes:
        milliseconds: of a call with one face.
        per_second: faces in calls with 32.
        to_ours: time of a call with one face, relative to our SavedModel's in the same round, and its 95 % interval.
        score, parameters, megabytes: as in `Runtime`.
    """

    task: Task
    name: str
    milliseconds: float
    per_second: float
    to_ours: tuple[float, float, float]
    score: float | None
    parameters: int
    megabytes: float


@dataclass(frozen=True)
class LoadedModels:
    """What runs: each network in each runtime; the peers' packages that are not installed; stages for comparing."""

    runtimes: list[Runtime]
    absent: list[str]
    stages: list[Stage]


@contextmanager
def loaded_models(peer_folder: Path, data: Path | None) -> Iterator[LoadedModels]:
    """Our networks with the bundled weights, and the peers that are installed in a folder, ready to run."""
    faces = np.random.default_rng(0).integers(0, 256, (_MANY, CROP_SIZE, CROP_SIZE), np.uint8)
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["TF_NUM_INTRAOP_THREADS"] = "1"  # read by TensorFlow's first session, which may be a peer's
        peers, absent = load_peers(peer_folder, scratch)
        known = {task: load_network("bundled", task).network for task in TASKS}
        in_process = {task: backends(task, known[task], scratch / task, 1, _RUNTIMES) for task in TASKS}
        for task in TASKS:
            shutil.copytree(scratch / task / FOLDERS[OURS], scratch / "models" / task / "1")
        rest = stack.enter_context(running(scratch / "models")).rest
        found: list[Runtime] = []
        for task, network in known.items():
            client = stack.enter_context(FaceClient(rest, model=task))
            calls: dict[str, dict[int, Callable[[], object]]] = {
                name: {n: partial(call, faces[:n, ..., None].astype(np.float32)) for n in (_ONE, _MANY)}
                for name, call in in_process[task].items()
            }
            files = [encode_png(face) for face in faces]
            calls[SERVED] = {n: partial(client.predict, files[:n], BYTES_SIGNATURE) for n in (_ONE, _MANY)}
            weights = sum(parameter.numel() for parameter in network.parameters())
            score = score_of(task, partial(_answers, network), data)
            size = (score, weights, 4 * weights / 1e6)
            found += [Runtime(task, name, calls[name], *size) for name in _RUNTIMES]
            found.append(Runtime(task, SERVED, calls[SERVED], *size))
            found += [_of_peer(peer, faces, data) for peer in peers if peer.task == task]
        yield LoadedModels(
            found, absent, [_stage(task, scratch / "models" / task / "1", in_process[task]) for task in TASKS]
        )


def _stage(task: Task, folder: Path, calls: dict[str, Call]) -> Stage:
    """Our SavedModel with one face against ONNX Runtime."""
    face = np.random.default_rng(0).uniform(0, 255, (1, CROP_SIZE, CROP_SIZE, 1)).astype(np.float32)
    session = threads.session_call(folder, intra=1, inter=1)

    def repeated(call: Callable[[NDArray[np.float32]], object]) -> None:
        for _ in range(_REPEATS):
            call(face)

    name = f"the SavedModel of {task} against {ONNX_RUNTIME}"
    return Stage(name, partial(repeated, session), partial(repeated, calls[ONNX_RUNTIME]), _REPEATS, "faces", 0.5)


def _of_peer(peer: Peer, faces: Images, data: Path | None) -> Runtime:
    def answers(images: Images) -> NDArray[np.float32]:
        return peer.answers(peer.call(peer.inputs(images)))

    calls: dict[int, Callable[[], object]] = {n: partial(peer.call, peer.inputs(faces[:n])) for n in (_ONE, _MANY)}
    return Runtime(peer.task, peer.name, calls, score_of(peer.task, answers, data), peer.parameters, peer.megabytes)


def _answers(network: FaceNetwork, images: Images) -> NDArray[np.float32]:
    with torch.inference_mode():
        crops = resize_to_crops(torch.from_numpy(images))
        return (network(crops) if network.task == "keypoints" else network.classified(crops)[0]).numpy()


def score_of(task: Task, answers: Callable[[Images], NDArray[np.float32]], data: Path | None) -> float | None:
    """Accuracy of the five emotions on PublicTest, or the keypoints' RMSE in pixels on the validation file.

    Args:
        answers: from images uint8 (N, H, W) to probabilities (N, 5) or keypoints (N, 15, 2) in pixels of the crop.
        data: folder that holds the files somewhere; None, or one without the file, gives None.
    """
    file = (
        next(iter(sorted(data.rglob("validation.csv*" if task == "keypoints" else "fer2013.csv*"))), None)
        if data
        else None
    )
    if file is None:
        return None
    faces = load(file, task)
    if task == "emotion":
        faces = faces[faces.part == "PublicTest"]
    found = np.concatenate([answers(faces.images[start : start + 64]) for start in range(0, len(faces), 64)])
    if task == "emotion":
        return float((found.argmax(1) == faces.labels).mean())
    return float(np.sqrt(np.nanmean((found - faces.points) ** 2)))


def measure(found: list[Runtime], rounds: int, seed: int = 0) -> list[ModelRow]:
    """Times all runtimes of a task in turns, in an order that changes from round to round."""
    rng = np.random.default_rng(seed)
    rows: list[ModelRow] = []
    for task in dict.fromkeys(runtime.task for runtime in found):
        of_task = [runtime for runtime in found if runtime.task == task]
        times = {n: _in_turns(of_task, n, rounds, rng) for n in (_ONE, _MANY)}
        for each in of_task:
            one, many = (np.array(times[n][each.name]) for n in (_ONE, _MANY))
            ratios = one / times[_ONE][OURS]
            speed = (1000 * float(np.median(one)), _MANY / float(np.median(many)), median_interval(ratios.tolist()))
            rows.append(ModelRow(task, each.name, *speed, each.score, each.parameters, each.megabytes))
    return rows


def _in_turns(found: list[Runtime], faces: int, rounds: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """Seconds of a call in each round."""
    times: dict[str, list[float]] = {each.name: [] for each in found}
    repeats = {}
    for each in found:
        each.calls[faces]()
        repeats[each.name] = max(1, round(_TURN / max(_seconds(each, faces, 1), 1e-4)))
    for _ in track(range(rounds), "inference", transient=True, console=Console(stderr=True)):
        for i in rng.permutation(len(found)):
            each = found[i]
            time.sleep(_PAUSE)
            each.calls[faces]()
            times[each.name].append(_seconds(each, faces, repeats[each.name]) / repeats[each.name])
    return times


def _seconds(runtime: Runtime, faces: int, repeats: int) -> float:
    started = runtime.clock()
    for _ in range(repeats):
        runtime.calls[faces]()
    return runtime.clock() - started


def models_table(rows: list[ModelRow], absent: list[str]) -> Table:
    missing = f"not installed, left out: {', '.join(absent)}; see `make bench-peers`" if absent else None
    table = Table(
        title="Inference on one thread",
        caption=missing,
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("network", "ms, 1 face", "to ours (95 %)", f"faces/s, {_MANY}", "score", "parameters", "MB"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for before, row in zip([None, *rows], rows, strict=False):
        if before and before.task != row.task:
            table.add_section()
        ratio = "{:.2f} ({:.2f}-{:.2f})".format(*row.to_ours)
        cells = (f"{row.milliseconds:.2f}", ratio, f"{row.per_second:,.0f}", score_text(row))
        size = (f"{row.parameters:,}", f"{row.megabytes:.1f}")
        style = "bold" if row.name == OURS else None
        table.add_row(f"{row.task}: {row.name}", *cells, *size, style=style)
    return table


def score_text(row: ModelRow) -> str:
    """With its unit."""
    if row.score is None:
        return "-"
    return f"{row.score:.2f} px" if row.task == "keypoints" else f"{row.score:.1%}"


def draw(rows: list[ModelRow]) -> Picture:
    """Time of one face against the score, or faces per second without the data; a marker grows with the weights."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    labels = {"keypoints": "RMSE in pixels, validation", "emotion": "accuracy, five emotions, PublicTest"}
    figure, panels = plt.subplots(1, len(tasks), figsize=(5.6 * len(tasks), 4.8), layout="constrained", squeeze=False)
    for task, axes in zip(tasks, panels[0], strict=True):
        of_task = [row for row in rows if row.task == task]
        scored = all(row.score is not None for row in of_task)
        for row in of_task:
            high = row.score if scored else row.per_second
            label = f"{row.name}, {row.megabytes:.1f} MB"
            axes.scatter(row.milliseconds, high, 40 + 25 * row.megabytes, alpha=0.6, label=label)
        ylabel = labels[task] if scored else f"faces per second, {_MANY} at once"
        axes.set(title=task, xscale="log", xlabel="ms for one face, one thread", ylabel=ylabel)
        axes.grid(alpha=0.3, which="both")
        axes.margins(0.2)
        legend = axes.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15))
        for marker in legend.legend_handles:
            marker.set_sizes([40])
    return figure
