"""The wheel with [serve] in an empty environment: versions and serving without PyTorch. Downloads packages."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.packaging.environments import absent, install, predict, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def serve_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("serve") / "venv", f"{wheel}[serve]")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serving(bin_folder: Path, base: Path) -> Iterator[str]:
    port, grpc_port = free_port(), free_port()
    command = [str(bin_folder / "emotion-ai"), "serve", str(base), "--engine", "embedded"]
    command += ["--rest-port", str(port), "--grpc-port", str(grpc_port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            try:
                if requests.get(f"{address}/v1/models/face", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_serve_manages_versions_without_pytorch(serve_install: Path, published: Path) -> None:
    assert absent(serve_install, "torch", "torchvision", "pytorch_lightning", "onnx", "safetensors")
    program = serve_install / "emotion-ai"
    with serving(serve_install, published) as server:
        reach = [str(published), "--server", server]
        run(program, "promote", reach[0], "3", *reach[1:])
        run(program, "promote", reach[0], "2", *reach[1:])
        run(program, "rollback", *reach)
        versions = json.loads(run(program, "versions", *reach, "--json"))
        assert {version["number"]: version["labels"] for version in versions} == {1: [], 2: [], 3: ["stable"]}
        run(program, "prune", *reach, "--keep", "1")
        assert [version["number"] for version in json.loads(run(program, "versions", *reach, "--json"))] == [3]
        predict(serve_install, server)
    assert os.listdir(published / "face") == ["3"]
