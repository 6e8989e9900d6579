"""Versions under load, on small models that return their own number."""

import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ConfigError, ExportError, ServerUnreachableError
from emotion_ai.published import list_versions
from emotion_ai_export.convert.frameworks import tf, tf_function
from emotion_ai_export.registry.listing import describe_versions
from emotion_ai_export.registry.model_config import parse
from emotion_ai_export.registry.publish import next_version, publisher, put_in_place, write_config
from emotion_ai_export.registry.versions import promote, prune, rollback
from emotion_ai_export.registry.watched_server import WatchedServer
from emotion_ai_export.serving.launch import running

REQUESTS = 10_000


class Number(tf.Module):  # type: ignore[misc]
    """Returns its version."""

    def __init__(self) -> None:
        super().__init__()
        self.number = tf.Variable(0.0)

    @tf_function(tf.TensorSpec([None], tf.float32, "x"))
    def call(self, x: Any) -> Any:
        return {"y": 0 * x + self.number}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbered")
    model = Number()
    for number in range(1, 13):
        model.number.assign(number)
        tf.saved_model.save(model, str(folder / str(number)), signatures={"serving_default": model.call})
    return folder


def publish(numbered: Path, base: Path) -> int:
    with publisher(base) as staging:
        number = next_version(base)
        for name in SERVABLES:
            shutil.copytree(numbered / str(number), staging / name)
        put_in_place(staging, base, number)
        write_config(base, "host")
    return number


def labels(base: Path) -> dict[str, int]:
    found = [config.labels for config in parse((base / "models.config").read_text())]
    assert found == found[:1] * len(SERVABLES)
    return found[0]


def served(base: Path) -> tuple[int, ...]:
    found = [config.versions for config in parse((base / "models.config").read_text())]
    assert found == found[:1] * len(SERVABLES)
    return found[0]


def test_offline_labels_move_and_policies_follow(numbered: Path, tmp_path: Path) -> None:
    for _ in range(4):
        publish(numbered, tmp_path)
    assert (labels(tmp_path), served(tmp_path)) == ({"stable": 1}, (1, 4))
    with pytest.raises(ExportError, match="stable was never promoted"):
        rollback(tmp_path)
    assert promote(tmp_path, 3) == 3
    assert promote(tmp_path, 3) == 3
    assert promote(tmp_path, label="canary") == 4
    assert (labels(tmp_path), served(tmp_path)) == ({"stable": 3, "canary": 4}, (3, 4))
    assert [rollback(tmp_path) for _ in range(2)] == [1, 1]  # asked again it does not go further back
    assert rollback(tmp_path, "canary") is None
    assert (labels(tmp_path), served(tmp_path)) == ({"stable": 1}, (1, 4))
    assert prune(tmp_path, 2) == [2]
    assert prune(tmp_path, 2) == []
    assert {tuple(list_versions(tmp_path / name)) for name in SERVABLES} == {(1, 3, 4)}
    assert promote(tmp_path) == 4
    assert prune(tmp_path, 1) == [1, 3]
    with pytest.raises(ExportError, match="version 1, which stable named before, no longer exists"):
        rollback(tmp_path)
    assert labels(tmp_path) == {"stable": 4}
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".staging")]


