"""What a log of answers costs: a client with and without one, on a running server.

The two take turns in blocks of a few seconds, each with a client of its own. A pair of neighbours gives a difference,
so that a slow phase of the machine affects both. Latencies on a busy machine scatter; the processor time of the client,
the log's thread included, hardly does.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_ai.client import FaceClient
from emotion_ai.client.calls import FinishedCall
from emotion_ai.errors import EmotionAIError
from emotion_ai.evaluation.statistics import Estimate, t_interval
from emotion_ai.inference.answer_log import AnswerLog
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.terminal import Console, print_error
from emotion_ai.vision.crops import crop
from emotion_ai.vision.photo import PORTRAITS, load_photo


@dataclass(frozen=True)
class LogCost:
    """What a log costs.

    Attributes:
        latency: seconds of a request without one, the median.
        queueing: seconds that a request spends on the log, the median.
        processor: seconds of processor time that the log adds to a request, with its interval over pairs of blocks.
        slowdown: by which the log makes the mean latency longer, as a share, with its interval over pairs of blocks.
        requests: measured ones.
    """

    latency: float
    queueing: float
    processor: Estimate
    slowdown: Estimate
    requests: int


@dataclass(frozen=True)
class Block:
    """Latencies of a block's requests, and the process's processor time for each of them, in seconds."""

    latencies: NDArray[np.float64]
    processor: float


class _Timed:
    """An observer that times another one."""

    def __init__(self, observer: object) -> None:
        self.observer, self.seconds = observer, list[float]()

    def __call__(self, call: FinishedCall) -> None:
        started = time.perf_counter()
        self.observer(call)  # type: ignore[operator]
        self.seconds.append(time.perf_counter() - started)

    def close(self) -> None:
        self.observer.close()  # type: ignore[attr-defined]


def measure(server: str, folder: Path, pairs: int, seconds: float, clients: int) -> LogCost:
    """Measures pairs of blocks of so many seconds, with so many clients at the same time.

    Raises:
        ClientError: a request fails.
        ConfigError: fewer than two pairs.
    """
    photo = load_photo(PORTRAITS[0])
    face = crop(photo.gray, detect_faces(photo)[0].box)[None]
    plain, logged = list[Block](), list[Block]()
    with AnswerLog(folder) as log, FaceClient(server) as without, _timed_client(server, log) as (with_log, timed):
        for client in (without, with_log):
            _block(client, face, min(seconds, 0.5), clients)
        timed.seconds.clear()
        for pair in range(pairs):
            order = ((without, plain), (with_log, logged))
            for client, blocks in order if pair % 2 else order[::-1]:
                blocks.append(_block(client, face, seconds, clients))
                log.flush()
    both = list(zip(plain, logged, strict=True))
    change = t_interval([float(np.log(b.latencies.mean() / a.latencies.mean())) for a, b in both])
    return LogCost(
        float(np.median(np.concatenate([block.latencies for block in plain]))),
        float(np.median(timed.seconds)),
        t_interval([b.processor - a.processor for a, b in both]),
        Estimate(_share(change.value), _share(change.low), _share(change.high), change.n),
        sum(len(block.latencies) for block in (*plain, *logged)),
    )


def _share(logarithm: float) -> float:
    return float(np.expm1(logarithm))


@contextmanager
def _timed_client(server: str, log: AnswerLog) -> Iterator[tuple[FaceClient, _Timed]]:
    with FaceClient(server, log=log) as client:
        timed = _Timed(client._observers[0])
        client._observers = (timed,)
        yield client, timed


def _block(client: FaceClient, face: NDArray[np.uint8], seconds: float, clients: int) -> Block:
    """All requests within so many seconds."""
    latencies: list[list[float]] = [[] for _ in range(clients)]
    end, used = time.perf_counter() + seconds, time.process_time()

    def send(own: list[float]) -> None:
        while (started := time.perf_counter()) < end or not own:
            client.read_crops(face)
            own.append(time.perf_counter() - started)

    threads = [threading.Thread(target=send, args=(own,)) for own in latencies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(latencies):
        client.read_crops(face)  # raises what the threads met
    found = np.concatenate(latencies)
    return Block(found, (time.process_time() - used) / len(found))


def main() -> None:
    parser = argparse.ArgumentParser(prog="emotion_ai_export.bench.answer_log", description=__doc__)
    parser.add_argument("--server", default="http://127.0.0.1:8501", help="address of the running server")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of blocks, with and without the log")
    parser.add_argument("--seconds", type=float, default=3.0, help="per block")
    parser.add_argument("--clients", type=int, default=1, help="requests at the same time")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            cost = measure(options.server, Path(folder), options.pairs, options.seconds, options.clients)
    except EmotionAIError as error:
        print_error(error)
        sys.exit(2)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{cost.requests} requests, {1000 * cost.latency:.2f} ms each without a log (median)\n"
        f"spent on the log by a request: {1e6 * cost.queueing:.0f} µs, {cost.queueing / cost.latency:.2%}\n"
        f"processor time of the client: {1e6 * cost.processor.value:+.0f} µs per request "
        f"[{1e6 * cost.processor.low:+.0f}, {1e6 * cost.processor.high:+.0f}], "
        f"{cost.processor.value / cost.latency:+.2%} of its latency\n"
        f"mean latency with the log: {cost.slowdown.value:+.2%}, 95 % interval {cost.slowdown.low:+.2%} to "
        f"{cost.slowdown.high:+.2%} over {cost.slowdown.n} pairs of blocks"
    )


if __name__ == "__main__":
    main()
