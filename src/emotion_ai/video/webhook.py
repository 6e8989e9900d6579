"""Events sent to a URL while a video is read, without ever waiting for it."""

import json
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

from emotion_ai.errors import ConfigError

CAPACITY = 1000
"""Messages that wait to be sent; more are given up."""

ATTEMPTS = 5
"""To send one message."""

CLOSING_SECONDS = 5.0
"""For what still waits at the end."""

_TIMEOUT = (3.05, 10.0)  # seconds to connect, and between two bytes
_BACKOFF = wait_random_exponential(multiplier=0.5, max=10.0)
_PASSING = {408, 425, 429}


@dataclass(frozen=True)
class WebhookCounts:
    """How many messages were sent, and how many were given up."""

    sent: int
    given_up: int


class Webhook:
    """Sends messages as JSON by POST, in order, from a thread of its own.

    A server that is away, overloaded or fails gets `ATTEMPTS` attempts for each message. Redirects are not followed.
    What cannot be sent, and what comes while the queue is full, is given up.

    A context manager; its end waits for what is queued, for at most `CLOSING_SECONDS`.

    Args:
        url: http(s)://HOST/PATH, maybe with USER:PASSWORD@. Messages show no more of it than the host, as a path or
            query may be secret.
        notify: is given one line when a message is given up for the first time.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(self, url: str, notify: Callable[[str], None] = lambda line: None) -> None:
        self._url, self.name, self._notify = url, _name(url), notify
        self._queue: queue.Queue[bytes] = queue.Queue(CAPACITY)
        self._sent = self._given_up = 0
        self._warned = False
        self._closing = threading.Event()
        threading.Thread(target=self._run, name="webhook", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def counts(self) -> WebhookCounts:
        """What became of the messages so far."""
        return WebhookCounts(self._sent, self._given_up)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queues a message; never waits."""
        try:
            self._queue.put_nowait(json.dumps(message).encode())
        except queue.Full:
            self._give_up("it is too slow")

    def close(self) -> None:
        """Sends what is queued, for at most `CLOSING_SECONDS`; what is left then is given up."""
        if self._closing.is_set():
            return
        done = self._queue.all_tasks_done
        with done:
            done.wait_for(lambda: not self._queue.unfinished_tasks, CLOSING_SECONDS)
            left = self._queue.unfinished_tasks
        self._closing.set()
        if left:
            self._give_up("it is too slow", left)

    def _give_up(self, reason: str, count: int = 1) -> None:
        self._given_up += count
        if not self._warned:
            self._warned = True
            self._notify(f"webhook {self.name}: events are given up ({reason}); they are in events.json")

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._closing.is_set():
                body = self._queue.get()
                problem = self._deliver(session, body)
                if self._closing.is_set():
                    return  # `close` has counted it
                if problem:
                    self._give_up(problem)
                else:
                    self._sent += 1
                self._queue.task_done()

    def _deliver(self, session: requests.Session, body: bytes) -> str:
        """Why a message could not be sent; nothing if it was."""
        retrying = Retrying(
            retry=retry_if_exception_type(_PassingError),
            stop=stop_any(stop_after_attempt(ATTEMPTS), stop_when_event_set(self._closing)),
            wait=_BACKOFF,
            sleep=self._pause,
            reraise=True,
        )
        try:
            return retrying(self._post, session, body)
        except _PassingError as error:
            return str(error)
        except Exception as error:  # whatever the address or the answer does to a library; its text may have the URL
            return f"it cannot be reached: {type(error).__name__}"

    def _pause(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def _post(self, session: requests.Session, body: bytes) -> str:
        headers = {"Content-Type": "application/json", "User-Agent": "emotion-ai"}
        try:
            with session.post(
                self._url, data=body, headers=headers, timeout=_TIMEOUT, allow_redirects=False, stream=True
            ) as response:
                status = response.status_code
        except requests.Timeout:
            raise _PassingError("it does not answer in time") from None
        except requests.ConnectionError:
            raise _PassingError("no connection") from None
        if status in _PASSING or status >= 500:
            raise _PassingError(f"status {status}")
        if 300 <= status < 400:
            return f"status {status}: redirects are not followed, so give the final address"
        return "" if 200 <= status < 300 else f"status {status}"


class _PassingError(Exception):
    """A failure after which another attempt may succeed."""


def _name(url: str) -> str:
    """Scheme and host of a URL.

    Raises:
        ConfigError: it is none; the message shows nothing of it, as it may have a password.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
            raise ValueError("not an address")
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        raise ConfigError("--webhook: not an address; write it as https://HOST/PATH") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"