def test_errors_are_one_line_and_change_nothing(numbered: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no models\.config there; publish with"):
        promote(tmp_path)
    with pytest.raises(ConfigError, match="no published versions"):
        describe_versions(tmp_path)
    publish(numbered, tmp_path)
    publish(numbered, tmp_path)
    shutil.rmtree(tmp_path / "face" / "2")
    before = (tmp_path / "models.config").read_text()
    with pytest.raises(ExportError, match="no version 2 of face"):
        promote(tmp_path, 2)
    with pytest.raises(ConfigError, match="label 'nightly': choose one of stable, canary"):
        promote(tmp_path, 1, "nightly")
    with pytest.raises(ConfigError, match="keep must be >= 1, got 0"):
        prune(tmp_path, 0)
    with pytest.raises(ServerUnreachableError, match="no server answers"):
        promote(tmp_path, 1, server=WatchedServer("http://127.0.0.1:9"))
    with publisher(tmp_path), pytest.raises(ExportError, match="another export, promote or prune is running"):
        promote(tmp_path, 1)
    assert (tmp_path / "models.config").read_text() == before
    (tmp_path / ".before.json").write_text("{")
    with pytest.raises(ExportError, match="not valid JSON"):
        rollback(tmp_path)


def test_the_list_describes_versions(numbered: Path, tmp_path: Path) -> None:
    publish(numbered, tmp_path)
    extra = tmp_path / "face" / "1" / "assets.extra"
    extra.mkdir()
    proof = {"rows": [{"output": "keypoints", "difference": 5e-5, "tolerance": 1e-4}]}
    (extra / "parity.json").write_text(json.dumps(proof))
    (extra / "keypoints.safetensors").write_bytes(b"garbage")
    result = CliRunner().invoke(app, ["versions", str(tmp_path), "--server", "http://127.0.0.1:9", "--json"])
    (version,) = json.loads(result.stdout)
    assert version == {
        "number": 1, "labels": ["stable"], "states": {}, "left_out": "", "metrics": {}, "parity": 0.5,
        "checkpoints": {},
    }  # fmt: skip
    table = CliRunner().invoke(app, ["versions", str(tmp_path), "--server", "http://127.0.0.1:9"]).stdout
    assert "stable" in table
    assert "50% of tolerance" in table


@pytest.fixture(scope="module", params=["embedded", "tensorflow-serving"])
def live(request: pytest.FixtureRequest, numbered: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param != "embedded" and not os.environ.get("TFS_BIN"):
        pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
    base = tmp_path_factory.mktemp("live")
    publish(numbered, base)
    with running(base, engine=request.param) as server:
        yield base, server


def test_no_request_is_lost_or_reaches_a_wrong_version_during_changes(numbered: Path, live: Any) -> None:
    base, server = live
    rest = WatchedServer(server.rest)
    # what each path may answer; widened before a change, narrowed once the change is known to have come through
    allowed: dict[str, set[int]] = {"": {1}, "/labels/stable": {1}}
    wrong: list[Any] = []
    asked = itertools.count()
    done = threading.Event()

    def keep_asking(model: str, path: str) -> None:
        with requests.Session() as session:
            while not done.is_set():
                before = set(allowed[path])
                answer = session.post(f"{server.rest}/v1/models/{model}{path}:predict", data=BODY, timeout=30)
                number = answer.json()["predictions"][0] if answer.ok else None
                if number not in before | allowed[path]:
                    wrong.append((model, path, answer.status_code, answer.text))
                next(asked)

    def change(path: str, to: int, act: Any, *arguments: Any) -> None:
        allowed[path] = allowed[path] | {to}
        act(*arguments)
        allowed[path] = {to}

    def publish_and_wait() -> None:
        number = publish(numbered, base)
        for model in SERVABLES:
            while newest(model) != number:
                time.sleep(0.05)

    def newest(model: str) -> int:
        status = requests.get(f"{server.rest}/v1/models/{model}", timeout=30).json()["model_version_status"]
        return max(int(entry["version"]) for entry in status if entry["state"] == "AVAILABLE")

    def count() -> int:
        return int(repr(asked)[6:-1])

    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(keep_asking, model, path) for model in SERVABLES for path in allowed]
        try:
            for version in range(2, 7):
                change("", version, publish_and_wait)
                change("/labels/stable", version, promote, base, version, "stable", rest)
                change("/labels/stable", max(version - 1, 1), rollback, base, "stable", rest)
                change("/labels/stable", version, promote, base, None, "stable", WatchedServer(server.grpc))
                prune(base, 1, rest)
                assert list_versions(base / "face") == [version]
            deadline = time.monotonic() + 120
            while count() < REQUESTS and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            done.set()
    assert [future.result() for future in futures] == [None] * 6
    assert not wrong[:3]
    assert count() >= REQUESTS


BODY = json.dumps({"instances": [0.0]})


def test_a_version_that_does_not_load_is_not_promoted(numbered: Path, live: Any) -> None:
    base, server = live
    publish(numbered, base)
    (base / "face" / "7" / "saved_model.pb").write_bytes(b"garbage")
    before = served(base)
    for _ in range(2):
        with pytest.raises(ExportError, match="cannot load face version 7: .*left out"):
            promote(base, 7, server=WatchedServer(server.rest, timeout=20))
    assert before == (6, 7)
    assert (labels(base), served(base)) == ({"stable": 6}, (6,))
    assert prune(base, 1, WatchedServer(server.rest, timeout=8)) == []
    assert list_versions(base / "face") == [6, 7]
    result = CliRunner().invoke(app, ["versions", str(base), "--server", server.grpc, "--json"])
    six, seven = json.loads(result.stdout)
    assert six["states"] == dict.fromkeys(SERVABLES, "AVAILABLE")
    assert seven["left_out"].startswith("face: ")
