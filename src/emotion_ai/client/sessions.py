"""Sessions of requests for a client that threads share: each thread uses one alone."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import requests
from requests.adapters import HTTPAdapter

from emotion_ai.client.bounded import BoundedAdapter
from emotion_ai.client.deadline import Deadline
from emotion_ai.client.transport import Connection
from emotion_ai.errors import ConfigError


class Sessions:
    """As many sessions as there are requests at once; a session that the user gave takes one after another.

    Args:
        connection: for messages, and whether the environment's settings apply.
        given: the user's session, which is used as it is.
    """

    def __init__(self, connection: Connection, given: requests.Session | None) -> None:
        self._connection, self.given = connection, given
        self._idle: list[requests.Session] = []
        self._lock, self._process, self._closed = threading.Lock(), os.getpid(), False

    @contextmanager
    def borrow(self, deadline: Deadline) -> Iterator[requests.Session]:
        """A session that no other thread uses.

        Raises:
            ConfigError: the client is closed, or the given session is another process's.
            ServerTimeoutError: the given session is busy until the deadline.
        """
        if self._closed:
            raise ConfigError(f"{self._connection.url}: the client is closed; create another one")
        if self.given is not None:
            if self._process != os.getpid():
                raise ConfigError("a session was passed on by a fork; create session and client in the new process")
            if not self._lock.acquire(timeout=deadline.left()):
                raise deadline.timeout()
            try:
                yield self.given
            finally:
                self._lock.release()
            return
        if self._process != os.getpid():  # the connections stay with the first process
            self._idle, self._process = [], os.getpid()
        try:
            session = self._idle.pop()
        except IndexError:
            session = _new_session(self._connection)
        try:
            yield session
        finally:
            self._idle.append(session)
            if self._closed:
                self.close()

    def close(self) -> None:
        """Closes the connections, unless the session was given."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()


def _new_session(connection: Connection) -> requests.Session:
    session = requests.Session()
    session.trust_env = not connection.local  # neither proxies nor .netrc apply to the machine itself
    for scheme in ("http://", "https://"):
        adapter: HTTPAdapter = BoundedAdapter()
        session.mount(scheme, adapter)
    return session
