"""The test double behaves as the real server, which runs the same tests with TFS_BIN."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from emotion_ai.client import protos
from emotion_ai_export.registry.model_config import ModelConfig, render
from emotion_ai_export.serving.launch import free_port
from tests.export.serving_double.saved_models import fake_version

POLL = "--model_config_file_poll_wait_seconds=1"
NO_RETRIES = "--max_num_load_retries=0"
ALLOW = "--allow_version_labels_for_unavailable_models=true"


class Running:
    """A server of `a` and `b`, and their models.config."""

    def __init__(self, base: Path, binary: Path, real: Path | None) -> None:
        self.base, self.binary, self.real = base, binary, real
        self.rest, self.grpc = free_port(), free_port()
        self.models: dict[str, ModelConfig] = {}

    def put(self, model: str, number: int, broken: bool = False) -> None:
        folder = self.base / model / str(number)
        if broken:
            folder.mkdir(parents=True)
        elif self.real:
            from shutil import copytree

            copytree(self.real / str(number), folder)
        else:
            fake_version(folder)

    def configure(self, model: str, *versions: int, **labels: int) -> None:
        self.models[model] = ModelConfig(model, str(self.base / model), versions, labels)
        partial = self.base / "partial"
        partial.write_text(render(list(self.models.values())))
        partial.rename(self.base / "models.config")

    def command(self, *flags: str) -> list[str]:
        ports = [f"--port={self.grpc}", f"--rest_api_port={self.rest}"]
        return [str(self.binary), *ports, f"--model_config_file={self.base}/models.config", *flags]

    @contextmanager
    def running(self, *flags: str) -> Iterator[None]:
        with (self.base / "log").open("wb") as log:
            process = subprocess.Popen(self.command(*flags), stdout=log, stderr=log)
        try:
            self.wait(lambda: process.poll() is not None or self.ports_open(), 120)
            assert process.poll() is None, self.log()
            yield
        finally:
            process.kill()
            process.wait()

    def ports_open(self) -> bool:
        try:
            requests.get(f"http://127.0.0.1:{self.rest}/v1/models/a", timeout=5)
        except requests.ConnectionError:
            return False
        return True

    def log(self) -> str:
        return (self.base / "log").read_text(errors="replace")

    def get(self, path: str) -> Any:
        return requests.get(f"http://127.0.0.1:{self.rest}/v1/models/{path}", timeout=5)

    def predict(self, path: str) -> Any:
        url = f"http://127.0.0.1:{self.rest}/v1/models/{path}:predict"
        found = requests.post(url, json={"instances": [0.0]}, timeout=30)
        return found.json()["predictions"][0] if found.ok else found.status_code

    def states(self, model: str) -> dict[int, str]:
        found = self.get(model)
        entries = found.json()["model_version_status"] if found.ok else []
        return {int(entry["version"]): entry["state"] for entry in entries}

    def wait(self, done: Callable[[], bool], seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not within {seconds} s; {self.log()[-500:]}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def real_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from emotion_ai_export.convert.frameworks import tf
    from tests.export.registry.test_versions import Number

    folder, model = tmp_path_factory.mktemp("numbered"), Number()
    for number in (1, 2, 3):
        model.number.assign(number)
        tf.saved_model.save(model, str(folder / str(number)), signatures={"serving_default": model.call})
    return folder


@pytest.fixture(params=["double", "real"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Running:
    if request.param == "real":
        if not os.environ.get("TFS_BIN"):
            pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
        return Running(tmp_path, Path(os.environ["TFS_BIN"]), request.getfixturevalue("real_versions"))
    monkeypatch.setenv("TFS_DOUBLE_SCALE", "0.05")
    return Running(tmp_path, request.getfixturevalue("double"), None)


def test_a_broken_version_ends_without_retries_and_is_tried_again_once_it_was_taken_back(server: Running) -> None:
    for model in ("a", "b"):
        server.put(model, 1)
        server.configure(model, 1)
    with server.running(POLL, NO_RETRIES):
        server.put("a", 2, broken=True)
        server.put("b", 2)
        server.configure("a", 1, 2)
        server.configure("b", 1, 2)
        server.wait(lambda: server.states("b") == {1: "AVAILABLE", 2: "AVAILABLE"})
        server.wait(lambda: server.states("a") == {1: "AVAILABLE", 2: "END"})
        (status, _) = server.get("a").json()["model_version_status"]
        assert status["status"]["error_code"] == "NOT_FOUND"
        assert "does not appear to contain a SavedModel bundle" in status["status"]["error_message"]
        assert server.predict("a") == 1
        assert server.predict("a/versions/2") == 404
        server.configure("a", 1)
        (server.base / "a" / "2").rmdir()
        server.put("a", 3)
        server.configure("a", 1, 3)
        server.wait(lambda: server.states("a") == {1: "AVAILABLE", 2: "END", 3: "AVAILABLE"})
        server.put("a", 2)
        server.configure("a", 2)
        server.wait(lambda: server.states("a") == {1: "END", 2: "AVAILABLE", 3: "END"})
        assert server.predict("a") == 2


def test_by_default_a_broken_version_blocks_other_loads_and_its_own_removal(server: Running) -> None:
    for model in ("a", "b"):
        server.put(model, 1)
        server.configure(model, 1)
    interval = 2e6 if server.real else 2e7  # microseconds; the double's are scaled
    with server.running(POLL, f"--load_retry_interval_micros={interval:.0f}", "--max_num_load_retries=2"):
        server.put("a", 2, broken=True)
        server.configure("a", 1, 2)
        server.wait(lambda: server.states("a") == {1: "AVAILABLE", 2: "LOADING"})
        server.put("b", 2)
        server.configure("a", 1)
        server.configure("b", 2)
        blocked = time.monotonic() + (3 if server.real else 1.5)
        while time.monotonic() < blocked:
            assert server.states("a")[2] == "LOADING"
            assert server.states("b") in ({1: "AVAILABLE"}, {1: "AVAILABLE", 2: "START"})
            time.sleep(0.1)
        server.wait(lambda: server.states("a")[2] == "END" and server.states("b") == {1: "END", 2: "AVAILABLE"})


@pytest.mark.parametrize("labelled", [False, True])
def test_it_does_not_start_with_a_broken_version_or_an_early_label(server: Running, labelled: bool) -> None:
    server.put("a", 1)
    server.put("a", 2, broken=not labelled)
    server.configure("a", 1, 2, **({"stable": 2} if labelled else {}))
    ended = subprocess.run(server.command(POLL, NO_RETRIES), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 255
    assert "Failed to start server. Error: " in ended.stderr
    expected = (
        "to version 2 of model a, which is not currently available" if labelled else "1 servable(s) did not become"
    )
    assert expected in ended.stderr


def test_a_label_in_use_moves_to_available_versions_only_and_rejects_the_whole_file(server: Running) -> None:
    for number in (1, 2):
        server.put("a", number)
    server.configure("a", 1, stable=1)
    with server.running(POLL, ALLOW):
        assert server.predict("a/labels/stable") == 1
        server.configure("a", 2, stable=2)
        refusal = "Request to assign label to version 2 of model a, which is not currently available for inference"
        server.wait(lambda: server.log().count(refusal) > 1)
        assert server.states("a") == {1: "AVAILABLE"}
        assert server.predict("a/labels/stable") == 1
        server.configure("a", 1, 2, stable=1, canary=2)  # a label that is not in use may come early
        server.wait(lambda: server.predict("a/labels/canary") == 2)
        assert server.get("a/labels/canary").json() == server.get("a/labels/none").json() == server.get("a").json()
        assert server.predict("a/labels/none") == 400
        server.configure("a", 2, stable=2)
        server.wait(lambda: server.predict("a/labels/stable") == 2 and server.states("a")[1] == "END")
        assert server.predict("a/labels/canary") == 400


def test_a_reload_is_total(server: Running) -> None:
    for model in ("a", "b"):
        server.put(model, 1)
        server.configure(model)
    with server.running(POLL):
        assert server.predict("b") == 1
        del server.models["b"]
        server.put("a", 2)
        server.configure("a")
        server.wait(lambda: server.states("b") == {1: "END"} and server.states("a") == {1: "END", 2: "AVAILABLE"})
        assert server.predict("b") == 404


def test_a_version_that_is_no_longer_configured_stays_available_until_it_is_unloaded(server: Running) -> None:
    for number in (1, 2):
        server.put("a", number)
    server.configure("a", 1, 2)
    with server.running(POLL):
        server.configure("a", 2)
        assert server.states("a") == {1: "AVAILABLE", 2: "AVAILABLE"}
        server.wait(lambda: server.states("a") == {1: "END", 2: "AVAILABLE"})


def test_grpc_follows_the_configuration_and_refuses_calls_beyond_its_threads(
    double: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFS_DOUBLE_PREDICT_SECONDS", "0.3")
    server = Running(tmp_path, double, None)
    server.put("a", 4)
    server.configure("a")
    request = protos.PredictRequest(model_spec={"name": "a"})
    with server.running("--grpc_max_threads=4"), grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        call = channel.unary_unary(
            protos.PREDICT, protos.PredictRequest.SerializeToString, protos.PredictResponse.FromString
        )

        def predict(_: int) -> str:
            try:
                response = call(request, timeout=10)
            except grpc.RpcError as error:
                return f"{error.code().name} {error.details()}"
            return str(protos.array(response.outputs["y"]).tolist())

        assert predict(0) == "[4.0]"
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(predict, range(8)))
        assert set(found) == {"[4.0]", "RESOURCE_EXHAUSTED Server Threadpool Exhausted"}
