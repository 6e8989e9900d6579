"""Times networks of timm and torchvision on one thread: our SavedModel, onnx-tf's, onnx2tf's, and ONNX Runtime.

    python -m emotion_ai_export.bench.network_speed speed.jsonl --onnx2tf ENVIRONMENT/bin/onnx2tf

The networks and their weights are those of `networks`, each in a process of its own; those in the file already are
skipped. Backends take turns with the same images, each in its own layout. A time is the processor time of all threads
of a call, which other work on the machine changes least. What a peer converts wrongly is marked, and not timed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import ExportError
from emotion_ai.terminal import Console
from emotion_ai_export.bench.backends import ONNX_RUNTIME, ONNX_TF, OURS
from emotion_ai_export.bench.network_page import write_page
from emotion_ai_export.bench.network_result import BATCHES, ONNX2TF, NetworkSpeed
from emotion_ai_export.bench.networks import OTHERS, PLAIN, build_network, failure

LARGEST_DIFFERENCE = 1e-3
"""Of a peer from ONNX Runtime, as a share of the largest output; a peer that differs by more is wrong."""

PEERS_OPSET = 12
"""The newest that onnx-tf translates in full: of opset 13 it has no Unsqueeze, and sums over the wrong axes."""

_SECONDS = 1800  # that one network may take
_CONVERSION = 600  # seconds that onnx2tf may take
_WRITTEN_LAST = "fingerprint.pb"  # of a SavedModel
_TURN = 0.1  # seconds of timed calls, at least one

Call = Callable[[], Any]


def time_network(network: str, rounds: int, onnx2tf: str, peers: Path, folder: Path) -> NetworkSpeed:
    """Converts a network by all means, ours into `folder`, and times them; conversions in `peers` are used again."""
    import onnx
    import onnxruntime
    import torch

    from emotion_ai_export.bench.threads import session_call
    from emotion_ai_export.convert.interface import ImageInput, Interface
    from emotion_ai_export.convert.module_model import save_module
    from emotion_ai_export.convert.onnx_export import export_onnx
    from emotion_ai_export.convert.onnx_graph.translator import Translator

    started = time.perf_counter()
    torch.manual_seed(0)
    module, size = build_network(network)
    examples = torch.rand(2, 3, size, size)
    model = export_onnx(module, [examples], ["images"], ["output"])
    file = peers / "model.onnx"
    if not file.is_file():
        try:
            given = export_onnx(module, [examples], ["images"], ["output"], PEERS_OPSET)
        except ExportError:  # attention needs a newer one
            given = model
        onnx.save(given, str(file))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    interface = Interface("network", (ImageInput("images", 3, size, size),), ("output",))
    calls: dict[str, Any] = {ONNX_RUNTIME: lambda images: session.run(None, {"images": images})}
    notes: dict[str, str] = {}
    save_module(Translator(model), interface, folder / "1")
    calls[OURS] = session_call(folder / "1", 1, 1)
    for name, convert in {ONNX_TF: _onnx_tf, ONNX2TF: lambda *paths: _onnx2tf(onnx2tf, *paths)}.items():
        if name == ONNX2TF and not onnx2tf:
            continue
        try:
            if not (peers / name / _WRITTEN_LAST).is_file():
                convert(file, peers / name)
            calls[name] = session_call(peers / name, 1, 1)
            difference = _difference(calls, name, size)
            if not difference <= LARGEST_DIFFERENCE:
                notes[name] = f"wrong: differs by {difference:.1e} of the largest output"
        except Exception as error:  # peers raise many kinds
            notes[name] = f"not converted: {_last_line(error)}"
    timed = {name: call for name, call in calls.items() if name not in notes}
    found = {str(batch): measure(_prepared(timed, batch, size), rounds) for batch in BATCHES}
    times, elapsed = ({batch: pair[place] for batch, pair in found.items()} for place in range(2))
    return NetworkSpeed(network, notes, times, elapsed, time.perf_counter() - started)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("[[")]  # TensorFlow ends with the node
    return told[-1][:200] if told else type(error).__name__


def _onnx_tf(file: Path, folder: Path) -> None:
    import onnx

    from emotion_ai_export.convert.onnx_tf_compat import load_onnx_tf

    load_onnx_tf().prepare(onnx.load(str(file)), logging_level="ERROR").export_graph(str(folder))


def _onnx2tf(program: str, file: Path, folder: Path) -> None:
    """Only until its SavedModel is whole: the LiteRT files that it writes next take minutes."""
    command, deadline = [program, "-i", str(file), "-o", str(folder), "-osd", "-n"], time.monotonic() + _CONVERSION
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        while process.poll() is None and time.monotonic() < deadline and not (folder / _WRITTEN_LAST).is_file():
            time.sleep(0.2)
        ended = process.poll()
        process.kill()
        log.seek(0)
        lines = [line for line in log.read().splitlines() if "error" in line.lower()]
    if not (folder / _WRITTEN_LAST).is_file():
        reason = f"it took more than {_CONVERSION} s" if ended is None else f"exit code {ended}"
        raise ValueError(lines[-1].strip() if lines else reason)
    for other in folder.glob("*.tflite"):
        other.unlink()


def _images(name: str, batch: int, size: int) -> NDArray[np.float32]:
    """Noise in the backend's layout."""
    images = np.random.default_rng(batch).random((batch, size, size, 3), np.float32)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if name in (ONNX_TF, ONNX_RUNTIME) else images


