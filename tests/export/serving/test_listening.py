"""Where servers listen: one address, IPv4 or IPv6, and no more calls over gRPC than allowed."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import requests

from emotion_ai.client import protos
from emotion_ai.errors import ConfigError
from emotion_ai_export.serving import engines, launch
from emotion_ai_export.serving.embedded.limits import Limits
from emotion_ai_export.serving.embedded.rpc import start_rpc
from emotion_ai_export.serving.embedded.store import ModelStore
from emotion_ai_export.serving.engines import ServerOptions
from emotion_ai_export.serving.launch import free_port
from tests.export.serving.small_models import put

STATUS = protos.GetModelStatusRequest(model_spec={"name": "face"}).SerializeToString()


@contextlib.contextmanager
def stuck_calls(channel: grpc.Channel, count: int) -> Iterator[None]:
    """Calls whose message never arrives."""
    ended = threading.Event()
    opened = channel.stream_unary(protos.GET_MODEL_STATUS)
    calls = [opened.future(iter(ended.wait, None), timeout=30) for _ in range(count)]
    time.sleep(0.3)
    yield
    ended.set()
    for call in calls:
        call.cancel()


def test_calls_beyond_the_limit_are_rejected_at_once(built: Path, base: Path) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    server, port = start_rpc(store, "127.0.0.1:0", Limits(pending=2))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        status = channel.unary_unary(protos.GET_MODEL_STATUS)
        assert status(STATUS, timeout=5)
        with stuck_calls(channel, 2), pytest.raises(grpc.RpcError) as caught:
            status(STATUS, timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    server.stop(None).wait()


def test_serve_on_an_ipv6_address_with_one_grpc_thread(built: Path, base: Path) -> None:
    put(built, base, 1)
    rest, rpc = free_port(), free_port()
    command = [sys.executable, "-m", "emotion_ai.cli", "serve", str(base), "--engine", "embedded", "--host", "[::1]"]
    command += ["--rest-port", str(rest), "--grpc-port", str(rpc), "--grpc-max-threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        line = process.stderr.readline()
        assert f"on http://[::1]:{rest} and grpc://[::1]:{rpc}" in line
        url = re.findall(r"http://\S+", line)[0]
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(requests.ConnectionError):
                listed = requests.get(f"{url}/v1/models/face", timeout=5)
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert '"AVAILABLE"' in listed.text, "as TensorFlow Serving's, the port opens once everything is loaded"
        with grpc.insecure_channel(f"[::1]:{rpc}") as channel:
            status = channel.unary_unary(protos.GET_MODEL_STATUS)
            assert status(STATUS, timeout=5)
            with stuck_calls(channel, 1), pytest.raises(grpc.RpcError, match="RESOURCE_EXHAUSTED"):
                status(STATUS, timeout=5)
        for port in (rest, rpc):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_an_ipv6_port_that_is_taken_is_named(built: Path, base: Path) -> None:
    put(built, base, 1)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--rest-port {port} on ::1: Address already in use"):
            launch.serve(base, ServerOptions(port, free_port(), "embedded", "::1"))


def test_rest_and_grpc_need_two_ports(built: Path, base: Path) -> None:
    put(built, base, 1)
    port = free_port()
    with pytest.raises(ConfigError, match=f"--rest-port and --grpc-port are both {port}; choose two ports"):
        launch.serve(base, ServerOptions(port, port, "embedded"))


def test_engines_get_the_address_and_the_threads(
    built: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(built, base, 1)
    monkeypatch.setenv("TFS_BIN", "/opt/tensorflow_model_server")
    options = {engine: ServerOptions(18501, 18500, engine, "::1", 7) for engine in engines.ENGINES[1:]}
    commands = {engine: engines.command_line(base, each, tmp_path) for engine, each in options.items()}
    assert {"--publish=[::1]:18501:8501", "--publish=[::1]:18500:8500"} <= set(commands["docker"])
    assert {"--host=::1", "--grpc-max-threads=7"} <= set(commands["embedded"])
    for engine in ("tensorflow-serving", "docker"):
        flags = [flag for flag in commands[engine] if flag.startswith("--grpc_max_threads")]
        assert flags == ["--grpc_max_threads=7"]
    with pytest.raises(ConfigError, match="grpc_max_threads must be an integer >= 1, got 0"):
        engines.command_line(base, ServerOptions(engine="tensorflow-serving", grpc_max_threads=0), tmp_path)


@pytest.mark.parametrize("engine", ["tensorflow-serving", "docker"])
def test_the_profiler_does_not_listen(
    built: Path, base: Path, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(built, base, 1)
    monkeypatch.setenv("TFS_BIN", "/opt/tensorflow_model_server")
    assert "--enable_profiler=false" in engines.command_line(base, ServerOptions(engine=engine), tmp_path)
