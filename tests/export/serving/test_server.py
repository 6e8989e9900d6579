"""The embedded server's life: versions come, break, go; labels move; bad input; limits; the end of the process."""

import asyncio
import base64
import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_ai.client import FaceClient
from emotion_ai.client.protos import PredictionLog, tensor
from emotion_ai.errors import ConfigError, ExportError, MissingExtraError
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.registry.model_config import ModelConfig, parse, render
from emotion_ai_export.serving import launch as serve
from emotion_ai_export.serving.embedded.app import create_app
from emotion_ai_export.serving.embedded.limits import Limits
from emotion_ai_export.serving.embedded.store import ModelStore
from emotion_ai_export.serving.embedded.wire import ServingError, parse_predict, render_predict

Ask = Callable[..., httpx.Response]


class Face(tf.Module):
    """Mean of a picture, times the version: as the real servables, with pixels and with bytes."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 96, 96, 1], tf.float32, "images")])
    def pixels(self, images: Any) -> Any:
        return {"mean": self.factor * tf.reduce_mean(images, [1, 2, 3])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def encoded(self, image_bytes: Any) -> Any:
        def mean(content: Any) -> Any:
            return tf.reduce_mean(tf.cast(tf.io.decode_image(content, 1), tf.float32))

        return {"mean": self.factor * tf.map_fn(mean, image_bytes, tf.float32)}


class Sleepy(tf.Module):
    """Takes three seconds for its answer."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def call(self, x: Any) -> Any:
        end = tf.timestamp() + 3.0
        turns = tf.while_loop(lambda _: tf.timestamp() < end, lambda i: (i + 1,), [tf.constant(0.0)])[0]
        return {"y": x + tf.minimum(turns, 0.0)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    for version in (1, 2, 3):
        model = Face(float(version))
        signatures = {"serving_default": model.pixels, "serving_bytes": model.encoded}
        tf.saved_model.save(model, str(folder / str(version)), signatures=signatures)
    sleepy = Sleepy()
    tf.saved_model.save(sleepy, str(folder / "sleepy"), signatures={"serving_default": sleepy.call})
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "models"


def put(built: Path, base: Path, version: int, model: str = "face") -> None:
    (base / model).mkdir(parents=True, exist_ok=True)
    staged = base / f".staging-{version}"
    shutil.copytree(built / str(version), staged)
    staged.rename(base / model / str(version))


def asker(store: ModelStore, limits: Limits | None = None) -> Ask:
    app = create_app(store, limits)

    def ask(path: str, body: Any = None, **more: Any) -> httpx.Response:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()

        async def request() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://embedded") as client:
                return await client.request("GET" if body is None else "POST", path, content=content, **more)

        return asyncio.run(request())

    return ask


def states(ask: Ask, model: str = "face") -> dict[str, str]:
    return {v["version"]: v["state"] for v in ask(f"/v1/models/{model}").json()["model_version_status"]}


ONES = {"instances": np.ones((1, 96, 96, 1)).tolist()}


def served(ask: Ask, choice: str = "") -> Any:
    """Which version answers: the model multiplies ones by its number."""
    answer = ask(f"/v1/models/face{choice}:predict", ONES)
    return answer.json()["predictions"] if answer.status_code == 200 else answer.status_code


def test_versions_come_and_go(built: Path, base: Path) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    ask = asker(store)
    assert ask("/v1/models/face").status_code == 404
    store.refresh()
    assert served(ask) == [1.0]
    put(built, base, 2)
    assert served(ask) == [1.0]
    store.refresh()
    assert served(ask) == [2.0]
    assert states(ask) == {"2": "AVAILABLE", "1": "END"}
    shutil.rmtree(base / "face" / "2")
    store.refresh()
    assert served(ask) == [1.0]
    shutil.rmtree(base / "face")
    store.refresh()
    assert served(ask) == 404
    assert states(ask) == {"2": "END", "1": "END"}


def test_names_that_are_no_number_are_not_looked_at(built: Path, base: Path) -> None:
    put(built, base, 1)
    for name in (".staging-9", "9.partial", "latest", "-3", "²"):
        shutil.copytree(built / "3", base / "face" / name)
    store = ModelStore(base)
    store.refresh()
    assert states(asker(store)) == {"1": "AVAILABLE"}


@pytest.mark.parametrize("broken", ["empty", "no variables", "garbage", "warm-up"])
def test_a_broken_version_leaves_the_old_one_serving_and_can_be_mended(built: Path, base: Path, broken: str) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    ask = asker(store)
    bad = base / "face" / "2"
    shutil.copytree(built / "2", bad)
    if broken == "empty":
        shutil.rmtree(bad)
        bad.mkdir()
    elif broken == "no variables":
        shutil.rmtree(bad / "variables")
    elif broken == "garbage":
        (bad / "saved_model.pb").write_bytes(b"garbage")
    else:
        log = PredictionLog()
        log.predict_log.request.model_spec.name = "face"
        log.predict_log.request.inputs["nope"].CopyFrom(tensor(np.ones(1, np.float32)))
        (bad / "assets.extra").mkdir()
        with tf.io.TFRecordWriter(str(bad / "assets.extra" / "tf_serving_warmup_requests")) as writer:
            writer.write(log.SerializeToString())
    store.refresh()
    assert served(ask) == [1.0]
    (status, _) = ask("/v1/models/face").json()["model_version_status"]
    assert (status["version"], status["state"]) == ("2", "END")
    assert status["status"]["error_code"] != "OK"
    assert status["status"]["error_message"]
    shutil.rmtree(bad)
    put(built, base, 2)
    store.refresh()
    assert served(ask) == [2.0]


def test_models_config_chooses_versions_and_labels(built: Path, base: Path) -> None:
    for version in (1, 2, 3):
        put(built, base, version)

    def configure(labels: dict[str, int], *versions: int) -> None:
        (base / "models.config").write_text(render([ModelConfig("face", "/models/face", versions, labels)]))
        store.refresh()

    store = ModelStore(base)
    ask = asker(store)
    configure({"stable": 1, "canary": 2}, 1, 2)
    assert served(ask) == [2.0]
    assert served(ask, "/labels/stable") == [1.0]
    assert served(ask, "/versions/3") == 404
    configure({"stable": 2}, 2, 3)
    assert served(ask, "/labels/stable") == [2.0]
    assert served(ask, "/labels/canary") == 400
    assert served(ask) == [3.0]
    assert served(ask, "/versions/1") == 404
    (base / "models.config").write_text("model_config_list { config {")
    store.refresh()
    assert served(ask, "/labels/stable") == [2.0]  # what was served stays


def test_a_request_under_way_outlives_its_version(built: Path, base: Path) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    servable = store.find("face")
    shutil.rmtree(base / "face")
    store.refresh()
    np.testing.assert_allclose(
        servable.run("serving_default", {"images": np.ones((2, 96, 96, 1), np.float32)})["mean"], 1
    )


def test_no_request_fails_while_versions_change(built: Path, base: Path) -> None:
    put(built, base, 1)
    store = ModelStore(base, poll_seconds=0.02)
    store.refresh()
    store.start()
    ask = asker(store)
    seen, stop = [], threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            seen.append(served(ask))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(keep_asking) for _ in range(2)]
        try:
            for version in (2, 3):
                put(built, base, version)
                deadline = time.monotonic() + 20
                while seen[-1:] != [[float(version)]] and time.monotonic() < deadline:
                    time.sleep(0.02)
        finally:
            stop.set()
    store.stop()
    assert [future.result() for future in asking] == [None, None]
    assert {answer[0] for answer in seen} == {1.0, 2.0, 3.0}