def _prepared(calls: dict[str, Any], batch: int, size: int) -> dict[str, Call]:
    return {name: partial(call, _images(name, batch, size)) for name, call in calls.items()}


def _difference(calls: dict[str, Any], name: str, size: int) -> float:
    """The largest from ONNX Runtime at all batches, as a share of the largest output."""
    found = []
    for batch in BATCHES:
        got, expected = (np.asarray(calls[each](_images(each, batch, size))[0]) for each in (name, ONNX_RUNTIME))
        if got.shape != expected.shape:
            return float("inf")
        found.append(float(np.abs(got - expected).max() / np.abs(expected).max()))
    return max(found)


def measure(calls: dict[str, Call], rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of each backend in each round, in an order that changes: processor time, and elapsed time."""
    rng, repeats = np.random.default_rng(0), {}
    for name, call in calls.items():
        call()
        started = time.perf_counter()
        call()
        repeats[name] = max(1, round(_TURN / (time.perf_counter() - started)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    elapsed: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in rng.permutation(list(calls)):
            calls[name]()
            started, processor = time.perf_counter(), time.process_time()
            for _ in range(repeats[name]):
                calls[name]()
            spent = time.process_time() - processor, time.perf_counter() - started
            for record, seconds in zip((times, elapsed), spent, strict=True):
                record[name].append(float(f"{1000 * seconds / repeats[name]:.4g}"))
    return times, elapsed


def run(file: Path, networks: list[str], options: list[str]) -> list[NetworkSpeed]:
    """Times those that the file lacks, one process each, and adds a line for each."""
    found = read(file)
    for network in (each for each in networks if each not in found):
        command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--one", network, *options]
        try:  # the process may be killed, so its folder is made and removed here
            with tempfile.TemporaryDirectory(prefix="emotion-ai-speed-") as folder:
                whole = [*command, "--folder", folder]
                done = subprocess.run(whole, capture_output=True, text=True, timeout=_SECONDS)
            lines = [line for line in done.stdout.splitlines() if line.startswith('{"network"')]
            result = NetworkSpeed(**json.loads(lines[-1])) if lines else NetworkSpeed(network, {OURS: failure(done)})
        except subprocess.TimeoutExpired:
            result = NetworkSpeed(network, {OURS: f"took more than {_SECONDS} s"})
        with file.open("a") as stream:
            stream.write(json.dumps(asdict(result)) + "\n")
        found[network] = result
    return [found[network] for network in networks if network in found]


def read(file: Path) -> dict[str, NetworkSpeed]:
    """The results of earlier runs, by network."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return {result.network: result for result in (NetworkSpeed(**json.loads(line)) for line in lines)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path("speed.jsonl"), help="results, added to")
    parser.add_argument("--only", nargs="+", default=[*PLAIN, *OTHERS], help="some of the networks")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each backend")
    parser.add_argument("--onnx2tf", default="", help="its program, in an environment of its own; left out if absent")
    parser.add_argument("--keep", type=Path, help="folder for the peers' conversions, used again")
    parser.add_argument("--page", type=Path, help="folder for networks.md and networks.png")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not given.one:
        options = ["--rounds", str(given.rounds), "--onnx2tf", given.onnx2tf]
        results = run(given.file, given.only, [*options, *(["--keep", str(given.keep)] if given.keep else [])])
        folder = given.page or given.file.parent
        write_page(results, folder)
        Console().wrote(f"{folder}/networks.md and networks.png")
        return
    peers = (given.keep or given.folder / "peers") / given.one.replace("/", "-")
    peers.mkdir(parents=True, exist_ok=True)
    print(json.dumps(asdict(time_network(given.one, given.rounds, given.onnx2tf, peers, given.folder))))


if __name__ == "__main__":
    os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
    main()
