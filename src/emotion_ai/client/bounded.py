"""HTTP connections that a server cannot keep busy: each request has one deadline and a limit on the bytes it returns.

The time-outs of requests are for single operations of a socket: a server that sends a byte per second, or headers
without end, stays below them for ever.
"""

import contextlib
import http.client
import io
import socket
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from emotion_ai.client.deadline import Deadline
from emotion_ai.errors import ServerFailureError


class Budget(Deadline):
    """What a request may take: time, and bytes of the response.

    Args:
        where: its address, for messages.
        seconds: from now to the last byte of the response.
        size: bytes of the response, headers included, as they come and decompressed.
    """

    def __init__(self, where: str, seconds: float, size: int) -> None:
        super().__init__(where, seconds)
        self.size, self.received = size, 0
        self.socket: socket.socket | None = None

    def check(self, size: int) -> None:
        """Raises ServerFailureError for a response of so many bytes if they are too many."""
        if size > self.size:
            limit = f"{self.size / 2**20:.1f} MiB"
            raise ServerFailureError(f"{self.where}: the response is larger than {limit}; is this TensorFlow Serving?")

    def abort(self) -> None:
        """Ends what another thread waits for on the connection."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # below TLS, which the other thread is using


BUDGET: ContextVar[Budget | None] = ContextVar("budget", default=None)
"""Of the request that this thread is making."""


class BoundedAdapter(HTTPAdapter):
    """An adapter of requests whose connections keep to `BUDGET`."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        _use_bounded(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> ProxyManager:
        manager: ProxyManager = super().proxy_manager_for(proxy, **options)
        _use_bounded(manager)
        return manager


class _Stream(io.RawIOBase):
    def __init__(self, stream: io.RawIOBase, connection: socket.socket) -> None:
        self._stream, self._socket, self._budget = stream, connection, BUDGET.get()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._budget is None:
            return self._stream.readinto(buffer)
        self._budget.socket = self._socket
        self._socket.settimeout(self._budget.left())
        try:
            size = self._stream.readinto(buffer)
        except TimeoutError as error:
            raise self._budget.timeout() from error
        self._budget.received += size or 0
        self._budget.check(self._budget.received)
        return size

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Stream(self.fp.detach(), sock))


class _HTTPConnection(HTTPConnection):
    response_class = _Response

    def __init__(self, host: str, *args: Any, **options: Any) -> None:
        super().__init__(unquote(host), *args, **options)  # "%25eth0" of a link-local IPv6 address

    def send(self, data: Any) -> None:
        budget = BUDGET.get()
        if budget is None or self.sock is None:
            return super().send(data)
        budget.socket = self.sock
        self.sock.settimeout(budget.left())
        try:
            super().send(data)
        except TimeoutError as error:
            raise budget.timeout() from error


class _HTTPSConnection(HTTPSConnection, _HTTPConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


def _use_bounded(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
