"""Connections to the page: how many one address may hold, and how long one may stay without a request."""

import asyncio
from collections.abc import Collection
from ipaddress import ip_address, ip_network
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from emotion_ai.web.limits import network

MAX_FROM_ADDRESS = 200
"""Connections of one address at the same time; a browser holds up to six."""

HEADER_SECONDS = 15.0
"""Longest time until a request's headers are complete."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 31\r\nConnection: close\r\n\r\n"
    b"Too many connections from here."
)


def protocol(proxies: Collection[str] = ()) -> type[H11Protocol]:
    """The class of connections, for uvicorn; `proxies` are addresses and networks that may hold any number."""
    trusted = [ip_network(proxy) for proxy in proxies]

    class Connection(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            address = self.client[0] if self.client else ""
            own = network(address)
            clients = (getattr(other, "client", None) for other in self.connections)
            held = sum(network(client[0]) == own for client in clients if client)
            if held > MAX_FROM_ADDRESS and not any(ip_address(address) in proxy for proxy in trusted):
                transport.write(_BUSY)
                transport.close()
                return
            self._wait()

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._timer is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Connection
