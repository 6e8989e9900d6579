"""`python -m emotion_ai_export.bench.threads models/face/1`: faces per second by thread flags, and with batching.

A TF1 session runs the SavedModel as TensorFlow Serving does, with its thread flags, and callers run it at once, one
face per call, as the server's request threads do. There is no network and no decoding of requests, so figures are not
those of a server; compare them within one run. Configurations take turns in every round, in a random order, and their
ratios are taken within the rounds, so that other load on the machine falls on all of them. The processor time of a
face, which other load hardly changes, is what limits a server whose cores are all busy.

Batching follows the server's with `batch_timeout_micros: 0`: as many threads as CPUs, each of which takes the waiting
calls, at most the largest batch, and fills the batch up to the next of the allowed sizes.
"""

import argparse
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.progress import track
from rich.table import Table

from emotion_ai.contract import CROP_SIZE, IMAGES_INPUT, IMAGES_SIGNATURE
from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.files import write_json
from emotion_ai.terminal import Console, print_error
from emotion_ai_export.registry.quiet_tensorflow import tf
from emotion_ai_export.registry.warmup import BATCHES
from emotion_ai_export.serving.flags import available_cpus

Call = Callable[[NDArray[np.float32]], Any]
"""Runs faces (N, 96, 96, 1) and returns when they are done."""


@dataclass(frozen=True)
class Setting:
    """One configuration of the server.

    Attributes:
        name: of the flags.
        intra, inter: values of `--tensorflow_intra_op_parallelism` and `--tensorflow_inter_op_parallelism`.
        batching: sizes of the batches into which calls are gathered, ascending; none without batching.
        faces: in each call.
    """

    name: str
    intra: int
    inter: int
    batching: tuple[int, ...] = ()
    faces: int = 1


@dataclass(frozen=True)
class ThreadsRow:
    """One configuration with a number of callers: medians over rounds.

    Attributes:
        per_second: faces.
        median_ms: of a call.
        cpu_ms: processor time of a face.
        ratio, low, high: `per_second` relative to the first configuration, and its range over the rounds.
    """

    setting: str
    callers: int
    per_second: float
    median_ms: float
    cpu_ms: float
    ratio: float
    low: float
    high: float


class BatchedCall:
    """Calls that are gathered into batches by so many threads."""

    def __init__(self, run: Call, threads: int, sizes: tuple[int, ...] = BATCHES) -> None:
        self._run, self._sizes, self._queue = run, sizes, queue.Queue[tuple[NDArray[np.float32], Future[None]] | None]()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __call__(self, images: NDArray[np.float32]) -> None:
        done = Future[None]()
        self._queue.put((images, done))
        done.result()

    def close(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while sum(len(images) for images, _ in batch) < self._sizes[-1]:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)
                    break
                batch.append(more)
            images = np.concatenate([images for images, _ in batch])
            size = next(size for size in self._sizes if size >= len(images))
            try:
                self._run(np.concatenate([images, np.repeat(images[:1], size - len(images), 0)]))
            except BaseException as error:
                for _, done in batch:
                    done.set_exception(error)
            else:
                for _, done in batch:
                    done.set_result(None)


def settings(cpus: int) -> list[Setting]:
    """The server's default, ours, other thread counts, batching, and several faces in each call."""
    return [
        Setting("default: one intra and inter thread per CPU", cpus, cpus),
        Setting("intra 1, inter per CPU (ours)", 1, cpus),
        Setting("intra 1, inter 1", 1, 1),
        Setting("intra per CPU, inter 1", cpus, 1),
        Setting("ours, batching, allowed sizes", 1, cpus, BATCHES),
        Setting("ours, batching, any size", 1, cpus, tuple(range(1, BATCHES[-1] + 1))),
        Setting("ours, 8 faces in each call", 1, cpus, faces=8),
    ]


