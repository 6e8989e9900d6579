"""The client over gRPC against servers that stall, send too much or send nonsense: it ends in time, with its errors."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from emotion_ai import errors
from emotion_ai.client import FaceClient
from emotion_ai.contract import EMOTIONS

grpc = pytest.importorskip("grpc")
protos = pytest.importorskip("emotion_ai.client.protos")
rpc = pytest.importorskip("emotion_ai.client.rpc")

CROP = np.zeros((1, 9, 9), np.uint8)
TIMEOUT = 0.5
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
PING = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"

Respond = Callable[[Any, Any], bytes]


@pytest.fixture
def serve() -> Iterator[Callable[[Respond], str]]:
    """Starts a gRPC server whose Predict returns the given bytes."""
    started = []

    def start(respond: Respond) -> str:
        server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.max_send_message_length", -1)])
        service, name = protos.PREDICT.removeprefix("/").split("/")
        handler = grpc.unary_unary_rpc_method_handler(respond)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: handler})])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        started.append(server)
        return f"grpc://127.0.0.1:{port}"

    yield start
    for server in started:
        server.stop(None)


@pytest.fixture
def listen() -> Iterator[Callable[[bytes, bytes], str]]:
    """Starts a server that sends bytes, and then others again and again, whatever it is sent."""
    listeners = []

    def talk(connection: socket.socket, first: bytes, drop: bytes) -> None:
        with contextlib.suppress(OSError), connection:
            connection.sendall(first)
            for _ in range(200):
                connection.sendall(drop)
                time.sleep(0.02)

    def accept(listener: socket.socket, first: bytes, drop: bytes) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(listener.accept()[0], first, drop), daemon=True).start()

    def start(first: bytes, drop: bytes) -> str:
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=accept, args=(listeners[-1], first, drop), daemon=True).start()
        return f"grpc://127.0.0.1:{listeners[-1].getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def failure(url: str, retries: int = 2) -> errors.ClientError:
    """The error of a request, which comes within its time-out."""
    started = time.monotonic()
    with FaceClient(url, timeout=TIMEOUT, retries=retries) as client, pytest.raises(errors.ClientError) as caught:
        client.read_crops(CROP)
    assert time.monotonic() - started < TIMEOUT + 3
    return caught.value


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),
        (b"", b"x"),
        (SETTINGS, b""),
        (SETTINGS, PING),
        (SETTINGS, SETTINGS),
        (b"HTTP/1.1 200 OK\r\n\r\n", b""),
        (SETTINGS + b"\xff" * 5000, b""),
    ],
    ids=["silence", "bytes", "no answer", "pings", "settings", "HTTP/1.1", "broken frames"],
)
def test_a_stalling_server_ends_within_the_timeout(
    first: bytes, drop: bytes, listen: Callable[[bytes, bytes], str]
) -> None:
    error = failure(listen(first, drop))
    assert isinstance(error, errors.ServerTimeoutError | errors.ServerUnreachableError | errors.ServerFailureError)


def test_a_server_that_never_answers_is_a_timeout(serve: Callable[[Respond], str]) -> None:
    ended = threading.Event()
    try:
        assert isinstance(failure(serve(lambda *_: b"x" * ended.wait(5))), errors.ServerTimeoutError)
    finally:
        ended.set()


@pytest.mark.parametrize("packed", [False, True])
def test_a_response_has_a_limit(packed: bool, serve: Callable[[Respond], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_RESPONSE", 2**20)

    def respond(_: Any, context: Any) -> bytes:
        if packed:
            context.set_compression(grpc.Compression.Gzip)
        return protos.PredictResponse(model_spec={"name": "x" * 2**21}).SerializeToString()

    error = failure(serve(respond))
    assert isinstance(error, errors.ServerFailureError)
    assert "the response is larger than 1 MiB" in str(error)


def claims(**outputs: tuple[int, ...]) -> bytes:
    """A small response with classes, and tensors of these shapes, each of one value."""
    response = protos.PredictResponse()
    classes = response.outputs["classes"]
    classes.dtype = 7  # DT_STRING
    classes.string_val.extend(name.encode() for name in EMOTIONS)
    for size in (1, len(EMOTIONS)):
        classes.tensor_shape.dim.add(size=size)
    for name, shape in outputs.items():
        tensor = response.outputs[name]
        tensor.dtype = 1
        tensor.float_val.append(0.5)
        for size in shape:
            tensor.tensor_shape.dim.add(size=size)
    return response.SerializeToString()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xff" * 100, "INTERNAL"),
        (b"", "no usable classes"),
        (claims(keypoints=(1, 15, 2), probabilities=(1, 5)), "sum to 1"),
        (claims(**{f"x{number}": (2**25,) for number in range(500)}), "must have the shape"),
        (claims(keypoints=(2**25, 2)), "must have the shape"),
        (claims(keypoints=(2**40,)), "larger than"),
        (claims(keypoints=(-1,)), "known shape"),
    ],
    ids=["garbage", "nothing", "two outputs", "other outputs", "a huge output", "a larger output", "a negative size"],
)
def test_nonsense_is_one_server_failure(content: bytes, text: str, serve: Callable[[Respond], str]) -> None:
    started = time.process_time()
    error = failure(serve(lambda *_: content))
    assert isinstance(error, errors.ServerFailureError)
    assert text in str(error)
    assert len(str(error)) < 2500
    assert time.process_time() - started < 2
