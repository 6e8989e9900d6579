"""Several requests of one call at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from emotion_ai.client.deadline import CANCELLATION, Cancellation, RequestCancelledError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(run: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """The results of `run` for each item, in order, computed in at most so many threads.

    The first error, or Ctrl-C, ends the requests that go on and starts no others.

    Raises:
        ClientError: from `run`.
    """
    if len(items) < 2 or threads == 1:
        return [run(item) for item in items]
    cancellation = Cancellation(CANCELLATION.get())

    def work(item: Item) -> Result:
        with cancellation.active():
            return run(item)

    with ThreadPoolExecutor(min(threads, len(items)), "emotion-ai-client") as executor:
        futures = [executor.submit(work, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
            cancellation.cancel()
    failed = [future for future in futures if not future.cancelled() and future.exception()]
    first = [future for future in failed if not isinstance(future.exception(), RequestCancelledError)]
    return [future.result() for future in first or failed or futures]
