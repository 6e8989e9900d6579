"""HTTP connections with time limits, which uvicorn has for idle ones only."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from emotion_ai_export.serving.embedded.limits import Limits

_RECEIVING = (h11.IDLE, h11.SEND_BODY)


class LimitedProtocol(H11Protocol):
    """Closes connections whose request or response takes too long, and those beyond the limit."""

    limits = Limits()
    _timer: asyncio.TimerHandle | None = None
    _receiving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._end("503 Service Unavailable")
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        if self.conn.their_state is h11.SEND_BODY:  # no need to wait for the rest
            self._end("503 Service Unavailable")

    def _watch(self) -> None:
        """Starts the time of the request or of the response when it begins."""
        receiving = self.conn.their_state in _RECEIVING
        if self.transport.is_closing() or (self._timer and receiving == self._receiving):
            return
        self._stop()
        self._receiving = receiving
        seconds = self.limits.receive if receiving else self.limits.respond
        self._timer = self.loop.call_later(seconds, self._end, "408 Request Timeout")

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _end(self, status: str) -> None:
        started = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not started and not self.transport.is_closing():
            self.transport.write(f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
        self.transport.close()
        self._timer = self.loop.call_later(1.0, self.transport.abort)  # a client may not read
