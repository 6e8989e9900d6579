"""`make load`: how many faces a second a running server answers, and how long each waits, for each way to send one.

Closed loop: every client sends its next request when the last one is answered. Requests are prepared beforehand.
"""

import argparse
import base64
import http.client
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from emotion_ai.client import FaceClient, protos
from emotion_ai.contract import BYTES_INPUT, BYTES_SIGNATURE, IMAGES_INPUT, IMAGES_SIGNATURE
from emotion_ai.errors import EmotionAIError
from emotion_ai.files import write_json
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.vision.crops import crop, resize_to_crop
from emotion_ai.vision.photo import PORTRAITS, encode_png, load_photo

Send = Callable[[], bool]
"""Asks once; whether it was answered as asked."""

Connect = Callable[[], AbstractContextManager[Send]]


@dataclass(frozen=True)
class RequestEncoding:
    """One way to send a face: bytes of its request, and a maker of clients."""

    name: str
    size: int
    connect: Connect


@dataclass(frozen=True)
class Load:
    """What was measured; latencies in milliseconds."""

    way: str
    bytes: int
    clients: int
    requests: int
    failed: int
    per_second: float
    p50: float
    p90: float
    p99: float


def request_encodings(rest: str, address: str | None, model: str = "face") -> list[RequestEncoding]:
    """One face as JSON integers, base64 PNG and JPEG over REST; and over gRPC, where there is an address."""
    photo = load_photo(PORTRAITS[0])
    face = np.rint(resize_to_crop(crop(photo.gray, detect_faces(photo)[0].box))).astype(np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(face).save(jpeg, "JPEG", quality=85)
    pixels = face[None, ..., None]
    bodies = {
        "REST, JSON integers": (IMAGES_SIGNATURE, pixels.tolist()),
        "REST, base64 PNG": (BYTES_SIGNATURE, [{"b64": base64.b64encode(encode_png(face)).decode()}]),
        "REST, base64 JPEG": (BYTES_SIGNATURE, [{"b64": base64.b64encode(jpeg.getvalue()).decode()}]),
    }
    found = []
    for name, (signature, instances) in bodies.items():
        body = json.dumps({"signature_name": signature, "instances": instances}).encode()
        found.append(RequestEncoding(name, len(body), _rest(rest, model, body)))
    inputs = {
        "gRPC, pixels": (IMAGES_SIGNATURE, IMAGES_INPUT, pixels.astype(np.float32)),
        "gRPC, JPEG": (BYTES_SIGNATURE, BYTES_INPUT, [jpeg.getvalue()]),
    }
    for name, (signature, key, value) in inputs.items() if address else ():
        request = protos.PredictRequest(model_spec={"name": model, "signature_name": signature})
        request.inputs[key].CopyFrom(protos.tensor(value))  # type: ignore[arg-type]
        body = request.SerializeToString()
        found.append(RequestEncoding(name, len(body), _grpc(str(address), body)))
    return found


def measure(way: RequestEncoding, clients: int, seconds: float) -> Load:
    """The given number of clients, for so long, after each has been answered once."""
    answered: list[list[float]] = [[] for _ in range(clients)]
    failed = [0] * clients
    ready = threading.Barrier(clients + 1)
    finish = threading.Event()

    def ask(place: int) -> None:
        with way.connect() as send:
            send()
            ready.wait()
            while not finish.is_set():
                started = time.perf_counter()
                if send():
                    answered[place].append(time.perf_counter() - started)
                else:
                    failed[place] += 1

    threads = [threading.Thread(target=ask, args=(place,), daemon=True) for place in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    finish.wait(seconds)
    finish.set()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - started
    times: NDArray[Any] = 1000 * np.concatenate(answered)
    count = len(times)
    p50, p90, p99 = np.percentile(times, [50, 90, 99]).tolist() if count else [float("nan")] * 3
    return Load(way.name, way.size, clients, count, sum(failed), count / taken, p50, p90, p99)


def main() -> None:
    parser = argparse.ArgumentParser(prog="emotion_ai_export.bench.load", description=__doc__)
    parser.add_argument("--server", default="http://127.0.0.1:8501", help="REST address of the running server")
    parser.add_argument("--grpc", default="grpc://127.0.0.1:8500", help="its gRPC address")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each way and number of clients")
    parser.add_argument("--out", type=Path, default=Path("runs/load"))
    options = parser.parse_args()
    try:
        with FaceClient(options.server, retries=0) as client:
            client.metadata()
        with FaceClient(options.grpc, retries=0) as client:
            address = urlsplit(options.grpc).netloc if client.ready() else None
    except EmotionAIError as error:
        sys.exit(f"error: {error}")
    options.out.mkdir(parents=True, exist_ok=True)
    found = request_encodings(options.server, address)
    loads = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        step = progress.add_task("", total=len(found) * len(options.clients))
        for clients in options.clients:
            for way in found:  # side by side, so that a machine that slows down slows all of them
                progress.update(step, description=f"{way.name}, {clients} clients")
                loads.append(measure(way, clients, options.seconds))
                progress.advance(step)
    write_json(options.out / "load.json", {"server": options.server, "loads": [asdict(load) for load in loads]})
    Console().print(_table(loads))
    if address is None:
        Console().print(f"gRPC was left out: nothing answers at {options.grpc}", highlight=False)
    draw(loads).savefig(options.out / "load.png", dpi=150)
    Console().print(f"[green]wrote[/] {options.out}/load.json and load.png", highlight=False)


def draw(loads: list[Load]) -> Any:
    """Faces a second, and the latencies, by the number of clients."""
    figure, (rate, latency) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name in dict.fromkeys(load.way for load in loads):
        own = [load for load in loads if load.way == name]
        clients = [load.clients for load in own]
        (line,) = rate.plot(clients, [load.per_second for load in own], marker="o", label=name)
        latency.plot(clients, [load.p50 for load in own], marker="o", color=line.get_color())
        latency.plot(clients, [load.p99 for load in own], ":", color=line.get_color())
    for axes in (rate, latency):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({load.clients for load in loads}), labels=sorted({load.clients for load in loads}))
        axes.set_xlabel("clients")
        axes.grid(alpha=0.3)
    rate.set(ylabel="faces a second", ylim=(0, None))
    latency.set(ylabel="milliseconds (solid: median, dotted: 99 %)", yscale="log")
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    return figure


def _table(loads: list[Load]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("clients", "way", "bytes", "faces/s", "p50 ms", "p90 ms", "p99 ms", "failed"):
        table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    for before, load in zip([None, *loads], loads, strict=False):
        if before and before.clients != load.clients:
            table.add_section()
        times = (f"{value:.1f}" for value in (load.per_second, load.p50, load.p90, load.p99))
        table.add_row(str(load.clients), load.way, str(load.bytes), *times, str(load.failed))
    return table


def _rest(url: str, model: str, body: bytes) -> Connect:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    path, headers = f"{parts.path.rstrip('/')}/v1/models/{model}:predict", {"Content-Type": "application/json"}

    @contextmanager
    def connect() -> Iterator[Send]:
        connection = kind(parts.hostname or "", parts.port, timeout=60)

        def send() -> bool:
            try:
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                return b"predictions" in response.read() and response.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens it anew
                return False

        with closing(connection):
            yield send

    return connect


def _grpc(address: str, body: bytes) -> Connect:
    @contextmanager
    def connect() -> Iterator[Send]:
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            method = channel.unary_unary(protos.PREDICT)

            def send() -> bool:
                try:
                    return bool(method(body, timeout=60))
                except grpc.RpcError:
                    return False

            yield send

    return connect


if __name__ == "__main__":
    main()
