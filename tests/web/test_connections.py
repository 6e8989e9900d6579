"""Connections to a server: closed if no request comes, whatever was sent of it."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import requests
import uvicorn
from starlette.responses import PlainTextResponse

from emotion_ai.web import connections
from emotion_ai.web.connections import protocol


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server whose connections may be silent for 0.4 s, and of which an address may hold three."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.4)
    monkeypatch.setattr(connections, "MAX_FROM_ADDRESS", 3)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("here")(scope, receive, send)

    config = uvicorn.Config(
        app, lifespan="off", log_level="error", timeout_keep_alive=1, http=protocol(getattr(request, "param", ()))
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


HELLO = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n", HELLO + b"GET /"])
def test_a_connection_without_a_request_is_closed(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
        started = time.monotonic()
        connection.sendall(sent)
        while connection.recv(1000):
            pass
        assert 0.3 < time.monotonic() - started < 2


def test_headers_that_drip_do_not_keep_a_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
        started = time.monotonic()
        with suppress(OSError):  # the server has closed it
            while time.monotonic() < started + 5:
                connection.sendall(b"a")
                time.sleep(0.05)
        assert 0.3 < time.monotonic() - started < 4


@pytest.mark.parametrize("port", [(), ("127.0.0.0/8",)], indirect=True)
def test_an_address_holds_a_few_connections_unless_it_is_a_trusted_proxy(
    port: int, request: pytest.FixtureRequest
) -> None:
    held = [socket.create_connection(("127.0.0.1", port), timeout=3) for _ in range(3)]
    status = requests.get(f"http://127.0.0.1:{port}", timeout=3).status_code
    assert status == (200 if request.node.callspec.params["port"] else 503)
    for connection in held:
        connection.close()
