"""The time that a request may take, and how another thread ends it before."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from emotion_ai.errors import ClientError, ServerTimeoutError


class RequestCancelledError(ClientError):
    """Raised in the thread of a request that another thread cancelled; that one no longer waits for it."""


class Cancellation:
    """Ends the requests that are made under it, from another thread.

    Args:
        parent: ends these requests, too.
    """

    def __init__(self, parent: "Cancellation | None" = None) -> None:
        self._event, self._lock = threading.Event(), threading.Lock()
        self._aborts: list[Callable[[], object]] = []
        self._parent = parent

    @property
    def cancelled(self) -> bool:
        return self._event.is_set() or (self._parent is not None and self._parent.cancelled)

    def cancel(self) -> None:
        """Ends requests that go on, and those that start later."""
        with self._lock:
            self._event.set()
            for abort in self._aborts:
                abort()

    @contextlib.contextmanager
    def aborting(self, abort: Callable[[], object]) -> Iterator[None]:
        """For the block, a function that ends what the block waits for; called at once if it is too late."""
        with self._lock:
            self._aborts.append(abort)
            if self._event.is_set():
                abort()
        try:
            with self._parent.aborting(abort) if self._parent else contextlib.nullcontext():
                yield
        finally:
            with self._lock:
                self._aborts.remove(abort)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Requests that this thread makes in the block are made under it."""
        token = CANCELLATION.set(self)
        try:
            yield
        finally:
            CANCELLATION.reset(token)


CANCELLATION: ContextVar[Cancellation | None] = ContextVar("cancellation", default=None)
"""That of the requests which this thread makes."""


class Deadline:
    """When a request must have ended, retries included.

    Args:
        where: its address, for messages.
        seconds: from now on.
    """

    def __init__(self, where: str, seconds: float) -> None:
        self.where, self.seconds = where, seconds
        self.started = time.monotonic()
        self.cancellation = CANCELLATION.get()

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self.passed >= self.seconds

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def left(self) -> float:
        """The seconds left.

        Raises:
            ServerTimeoutError: there are none.
            RequestCancelledError: the request was cancelled.
        """
        self.check_cancelled()
        if self.over:
            raise self.timeout()
        return self.seconds - self.passed

    def check_cancelled(self) -> None:
        """Raises RequestCancelledError if the request was cancelled."""
        if self.cancellation is not None and self.cancellation.cancelled:
            raise RequestCancelledError(f"{self.where}: cancelled")

    def timeout(self, seconds: float | None = None) -> ServerTimeoutError:
        """The error of a request that takes longer."""
        seconds = seconds or self.seconds
        return ServerTimeoutError(f"{self.where}: no answer within {seconds:g} s; is the server overloaded?")

    def aborting(self, abort: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
        """For the block, a function that ends what the block waits for."""
        return contextlib.nullcontext() if self.cancellation is None else self.cancellation.aborting(abort)

    def sleep(self, seconds: float) -> None:
        """Sleeps; shorter if the request is cancelled.

        Raises:
            RequestCancelledError: the request was cancelled.
        """
        woken = threading.Event()
        with self.aborting(woken.set):
            woken.wait(seconds)
        self.check_cancelled()
