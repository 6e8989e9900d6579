"""Server processes: their commands, their start, and how they end."""

import os
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from emotion_ai.client import FaceClient
from emotion_ai.errors import ConfigError, ExportError, MissingExtraError
from emotion_ai_export.registry.model_config import ModelConfig, parse, render
from emotion_ai_export.serving import engines, launch
from emotion_ai_export.serving.engines import ServerOptions
from tests.export.serving.small_models import put


def test_running_leaves_nothing_behind(built: Path, base: Path) -> None:
    put(built, base, 1)
    with launch.running(base) as (url, _):
        port = int(url.rpartition(":")[2])
        assert FaceClient(url).ready()
        with pytest.raises(ConfigError, match=f"rest_port {port} .*in use"), launch.running(base, rest_port=port):
            pass
    assert not FaceClient(url, retries=0).ready()
    socket.create_server(("127.0.0.1", port)).close()


def test_a_terminated_server_finishes_open_requests(built: Path, base: Path, tmp_path: Path) -> None:
    put(built, base, 1)
    (base / "broken" / "1").mkdir(parents=True)
    (base / "sleepy").mkdir()
    shutil.copytree(built / "sleepy", base / "sleepy" / "1")
    port = launch.free_port()
    command = engines.command_line(base, ServerOptions(port, 0, "embedded"), tmp_path)
    notes = tmp_path / "notes"
    with notes.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream, env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    server = launch.ServerProcess(url, process, notes)
    try:
        server.wait_available({"face": {"1"}, "sleepy": {"1"}}, 60)
        with pytest.raises(ExportError, match=r"model broken did not become available; .*saved_model\.pb"):
            server.wait_available({"broken": {"1"}}, 60)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(requests.post, f"{url}/v1/models/sleepy:predict", json={"instances": [5]}, timeout=60)
            time.sleep(0.3)
            quick = requests.get(f"{url}/v1/models/face", timeout=5)
            assert quick.status_code == 200
            assert not slow.done(), "the model answers too fast for this test"
            process.send_signal(signal.SIGTERM)
            assert slow.result().json() == {"predictions": [5.0]}
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
    said = notes.read_text()
    assert "emotion-ai-embedded: stand-in for TensorFlow Serving" in said
    assert "gRPC on port" in said
    assert "Traceback" not in said


def test_errors_are_one_line(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such folder; publish models into it with: emotion-ai export out="):
        launch.serve(base)
    (base / "face" / "latest").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no <model>/<version> folder there"):
        launch.serve(base)
    with pytest.raises(ConfigError, match="choose one of auto, tensorflow-serving, docker, embedded"):
        engines.choose_engine("triton")
    monkeypatch.delenv("TFS_BIN", raising=False)
    monkeypatch.setenv("PATH", "")
    assert engines.choose_engine() == "embedded"
    with pytest.raises(ConfigError, match="tensorflow_model_server is neither on PATH nor named by TFS_BIN"):
        engines.choose_engine("tensorflow-serving")
    with pytest.raises(ConfigError, match="docker is not installed"):
        engines.choose_engine("docker")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs tensorflow: pip install 'emotion-ai\[serve\]'"):
        engines.choose_engine()


def test_commands_name_the_files_that_each_engine_sees(
    built: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(built, base, 1)
    monkeypatch.setenv("TFS_BIN", "/opt/tensorflow_model_server")

    def command(engine: str) -> str:
        return " ".join(engines.command_line(base, ServerOptions(18501, 18500, engine), tmp_path))

    def written() -> list[tuple[str, str, tuple[int, ...]]]:
        configs = parse((tmp_path / "models.config").read_text())
        return [(config.name, config.base_path, config.versions) for config in configs]

    plain = command("tensorflow-serving")
    assert plain.startswith("/opt/tensorflow_model_server --rest_api_port=18501 --port=18500 ")
    assert f"--model_config_file={tmp_path}/models.config" in plain
    assert written() == [("face", f"{base}/face", ())]
    docker = command("docker")
    assert "--publish=127.0.0.1:18501:8501 --publish=127.0.0.1:18500:8500" in docker
    assert f"--volume={base}:/models:ro" in docker
    assert "--model_config_file=/config/models.config" in docker
    assert written() == [("face", "/models/face", ())]
    (base / "models.config").write_text(render([ModelConfig("face", f"{base}/face", (1,), {"stable": 1})]))
    assert f"--model_config_file={base}/models.config" in command("tensorflow-serving")
    assert f"--volume={base}:{base}:ro" in command("docker")
    (base / "models.config").write_text(render([ModelConfig("face", "/models/face", (1,), {"stable": 1})]))
    assert f"--model_config_file={tmp_path}/models.config" in command("tensorflow-serving")
    assert parse((tmp_path / "models.config").read_text())[0].labels == {"stable": 1}
    text = (base / "models.config").read_text().replace('model_platform: "tensorflow"', 'model_platform: "other"')
    (base / "models.config").write_text(text)
    command("tensorflow-serving")
    assert 'model_platform: "other"' in (tmp_path / "models.config").read_text()
    assert "--model_config_file=/models/models.config" in command("docker")
