"""The client against servers that stall, send too much or send nonsense: it ends in time, with one of its errors."""

import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
import requests

from emotion_ai import errors
from emotion_ai.client import FaceClient

READING = {"keypoints": [[1.0, 2.0]] * 15, "probabilities": [0.1, 0.2, 0.3, 0.25, 0.15]}
STATUS = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {}}]}
CROP = np.zeros((1, 9, 9), np.uint8)
TIMEOUT = 0.4

Script = Callable[[socket.socket, int], None]


class Server:
    """Runs a script on each connection, which gets the socket, the request read, and the connection's number."""

    def __init__(self, script: Script, read: bool = True) -> None:
        self.script, self.read, self.connections, self.heads = script, read, 0, [b""]
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._run, args=(connection, self.connections), daemon=True).start()

    def _run(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection:
            while self.read:
                head = b""
                while b"\r\n\r\n" not in head:
                    part = connection.recv(65536)
                    if not part:
                        return
                    head += part
                self.heads.append(head)
                head, _, body = head.partition(b"\r\n\r\n")
                length = next((int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.startswith(b"Content-Len")), 0)
                while len(body) < length:
                    body += connection.recv(65536)
                self.script(connection, number)
            self.script(connection, number)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(script: Script, read: bool = True) -> Server:
        started.append(Server(script, read))
        return started[-1]

    yield start
    for server in started:
        server.listener.close()


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sends(content: bytes) -> Script:
    return lambda connection, _: connection.sendall(content)


def drips(first: bytes, drop: bytes) -> Script:
    def drip(connection: socket.socket, _: int) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(drop)
            time.sleep(0.02)

    return drip


def floods(first: bytes, part: bytes) -> Script:
    def flood(connection: socket.socket, _: int) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(part)

    return flood


def stall(connection: socket.socket, _: int) -> None:
    time.sleep(20)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
STALLS = {
    "silence": stall,
    "half a status line": drips(b"HTTP/1.1 2", b""),
    "a byte of the headers at a time": drips(OK + b"X: ", b"x"),
    "headers without end": drips(OK, b"X: y\r\n"),
    "continues without end": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a byte of the body at a time": drips(OK + b"Content-Length: 999\r\n\r\n", b" "),
    "a body without length": drips(OK + b"\r\n", b" "),
    "a chunk at a time": drips(CHUNKED, b"1\r\n \r\n"),
    "a chunk's size without end": drips(CHUNKED, b"0"),
    "trailers without end": drips(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
    "half a body": drips(OK + b"Content-Length: 999\r\n\r\n{", b""),
}


@pytest.mark.parametrize("case", STALLS)
def test_a_stalling_server_ends_within_the_timeout(case: str, serve: Callable[..., Server]) -> None:
    server = serve(STALLS[case])
    started = time.monotonic()
    with FaceClient(server.url, timeout=TIMEOUT) as client, pytest.raises(errors.ClientError) as caught:
        client.read_crops(CROP)
    assert time.monotonic() - started < TIMEOUT + 3
    assert isinstance(caught.value, errors.ServerTimeoutError) or "headers" in case  # 100 headers are an error before
    assert server.connections == 1 or "headers" in case


def test_a_server_that_does_not_read_ends_within_the_timeout(serve: Callable[..., Server]) -> None:
    server = serve(stall, read=False)
    started = time.monotonic()
    with (
        FaceClient(server.url, timeout=TIMEOUT) as client,
        pytest.raises(errors.ServerTimeoutError, match=r"no answer within 0\.4 s"),
    ):
        client.predict([bytes(6 * 2**20)])
    assert time.monotonic() - started < TIMEOUT + 3


def test_a_session_of_the_users_is_bounded_between_parts(serve: Callable[..., Server]) -> None:
    server = serve(STALLS["a byte of the body at a time"])
    started = time.monotonic()
    with requests.Session() as session, pytest.raises(errors.ServerTimeoutError):
        FaceClient(server.url, timeout=TIMEOUT, session=session).status()
    assert time.monotonic() - started < TIMEOUT + 3


RETRY_AFTER = ["3600", "999999999999", format_datetime(datetime.now(UTC) + timedelta(hours=1), True)]


@pytest.mark.parametrize("value", RETRY_AFTER, ids=["hour", "for ever", "date"])
@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests", "301 Moved", "413 Large"])
def test_a_server_that_asks_to_wait_longer_than_the_timeout_gets_one_request(
    value: str, status: str, serve: Callable[..., Server]
) -> None:
    server = serve(sends(answer(b'{"error": "busy"}', f"Retry-After: {value}", status=status)))
    started = time.monotonic()
    with FaceClient(server.url) as client, pytest.raises(errors.ClientError):
        client.read_crops(CROP)
    assert time.monotonic() - started < 1
    assert len(server.heads) - 1 == 1


@pytest.mark.parametrize("value", ["-1", "soon", "", "1e400", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Jan"])
@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_nonsense_in_retry_after_is_ignored(value: str, status: str, serve: Callable[..., Server]) -> None:
    server = serve(sends(answer(b'{"error": "busy"}', f"Retry-After: {value}", status=status)))
    with FaceClient(server.url, retries=2) as client, pytest.raises(errors.ServerUnavailableError):
        client.read_crops(CROP)
    assert len(server.heads) - 1 == 3


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_the_wait_that_a_server_asks_for_is_kept(status: str, serve: Callable[..., Server]) -> None:
    times: list[float] = []

    def script(connection: socket.socket, _: int) -> None:
        times.append(time.monotonic())
        body = json.dumps(STATUS).encode()
        connection.sendall(answer(body) if len(times) > 1 else answer(b"", "Retry-After: 1", status=status))

    with FaceClient(serve(script).url) as client:
        assert client.ready()
    assert 1 <= times[1] - times[0] < 1.5


def test_retries_end_at_the_deadline(serve: Callable[..., Server]) -> None:
    server = serve(sends(answer(b'{"error": "busy"}', status="503 Service Unavailable")))
    for retries in (1000, None):
        started, before = time.monotonic(), len(server.heads)
        with (
            FaceClient(server.url, timeout=1.5, retries=retries) as client,
            pytest.raises(errors.ServerUnavailableError, match="503, busy; the server is overloaded or not ready"),
        ):
            client.status()
        assert time.monotonic() - started < 1.6
        assert 3 <= len(server.heads) - before < 100


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"])
def test_a_proxys_page_says_that_the_server_is_away(status: str, serve: Callable[..., Server]) -> None:
    server = serve(sends(answer(b"<html>nginx</html>", status=status)))
    with FaceClient(server.url, retries=0) as client, pytest.raises(errors.ServerUnavailableError, match=status):
        client.status()


def test_a_connection_that_breaks_is_opened_again(serve: Callable[..., Server]) -> None:
    def script(connection: socket.socket, number: int) -> None:
        if number == 1:
            connection.sendall(OK + b"Content-Length: 999\r\n\r\n{")
        elif number == 3:
            connection.sendall(answer(json.dumps(STATUS).encode()))
        connection.close()

    server = serve(script)
    assert FaceClient(server.url).versions() == {1: "AVAILABLE"}
    assert server.connections == 3


def nested(times: int) -> bytes:
    packed = bytes(64 * 2**20)
    for _ in range(times):
        packed = gzip.compress(packed, 1)
    return packed


TOO_LARGE = {
    "a long body": floods(OK + b"Content-Length: 99999999999\r\n\r\n", b" " * 65536),
    "a body without length": floods(OK + b"\r\n", b" " * 65536),
    "chunks without end": floods(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "trailers without end": floods(CHUNKED + b"0\r\n", b"X: y\r\n" * 9999),
    "continues without end": floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 999),
    "gzip": sends(answer(nested(1), "Content-Encoding: gzip")),
    "gzip in gzip": sends(answer(nested(2), "Content-Encoding: gzip, gzip")),
    "gzip in chunks": sends(
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        + f"{len(nested(1)):x}\r\n".encode()
        + nested(1)
        + b"\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_response_has_a_limit(case: str, serve: Callable[..., Server]) -> None:
    server = serve(TOO_LARGE[case])
    with FaceClient(server.url) as client:
        for call in (client.status, client.metadata, lambda: client.read_crops(CROP)):
            with pytest.raises(errors.ServerFailureError, match=r"the response is larger than 4\.0 MiB"):
                call()


def test_large_responses_below_the_limit_arrive(serve: Callable[..., Server]) -> None:
    rows = json.dumps({"predictions": [READING] * 100}, indent=120).encode()
    assert len(rows) > 2 * 2**20
    for content in (answer(rows), answer(gzip.compress(rows), "Content-Encoding: gzip")):
        with FaceClient(serve(sends(content)).url, signature="serving_bytes") as client:
            assert client.predict([b"x"] * 100)["keypoints"].shape == (100, 15, 2)


DEEP = {
    "lists": b"[" * 25_000 + b"]" * 25_000,
    "objects": b'{"a":' * 25_000 + b"1" + b"}" * 25_000,
    "lists without end": b"[" * 25_000,
    "hundreds": b"[" * 900 + b"]" * 900,
    "predictions": b'{"predictions": ' + b"[" * 25_000 + b"]" * 25_000 + b"}",
    "predictions, hundreds": b'{"predictions": [' + b"[" * 700 + b"]" * 700 + b"]}",
    "status": b'{"model_version_status": ' + b"[" * 25_000 + b"]" * 25_000 + b"}",
    "status, hundreds": b'{"model_version_status": ' + b"[" * 700 + b"]" * 700 + b"}",
    "error": b'{"error": ' + b"[" * 700 + b"]" * 700 + b"}",
}
NONSENSE = DEEP | {
    "nothing": b"",
    "UTF-16": json.dumps(STATUS).encode("utf-16"),
    "Latin-1": b'{"model_version_status": "\xe9"}',
    "a repeated key": b'{"model_version_status": [], "predictions": [], "model_version_status": []}',
    "a repeated version": b'{"model_version_status": [{"version": "1", "version": "2", "state": "AVAILABLE"}]}',
    "a huge integer": b'{"model_version_status": [{"version": ' + b"9" * 5000 + b', "state": "AVAILABLE"}]}',
    "a huge version": b'{"model_version_status": [{"version": "' + b"9" * 5000 + b'", "state": "AVAILABLE"}]}',
    "NaN": b'{"model_version_status": [{"version": NaN, "state": "AVAILABLE"}]}',
    "infinity": b'{"model_version_status": [{"version": Infinity, "state": "AVAILABLE"}]}',
    "a fraction": b'{"model_version_status": [{"version": 1.5, "state": "AVAILABLE"}]}',
    "true": b'{"model_version_status": [{"version": true, "state": "AVAILABLE"}]}',
    "a negative version": b'{"model_version_status": [{"version": "-1", "state": "AVAILABLE"}]}',
    "null": b"null",
    "a number": b"1",
    "a null status": b'{"model_version_status": null}',
    "a list of nulls": b'{"model_version_status": [null]}',
    "a state that is none": b'{"model_version_status": [{"version": "1", "state": ["AVAILABLE"]}]}',
}


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_one_server_failure(case: str, status: int, serve: Callable[..., Server]) -> None:
    server = serve(sends(answer(NONSENSE[case], status=f"{status} X")))
    with FaceClient(server.url) as client:
        for call in (client.versions, client.metadata, lambda: client.read_crops(CROP)):
            with pytest.raises(errors.ServerFailureError) as caught:
                call()
            assert len(str(caught.value)) < 2500
            assert str(caught.value).isprintable()
        assert not client.ready()


METADATA = {
    "model_spec": {"name": "face", "version": "1", "signature_name": ""},
    "metadata": {"signature_def": {"signature_def": {"serving_default": {}}}},
}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"model_spec": None},
        {"model_spec": {"version": 1e400}},
        {"model_spec": {"version": "one"}},
        {"metadata": []},
        {"metadata": {"signature_def": {}}},
        {"metadata": {"signature_def": {"signature_def": []}}},
    ],
    ids=str,
)
def test_metadata_is_checked(wrong: dict[str, Any], serve: Callable[..., Server]) -> None:
    with FaceClient(serve(sends(answer(json.dumps(METADATA).encode()))).url) as client:
        assert client.metadata() == METADATA
    broken = json.dumps({**METADATA, **wrong} if wrong else {}).encode()
    with (
        FaceClient(serve(sends(answer(broken))).url) as client,
        pytest.raises(errors.ServerFailureError, match="the metadata is not in TensorFlow Serving's format"),
    ):
        client.metadata()


def test_error_texts_are_short_and_printable(serve: Callable[..., Server]) -> None:
    body = json.dumps({"error": "\x1b[31m" + "a\nb " * 99999}).encode()
    server = serve(sends(answer(body, status="400 Bad Request")))
    with FaceClient(server.url) as client, pytest.raises(errors.RequestRejectedError, match=r"\[31ma b a b") as caught:
        client.status()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2500


def test_redirects_are_not_followed(serve: Callable[..., Server]) -> None:
    other = serve(sends(answer(json.dumps(STATUS).encode())))
    server = serve(sends(answer(b"", f"Location: {other.url}/v1/models/face", status="307 Temporary Redirect")))
    with FaceClient(server.url) as client, pytest.raises(errors.ServerFailureError, match=f"redirects to {other.url}"):
        client.status()
    assert other.connections == 0


def test_proxies_of_the_environment_are_for_other_machines(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(sends(answer(json.dumps(STATUS).encode())))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with FaceClient("http://models.invalid:8501") as client:
        assert client.ready()
    assert b"GET http://models.invalid:8501/v1/models/face " in proxy.heads[1]
    server = serve(sends(answer(json.dumps(STATUS).encode())))
    with FaceClient(server.url) as client:
        assert client.ready()
    assert (proxy.connections, server.connections) == (1, 1)


def test_a_stalling_proxy_ends_within_the_timeout(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(STALLS["a byte of the headers at a time"])
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("https_proxy", proxy.url)
    started = time.monotonic()
    with FaceClient("https://models.invalid:8501", timeout=TIMEOUT) as client, pytest.raises(errors.ClientError):
        client.status()
    assert time.monotonic() - started < TIMEOUT + 3


def test_a_forked_process_opens_connections_of_its_own(serve: Callable[..., Server]) -> None:
    server = serve(sends(answer(json.dumps(STATUS).encode())))
    client = FaceClient(server.url)
    with requests.Session() as session:
        given = FaceClient(server.url, session=session)
        assert client.ready()
        assert given.ready()
        for each in (client, given):
            each._transport._sessions._process = 1  # type: ignore[attr-defined]
        before = list(client._transport._sessions._idle)  # type: ignore[attr-defined]
        assert client.ready()
        assert [before] != [client._transport._sessions._idle]  # type: ignore[attr-defined]
        assert server.connections == 3
        with pytest.raises(errors.ConfigError, match="create session and client in the new process"):
            given.status()


def test_passwords_in_the_address_are_in_no_message(serve: Callable[..., Server]) -> None:
    server = serve(sends(answer(b'{"error": "no"}', status="400 Bad Request")))
    client = FaceClient(server.url.replace("://", "://me:se%40cret@"))
    texts = [repr(client.connection), str(client.connection)]
    for call in (client.status, client.metadata, lambda: client.read_crops(CROP)):
        with pytest.raises(errors.ClientError) as caught:
            call()
        texts.append(str(caught.value))
    assert b"\r\nAuthorization: Basic " in server.heads[1]
    with pytest.raises(errors.ConfigError) as wrong:
        FaceClient("htp://me:se%40cret@host:1")
    assert not [text for text in [*texts, str(wrong.value)] if "cret" in text]
