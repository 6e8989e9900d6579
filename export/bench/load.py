"""`make load`: faces per second and latencies of a running server, by the encoding of the requests.

Closed loop: every client sends its next request after the response to the last one. Requests are prepared beforehand.
`--baseline` compares faces per second and median latencies with an earlier result, from the same machine and server.
"""

import argparse
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure as Picture
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.progress import Progress
from rich.table import Table

from emotion_ai.client import FaceClient
from emotion_ai.errors import EmotionAIError
from emotion_ai.files import write_json
from emotion_ai.terminal import Console, print_error
from emotion_ai_export.bench import compare
from emotion_ai_export.bench.compare import Figure
from emotion_ai_export.bench.request_encodings import RequestEncoding, request_encodings


@dataclass(frozen=True)
class Round:
    """What one round measured: latencies in milliseconds, failed requests, and its seconds."""

    latencies: NDArray[np.float64]
    failed: int
    seconds: float


@dataclass(frozen=True)
class Load:
    """One encoding with a number of clients, over all rounds; latencies in milliseconds."""

    encoding: str
    bytes: int
    clients: int
    requests: int
    failed: int
    per_second: float
    p50: float
    p90: float
    p99: float


def measure(encoding: RequestEncoding, clients: int, seconds: float) -> Round:
    """Runs the clients for so many seconds, after one untimed request each."""
    latencies: list[list[float]] = [[] for _ in range(clients)]
    failed = [0] * clients
    ready = threading.Barrier(clients + 1)
    finish = threading.Event()

    def send_requests(client: int) -> None:
        with encoding.connect() as send:
            send()
            ready.wait()
            while not finish.is_set():
                started = time.perf_counter()
                if send():
                    latencies[client].append(time.perf_counter() - started)
                else:
                    failed[client] += 1

    threads = [threading.Thread(target=send_requests, args=(client,), daemon=True) for client in range(clients)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    finish.wait(seconds)
    finish.set()
    for thread in threads:
        thread.join()
    return Round(1000 * np.concatenate(latencies), sum(failed), time.perf_counter() - started)


def load_of(encoding: RequestEncoding, clients: int, rounds: list[Round]) -> Load:
    """The sum of the rounds."""
    latencies = np.concatenate([one.latencies for one in rounds])
    p50, p90, p99 = np.percentile(latencies, [50, 90, 99]).tolist() if len(latencies) else [float("nan")] * 3
    per_second = len(latencies) / sum(one.seconds for one in rounds)
    failed = sum(one.failed for one in rounds)
    return Load(encoding.name, encoding.size, clients, len(latencies), failed, per_second, p50, p90, p99)


def figures_of(encoding: RequestEncoding, clients: int, rounds: list[Round]) -> list[Figure]:
    """Faces per second and the median latency of every round with responses."""
    answered = [one for one in rounds if len(one.latencies)]
    name = f"{encoding.name}, {clients} clients"
    if not answered:
        return []
    return [
        Figure(f"{name}: faces/s", [len(one.latencies) / one.seconds for one in answered], higher_is_better=True),
        Figure(f"{name}: median ms", [float(np.median(one.latencies)) for one in answered]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="emotion_ai_export.bench.load", description=__doc__)
    parser.add_argument("--server", default="http://127.0.0.1:8501", help="REST address of the running server")
    parser.add_argument("--grpc", default="grpc://127.0.0.1:8500", help="its gRPC address")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=1.0, help="per round, encoding and number of clients")
    parser.add_argument("--rounds", type=int, default=3, help="per encoding and number of clients")
    parser.add_argument("--out", type=Path, default=Path("runs/load"), help="folder for load.json and load.png")
    parser.add_argument("--baseline", type=Path, help="load.json of an earlier run to compare with")
    compare.add_options(parser)
    options = parser.parse_args()
    try:
        if options.baseline:
            compare.read_result(options.baseline)  # an error before the long work
        figures = run(options)
        if options.baseline:
            sys.exit(compare.report(figures, options.baseline, options))
    except EmotionAIError as error:
        print_error(error)
        sys.exit(2)


def run(options: argparse.Namespace) -> list[Figure]:
    """Measures, and writes load.json and load.png.

    Raises:
        ClientError: no server responds at the REST address.
    """
    with FaceClient(options.server, retries=0) as client:
        client.metadata()
    with FaceClient(options.grpc, retries=0) as client:
        address = urlsplit(options.grpc).netloc if client.ready() else None
    options.out.mkdir(parents=True, exist_ok=True)
    encodings = request_encodings(options.server, address)
    loads: list[Load] = []
    figures: list[Figure] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        step = progress.add_task("", total=len(encodings) * len(options.clients) * options.rounds)
        for clients in options.clients:
            rounds: dict[str, list[Round]] = {encoding.name: [] for encoding in encodings}
            for _ in range(options.rounds):
                for encoding in encodings:  # in turns, so that a slow phase of the machine affects all of them
                    progress.update(step, description=f"{encoding.name}, {clients} clients")
                    rounds[encoding.name].append(measure(encoding, clients, options.seconds))
                    progress.advance(step)
            loads += [load_of(encoding, clients, rounds[encoding.name]) for encoding in encodings]
            figures += [f for encoding in encodings for f in figures_of(encoding, clients, rounds[encoding.name])]
    record = {
        "server": options.server,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "environment": compare.machine(),
        "loads": [asdict(load) for load in loads],
        "figures": compare.figures_record(figures),
    }
    write_json(options.out / "load.json", record)
    Console().print(_loads_table(loads))
    if address is None:
        Console().print(f"without gRPC: no server responds at {options.grpc}", highlight=False)
    draw(loads).savefig(options.out / "load.png", dpi=150)
    Console().wrote(f"{options.out}/load.json and load.png")
    return figures


def draw(loads: list[Load]) -> Picture:
    """Faces per second and latencies by the number of clients."""
    figure, (rate, latency) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name in dict.fromkeys(load.encoding for load in loads):
        line = [load for load in loads if load.encoding == name]
        clients = [load.clients for load in line]
        (drawn,) = rate.plot(clients, [load.per_second for load in line], marker="o", label=name)
        latency.plot(clients, [load.p50 for load in line], marker="o", color=drawn.get_color())
        latency.plot(clients, [load.p99 for load in line], ":", color=drawn.get_color())
    for axes in (rate, latency):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({load.clients for load in loads}), labels=sorted({load.clients for load in loads}))
        axes.set_xlabel("clients")
        axes.grid(alpha=0.3)
    rate.set(ylabel="faces per second", ylim=(0, None))
    latency.set(ylabel="milliseconds (solid: median, dotted: 99 %)", yscale="log")
    figure.legend(loc="outside lower center", ncols=5, frameon=False)
    return figure


def _loads_table(loads: list[Load]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("clients", "encoding", "bytes", "faces/s", "p50 ms", "p90 ms", "p99 ms", "failed"):
        table.add_column(name, justify="left" if name == "encoding" else "right", no_wrap=True)
    for before, load in zip([None, *loads], loads, strict=False):
        if before and before.clients != load.clients:
            table.add_section()
        times = (f"{value:.1f}" for value in (load.per_second, load.p50, load.p90, load.p99))
        table.add_row(str(load.clients), load.encoding, str(load.bytes), *times, str(load.failed))
    return table


if __name__ == "__main__":
    main()
