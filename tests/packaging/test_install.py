"""The wheel in empty environments: the base install, and [serve] without PyTorch. Downloads packages."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from emotion_ai.vision.photo import PORTRAITS
from emotion_ai_export.registry.publish import publisher, put_in_place, write_config
from emotion_ai_export.serving.launch import running

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def install(folder: Path, requirement: str) -> Path:
    """An environment with this requirement alone; returns its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "-c", str(ROOT / "constraints.txt"), requirement], check=True, timeout=1000)
    return folder / "bin"


@pytest.fixture(scope="module")
def base_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("base") / "venv", str(wheel))


@pytest.fixture(scope="module")
def serve_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("serve") / "venv", f"{wheel}[serve]")


@pytest.fixture
def published(folders: dict[str, Path], tmp_path: Path) -> Path:
    """Three versions of small random networks."""
    base = tmp_path / "models"
    for number in (1, 2, 3):
        with publisher(base) as staging:
            for name, folder in folders.items():
                shutil.copytree(folder, staging / name)
            put_in_place(staging, base, number)
            write_config(base, "host")
    return base


def run(program: Path, *arguments: str) -> str:
    result = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def absent(bin_folder: Path, *modules: str) -> bool:
    code = f"from importlib.util import find_spec; print([m for m in {modules} if find_spec(m)])"
    return run(bin_folder / "python", "-c", code).strip() == "[]"


def predict(bin_folder: Path, server: str) -> None:
    output = run(bin_folder / "emotion-ai", "predict", str(PORTRAITS[0]), "--server", server, "--json")
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines
    assert "Happy" in json.dumps(lines)


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


def test_the_base_install_predicts_with_a_server(base_install: Path, published: Path) -> None:
    assert absent(base_install, "torch", "tensorflow", "grpc", "pandas", "hydra")
    code = "import emotion_ai; emotion_ai.FaceClient; print(emotion_ai.__version__, len(emotion_ai.EMOTIONS))"
    assert run(base_install / "python", "-c", code).split()[1] == "5"
    assert "--server" in run(base_install / "emotion-ai", "predict", "--help")
    with running(published) as addresses:
        predict(base_install, addresses.rest)


@pytest.mark.parametrize(("arguments", "extra"), [(["train"], "train"), (["serve", "."], "serve"), (["web"], "web")])
def test_the_base_install_names_the_extra(base_install: Path, arguments: list[str], extra: str, tmp_path: Path) -> None:
    command = [str(base_install / "emotion-ai"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert f"pip install 'emotion-ai[{extra}]'" in " ".join(result.stderr.split())


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