def test_bytes_are_answered_and_bad_ones_refused(built: Path, base: Path) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    ask = asker(store)

    def send(*contents: bytes) -> httpx.Response:
        instances = [{"b64": base64.b64encode(content).decode()} for content in contents]
        return ask("/v1/models/face:predict", {"signature_name": "serving_bytes", "instances": instances})

    png = encode_png(np.full((30, 40), 77, np.uint8))
    assert send(png, png).json() == {"predictions": [77.0, 77.0]}
    for bad in (
        b"",
        b"not a picture",
        png[:40],
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 50,
        b"\xff\xd8\xff\xe0" + b"\xff" * 99,
    ):
        answer = send(png, bad)
        assert answer.status_code == 400, bad
        assert answer.json()["error"]
    assert send(png).json() == {"predictions": [77.0]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe",
        b"[" * 100_000,
        b'{"instances":' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"instances": [' + b"9" * 5000 + b"]}",
        b'{"signature_name": "\\ud800", "instances": [1]}',
        b'{"signature_name": "serving_bytes", "instances": ["\\ud800"]}',
        b'{"instances": [{"images": {"b64": 5}}]}',
        b'{"instances": [{"b64": "a"}]}',
        b'{"instances": [[[[1e999]]]]}',
        b'{"instances": {"images": []}}',
        b'{"inputs": {"images": {"images": 1}}}',
        b'{"inputs": "text"}',
    ],
    ids=range(13),
)
def test_malformed_bodies_are_refused(built: Path, base: Path, body: bytes) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    ask = asker(store)
    answer = ask("/v1/models/face:predict", body)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) < 2000
    assert served(ask) == [1.0]


def test_limits(built: Path, base: Path) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    ask = asker(store, Limits(body=200_000))
    path = "/v1/models/face:predict"
    assert served(ask) == [1.0]
    assert ask(path, b" " * 200_001).status_code == 413
    bomb = ask(path, gzip.compress(b" " * 10_000_000), headers={"content-encoding": "gzip"})
    assert bomb.status_code == 413
    packed = ask(path, gzip.compress(json.dumps(ONES).encode()), headers={"content-encoding": "gzip"})
    assert packed.json() == {"predictions": [1.0]}
    busy = asker(store, Limits(pending=0))("/v1/models/face")
    assert busy.status_code == 503
    assert "pending" in busy.json()["error"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
dtypes = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.int32, np.bool_, np.object_]).map(np.dtype)


