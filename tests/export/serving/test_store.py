"""The embedded server's versions: loaded, broken and unloaded, with labels that move."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.client.protos import PredictionLog, tensor
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.registry.model_config import ModelConfig, render
from emotion_ai_export.serving.embedded.loaded_model import LoadedModel
from emotion_ai_export.serving.embedded.store import ModelStore
from tests.export.serving.small_models import asker, put, served, states


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


def test_names_that_are_no_number_are_ignored(built: Path, base: Path) -> None:
    put(built, base, 1)
    for name in (".staging-9", "9.partial", "latest", "-3", "²"):
        shutil.copytree(built / "3", base / "face" / name)
    store = ModelStore(base)
    store.refresh()
    assert states(asker(store)) == {"1": "AVAILABLE"}


@pytest.mark.parametrize("broken", ["empty", "no variables", "garbage", "warm-up"])
def test_a_broken_version_leaves_the_old_one_serving_and_can_be_repaired(built: Path, base: Path, broken: str) -> None:
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


def test_a_version_is_available_under_its_label_at_once(
    built: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the next one is loaded, which may take long."""
    put(built, base, 1)
    put(built, base, 2)
    configs = [ModelConfig("face", "/models/face", (1, 2), {"stable": 1})]
    (base / "models.config").write_text(render(configs))
    store = ModelStore(base)
    ask, seen = asker(store), []

    def load(folder: Path, number: int) -> LoadedModel:
        seen.append((served(ask), served(ask, "/labels/stable")))
        return LoadedModel(folder, number)

    monkeypatch.setattr("emotion_ai_export.serving.embedded.store.LoadedModel", load)
    store.refresh()
    assert seen == [(404, 400), ([1.0], [1.0])]


def test_an_open_request_outlives_its_version(built: Path, base: Path) -> None:
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
