"""The embedded server against slow, ambiguous and oversized requests, through raw sockets."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import uvicorn

from emotion_ai.client import protos
from emotion_ai_export.serving.embedded import loaded_model
from emotion_ai_export.serving.embedded.app import create_app
from emotion_ai_export.serving.embedded.connections import LimitedProtocol
from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.limits import Limits
from emotion_ai_export.serving.embedded.loaded_model import LoadedModel
from emotion_ai_export.serving.embedded.rpc import start_rpc
from emotion_ai_export.serving.embedded.store import ModelStore
from emotion_ai_export.serving.launch import free_port
from tests.export.serving.small_models import put

LIMITS = Limits(body=100_000, connections=6, receive=0.6, respond=1.5)
STATUS = b"GET /v1/models/face HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/models/face:predict HTTP/1.1\r\nHost: x\r\n"


class Quick(LimitedProtocol):
    limits = LIMITS


@pytest.fixture(scope="module")
def address(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    base = tmp_path_factory.mktemp("attacked")
    put(built, base, 1)
    store = ModelStore(base)
    store.start()
    app = create_app(store, LIMITS)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=Quick, ws="none", log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    place = ("127.0.0.1", listener.getsockname()[1])
    end = time.monotonic() + 30
    while b'"AVAILABLE"' not in ask(place, STATUS):
        assert time.monotonic() < end
        time.sleep(0.05)
    yield place
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


def read(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    return found


def ask(address: tuple[str, int], content: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(content.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"))
        return read(connection)


SLOW = {
    "nothing": (b"", b""),
    "a byte of the headers at a time": (POST + b"X: ", b"x"),
    "headers without end": (POST, b"X: y\r\n"),
    "a byte of the body at a time": (POST + b"Content-Length: 9999\r\n\r\n", b" "),
    "a chunk at a time": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a second request": (STATUS + POST + b"X: ", b"x"),
    "half a body": (POST + b"Content-Length: 9999\r\n\r\n{", b""),
}


@pytest.mark.parametrize("case", SLOW)
def test_slow_requests_are_closed(case: str, address: tuple[str, int]) -> None:
    first, drop = SLOW[case]
    started = time.monotonic()
    with socket.create_connection(address, timeout=0.05) as connection:
        connection.sendall(first)
        answer = b""
        while time.monotonic() - started < 8:
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(drop)
            try:
                part = connection.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if not part:
                break
            answer += part
    assert time.monotonic() - started < 5
    assert b"HTTP/1.1 408 Request Timeout" in answer
    assert b'"AVAILABLE"' in ask(address, STATUS)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
        b"Content-Length: 6\r\nContent-Length: 7\r\n\r\n{}    G",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\nG",
        b"Transfer-Encoding: identity\r\n\r\nG",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        b"Content-Length: -1\r\n\r\nG",
        b"Content-Length: +2\r\n\r\n{}G",
        b"Content-Length : 2\r\n\r\n{}G",
    ],
)
def test_a_body_of_two_lengths_is_refused_and_nothing_after_it_is_read(
    headers: bytes, address: tuple[str, int]
) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(POST + headers + STATUS[1:])
        answer = read(connection)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1") == 1, answer


def test_requests_one_after_the_other_at_once(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(STATUS * 20)
        found = b""
        while found.count(b'"AVAILABLE"') < 20:
            found += connection.recv(65536)
    assert found.count(b"HTTP/1.1 200 OK") == 20


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + b"X: " + b"x" * 200_000 + b"\r\n\r\n", b"400"),
        (POST + b"X: y\r\n" * 40_000 + b"\r\n", b"400"),
        (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (POST + b"Content-Length: 200000\r\n\r\n" + b" " * 200_000, b"413"),
        (POST + b"Content-Length: 40000\r\n\r\n" + b"[" * 40_000, b"400"),
    ],
    ids=["a header", "headers", "an address", "a body", "nested JSON"],
)
def test_large_requests_are_refused(request_: bytes, status: bytes, address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request_.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"))
        answer = read(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 " + status), answer[:200]  # a reset may overtake the answer
    assert b'"AVAILABLE"' in ask(address, STATUS)


def test_connections_have_a_limit_and_come_back(address: tuple[str, int]) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(LIMITS.connections)]
        time.sleep(0.2)
        assert ask(address, STATUS) == b"" or b"503 Service Unavailable" in ask(address, STATUS)
        assert all(b"408" in read(connection) for connection in opened)
    assert b'"AVAILABLE"' in ask(address, STATUS)


def test_a_model_runs_for_a_stated_time_only(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded_model, "_RUN_SECONDS", 0.3)
    model = LoadedModel(built / "sleepy")
    started = time.monotonic()
    with pytest.raises(ServingError) as caught:
        model.run("serving_default", {"x": np.ones(1, np.float32)})
    assert (caught.value.code, caught.value.status) == ("DEADLINE_EXCEEDED", 504)
    assert time.monotonic() - started < 2.5


def test_requests_over_grpc_that_do_not_arrive_keep_no_worker(built: Path, tmp_path: Path) -> None:
    put(built, tmp_path, 1)
    store = ModelStore(tmp_path)
    store.refresh()
    server, port = start_rpc(store, "127.0.0.1:0", Limits(receive=1.0))
    ended = threading.Event()
    request = protos.GetModelStatusRequest(model_spec={"name": "face"}).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        opened = channel.stream_unary(protos.GET_MODEL_STATUS)
        stuck = [opened.future(iter(ended.wait, None), timeout=30) for _ in range(2 * Limits().workers)]
        time.sleep(0.2)
        assert channel.unary_unary(protos.GET_MODEL_STATUS)(request, timeout=0.9)
        assert {call.code() for call in stuck} == {grpc.StatusCode.CANCELLED}
        ended.set()
    server.stop(None).wait()


def test_sigterm_ends_the_process_with_stuck_connections(built: Path, tmp_path: Path) -> None:
    put(built, tmp_path, 1)
    port = free_port()
    command = [sys.executable, "-m", "emotion_ai_export.serving.embedded", str(tmp_path)]
    process = subprocess.Popen(
        [*command, f"--rest-port={port}", "--grpc-port=0"], env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if b'"AVAILABLE"' in ask(("127.0.0.1", port), STATUS):
                    break
            assert time.monotonic() < end
            time.sleep(0.2)
        for content in (b"", POST, POST + b"Content-Length: 9\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\n"):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(content)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=25) in (0, -signal.SIGTERM)