@settings(max_examples=300)
@given(body=st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name"]), json_values), dtype=dtypes)
def test_any_json_is_parsed_or_refused(body: dict[str, Any], dtype: np.dtype[Any]) -> None:
    try:
        request = parse_predict(json.dumps(body).encode(), lambda _: {"x": dtype})
    except ServingError:
        return
    assert request.tensors["x"].dtype == dtype


@settings(max_examples=100)
@given(
    value=st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=5),
    row=st.booleans(),
)
def test_float32_survives_the_wire(value: list[list[float]], row: bool) -> None:
    array = np.array(value, np.float32)
    answer = json.loads(render_predict({"y": array}, row))["predictions" if row else "outputs"]
    back = parse_predict(json.dumps({"inputs": answer}).encode(), lambda _: {"x": np.dtype(np.float32)}).tensors["x"]
    np.testing.assert_array_equal(back, array)


def test_running_leaves_nothing_behind(built: Path, base: Path) -> None:
    put(built, base, 1)
    with serve.running(base) as (url, _):
        port = int(url.rpartition(":")[2])
        assert FaceClient(url).ready()
        with pytest.raises(ConfigError, match=f"rest_port {port} .*in use"), serve.running(base, rest_port=port):
            pass
    assert not FaceClient(url, retries=0).ready()
    socket.create_server(("127.0.0.1", port)).close()


def test_a_terminated_server_answers_what_was_asked(built: Path, base: Path, tmp_path: Path) -> None:
    put(built, base, 1)
    (base / "broken" / "1").mkdir(parents=True)
    (base / "sleepy").mkdir()
    shutil.copytree(built / "sleepy", base / "sleepy" / "1")
    port = serve._free_port()
    command = serve.command_line(base, port, 0, "embedded", "127.0.0.1", tmp_path)
    notes = tmp_path / "notes"
    with notes.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream, env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"
    try:
        serve._wait_available(url, {"face": {"1"}, "sleepy": {"1"}}, process, notes, 60)
        with pytest.raises(ExportError, match=r"model broken did not become available; .*saved_model\.pb"):
            serve._wait_available(url, {"broken": {"1"}}, process, notes, 60)
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
    assert "emotion-ai-embedded: stands in for TensorFlow Serving" in said
    assert "gRPC on port" in said
    assert "Traceback" not in said


def test_what_cannot_be_served_is_said_in_one_line(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such folder; publish models into it with: emotion-ai export out="):
        serve.serve(base)
    (base / "face" / "latest").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds no <model>/<version> folder"):
        serve.serve(base)
    with pytest.raises(ConfigError, match="choose one of auto, tensorflow-serving, docker, embedded"):
        serve.choose_engine("triton")
    monkeypatch.delenv("TFS_BIN", raising=False)
    monkeypatch.setenv("PATH", "")
    assert serve.choose_engine() == "embedded"
    with pytest.raises(ConfigError, match="tensorflow_model_server is neither on PATH nor named by TFS_BIN"):
        serve.choose_engine("tensorflow-serving")
    with pytest.raises(ConfigError, match="docker is not installed"):
        serve.choose_engine("docker")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs tensorflow: pip install 'emotion-ai\[export\]'"):
        serve.choose_engine()


def test_commands_name_the_files_that_each_engine_sees(
    built: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(built, base, 1)
    monkeypatch.setenv("TFS_BIN", "/opt/tensorflow_model_server")

    def command(engine: str) -> str:
        return " ".join(serve.command_line(base, 18501, 18500, engine, "127.0.0.1", tmp_path))

    plain = command("tensorflow-serving")
    assert plain.startswith("/opt/tensorflow_model_server --rest_api_port=18501 --port=18500 ")
    assert f"--model_config_file={tmp_path}/models.config" in plain
    assert parse((tmp_path / "models.config").read_text()) == [ModelConfig("face", f"{base}/face", ())]
    docker = command("docker")
    assert "--publish=127.0.0.1:18501:8501 --publish=127.0.0.1:18500:8500" in docker
    assert f"--volume={base}:/models:ro" in docker
    assert "--model_config_file=/config/models.config" in docker
    assert parse((tmp_path / "models.config").read_text()) == [ModelConfig("face", "/models/face", ())]
    (base / "models.config").write_text(render([ModelConfig("face", f"{base}/face", (1,), {"stable": 1})]))
    assert f"--model_config_file={base}/models.config" in command("tensorflow-serving")
    assert f"--volume={base}:{base}:ro" in command("docker")
    (base / "models.config").write_text(render([ModelConfig("face", "/models/face", (1,), {"stable": 1})]))
    assert f"--model_config_file={tmp_path}/models.config" in command("tensorflow-serving")
    assert parse((tmp_path / "models.config").read_text())[0].labels == {"stable": 1}
    assert "--model_config_file=/models/models.config" in command("docker")