def session_call(folder: Path, intra: int, inter: int) -> Call:
    """The `serving_default` of a SavedModel in a session with so many threads.

    Raises:
        ConfigError: no SavedModel, or without that signature.
    """
    if not (folder / "saved_model.pb").is_file():
        raise ConfigError(f"{folder}: no SavedModel; give the folder of a version, such as models/face/1")
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=intra, inter_op_parallelism_threads=inter, use_per_session_threads=True
    )
    graph = tf.Graph()
    with graph.as_default():
        session = tf.compat.v1.Session(graph=graph, config=config)
        signatures = tf.compat.v1.saved_model.load(session, ["serve"], str(folder)).signature_def
    if IMAGES_SIGNATURE not in signatures:
        raise ConfigError(f"{folder}: has no signature {IMAGES_SIGNATURE}; give a version of ours")
    signature = signatures[IMAGES_SIGNATURE]
    fetches = [info.name for info in signature.outputs.values()]
    return session.make_callable(fetches, [signature.inputs[IMAGES_INPUT].name])


def measure(call: Call, images: NDArray[np.float32], callers: int, seconds: float) -> list[float]:
    """Seconds of each call that so many callers made, each at once after its last one."""
    times: list[list[float]] = [[] for _ in range(callers)]
    ready, end = threading.Barrier(callers), time.perf_counter() + seconds

    def work(caller: int) -> None:
        ready.wait()
        finished = time.perf_counter()
        while finished < end or not times[caller]:
            start = finished
            call(images)
            finished = time.perf_counter()
            times[caller].append(finished - start)

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [taken for caller in times for taken in caller]


def compare_settings(
    folder: Path, callers: list[int], rounds: int, seconds: float, cpus: int, seed: int = 0
) -> list[ThreadsRow]:
    """Every configuration with every number of callers."""
    rng = np.random.default_rng(seed)
    known = settings(cpus)
    sessions = {pair: session_call(folder, *pair) for pair in dict.fromkeys((s.intra, s.inter) for s in known)}
    calls: list[Call] = []
    images = [rng.uniform(0, 255, (s.faces, CROP_SIZE, CROP_SIZE, 1)).astype(np.float32) for s in known]
    for setting, faces in zip(known, images, strict=True):
        run = sessions[setting.intra, setting.inter]
        for size in {setting.faces, *setting.batching[-1:]}:
            run(np.repeat(faces[:1], size, 0))  # warm-up
        calls.append(BatchedCall(run, cpus, setting.batching) if setting.batching else run)
    rates, medians, costs = (np.zeros((len(callers), len(known), rounds)) for _ in range(3))
    for turn in track(range(rounds), "rounds", transient=True, console=Console(stderr=True)):
        for i, count in enumerate(callers):
            for j in rng.permutation(len(known)):
                start, before = time.perf_counter(), time.process_time()
                times = measure(calls[j], images[j], count, seconds)
                read = len(times) * known[j].faces
                rates[i, j, turn] = read / (time.perf_counter() - start)
                costs[i, j, turn] = 1000 * (time.process_time() - before) / read
                medians[i, j, turn] = 1000 * float(np.median(times))
    for call in calls:
        if isinstance(call, BatchedCall):
            call.close()
    ratios = rates / rates[:, :1]
    return [
        ThreadsRow(
            setting.name,
            count,
            float(np.median(rates[i, j])),
            float(np.median(medians[i, j])),
            float(np.median(costs[i, j])),
            float(np.median(ratios[i, j])),
            float(ratios[i, j].min()),
            float(ratios[i, j].max()),
        )
        for i, count in enumerate(callers)
        for j, setting in enumerate(known)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai_export.bench.threads", description=__doc__)
    parser.add_argument("folder", type=Path, help="a published version, such as models/face/1")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--cpus", type=int, default=available_cpus())
    parser.add_argument("--out", type=Path, help="file for the result as JSON")
    options = parser.parse_args()
    try:
        if min(*options.callers, options.rounds, options.cpus, options.seconds) <= 0:
            raise ConfigError("callers, rounds, cpus and seconds must be > 0")
        rows = compare_settings(options.folder, options.callers, options.rounds, options.seconds, options.cpus)
    except EmotionAIError as error:
        print_error(error)
        sys.exit(2)
    table = Table(box=SIMPLE_HEAD)
    for name in ("setting", "callers", "faces/s", "median ms", "CPU ms/face", "to default", "range"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for row in rows:
        span = f"{row.low:.2f} to {row.high:.2f}"
        cells = (f"{row.per_second:.0f}", f"{row.median_ms:.1f}", f"{row.cpu_ms:.2f}", f"{row.ratio:.2f}", span)
        table.add_row(row.setting, str(row.callers), *cells)
    Console().print(table)
    if options.out is not None:
        write_json(options.out, {"cpus": options.cpus, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
