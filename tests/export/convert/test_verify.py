"""Published versions pass; every kind of damage is found."""

import json
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hydra import compose, initialize_config_module
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.contract import FULL_SIGNATURE, INPUTS, KEYPOINTS, SERVABLES, TASKS, outputs
from emotion_ai.errors import ClientError, ConfigError, ExportError
from emotion_ai.models import load_network, save_network
from emotion_ai.provenance import RunRecord
from emotion_ai.published import CONTRACT_FILE, PARITY_FILE, litert_file, onnx_file
from emotion_ai_export.convert import parity_cases
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.parity import ParityReport
from emotion_ai_export.convert.published_version import PublishedVersion
from emotion_ai_export.convert.stage import export
from emotion_ai_export.convert.verify import Check, VerifyOptions, verify
from emotion_ai_export.registry import warmup
from emotion_ai_export.registry.publish import write_checksums
from emotion_ai_export.serving.engines import server_engine
from emotion_ai_export.serving.launch import running


@pytest.fixture(scope="module", autouse=True)
def few_batches() -> Iterator[None]:
    """The export's own test runs all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity_cases, "BATCHES", (1, 3))
        yield


@pytest.fixture(scope="module")
def published(networks: dict[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for task, network in networks.items():
        save_network(
            network,
            folder / f"{task}.safetensors",
            RunRecord(metrics={"test/loss": 1.0}, calibration={"uncertain_below": 0.35}),
        )
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        choices = [f"{task}={folder}/{task}.safetensors" for task in networks] + ["litert=[float32,float16]"]
        export(compose("export", [f"out={folder / 'models'}", *choices]))
    return folder / "models"


@pytest.fixture
def base(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "models"))


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.problem for check in checks if not check.passes}


def nudge(file: Path, weight: float, by: float) -> None:
    """Changes one float32, wherever the file holds it."""
    content = file.read_bytes()
    pattern = struct.pack("<f", weight)
    assert content.count(pattern) >= 1
    file.write_bytes(content.replace(pattern, struct.pack("<f", weight + by)))


def a_weight(networks: dict[Any, Any]) -> float:
    return float(networks["emotion"].head.linear.bias[2].detach())


def test_a_published_version_passes_and_is_reported_as_json(published: Path, tmp_path: Path) -> None:
    arguments = ["verify", str(published), "--json", "--out", str(tmp_path / "proof.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stdout
    record = json.loads(result.stdout)
    assert record == json.loads((tmp_path / "proof.json").read_text())
    assert record["passes"]
    names = ["files", "checkpoint", "ONNX Runtime", "LiteRT", "weights", "SavedModel", "warm-up", "REST", "gRPC"]
    assert [(check["version"], check["check"], check["passes"]) for check in record["checks"]] == [
        (1, name, True) for name in names
    ]
    assert record["checkpoint_on"] == ["cpu"]
    comparisons = {check["check"]: check["comparisons"] for check in record["checks"]}
    pixels, files = 2 * 4, 16  # kinds and batches; outputs of serving_default, _bytes, _uncertainty, _full and _classes
    wanted = pixels * (4 + 4 + 5 + 12 + 2) + files * (4 + 5 + 12 + 2)
    in_float64 = 4 * 4  # kinds; outputs of serving_default
    assert comparisons["REST"] == comparisons["gRPC"] == comparisons["SavedModel"] - in_float64 == wanted


def test_a_version_from_before_serving_full_is_checked_as_it_is(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "INPUTS", {name: key for name, key in INPUTS.items() if name != FULL_SIGNATURE})
    for model in SERVABLES:
        folder = base / model / "1"
        loaded = tf.saved_model.load(str(folder))
        older = {name: function for name, function in loaded.signatures.items() if name != FULL_SIGNATURE}
        tf.saved_model.save(loaded, str(base / f"{model}.old"), older)
        shutil.rmtree(folder / "variables")
        shutil.copytree(base / f"{model}.old", folder, dirs_exist_ok=True)
        warmup.write_warmup(folder, model, np.zeros((1, 96, 96), np.uint8))
        write_checksums(folder)
    version = PublishedVersion(1, base)
    version.check_files()
    version.load_checkpoint()
    rows = version.compare_models()
    version.replay_warmups()
    ParityReport(rows).require()
    assert {row.signature for row in rows} == set(version.signatures) == INPUTS.keys() - {FULL_SIGNATURE}


def test_the_contract_of_a_version_names_its_signatures_and_threshold(published: Path) -> None:
    for model in SERVABLES:
        contract = json.loads((published / model / "1" / CONTRACT_FILE).read_text())
        assert contract["signatures"]["serving_full"] == list(outputs(model, "serving_full"))
        assert contract.get("uncertain_below") == (None if model == "keypoints" else 0.35)


def test_a_running_server_is_verified(base: Path) -> None:
    with running(base, engine=server_engine()) as server:
        checks = verify(base, VerifyOptions(server.rest, server.grpc))
        assert not failed(checks)
        assert {check.name for check in checks} >= {"REST", "gRPC"}
        for model in SERVABLES:
            shutil.copytree(base / model / "1", base / model / "2")
        with pytest.raises(ClientError, match="serves none of the versions 2"):
            verify(base, VerifyOptions(server.rest, version=2))


@pytest.mark.parametrize("sums", ["old", "rewritten"])
def test_one_altered_weight_of_a_saved_model_is_found(base: Path, networks: dict[Any, Any], sums: str) -> None:
    folder = base / "face" / "1"
    nudge(folder / "saved_model.pb", a_weight(networks), 1e-3)
    if sums == "rewritten":
        write_checksums(folder)
    problems = failed(verify(base))
    assert ("files" in problems) == (sums == "old")
    assert "SavedModel in float64 differs from its checkpoint by" in problems["SavedModel"]
    assert "face" in problems["SavedModel"]
    place = rf"{folder}: the SavedModel differs from its checkpoint in the weights of the layer head\.linear: 1 of \d"
    assert re.match(place, problems["weights"])


@pytest.mark.parametrize("sums", ["old", "rewritten"])
def test_one_altered_weight_of_a_checkpoint_is_found(base: Path, networks: dict[Any, Any], sums: str) -> None:
    folder = base / "emotion" / "1"
    nudge(folder / "assets.extra" / "emotion.safetensors", a_weight(networks), 1e-3)
    if sums == "rewritten":
        write_checksums(folder)
    problems = failed(verify(base))
    assert ("files" in problems) == (sums == "old")
    assert "holds other weights than this version's other models" in problems["checkpoint"]


def test_a_checkpoint_of_other_weights_everywhere_is_found(base: Path, networks: dict[Any, Any]) -> None:
    network, record = load_network(base / "face/1/assets.extra/emotion.safetensors", "emotion")
    network.get_parameter("head.linear.bias").data[2] += 1e-3
    for model in ("emotion", "face"):
        save_network(network, base / model / "1/assets.extra/emotion.safetensors", record)
        write_checksums(base / model / "1")
    assert list(failed(verify(base))) == ["ONNX Runtime", "LiteRT", "weights", "SavedModel"]


@pytest.mark.parametrize("models", [("face",), SERVABLES])
def test_an_altered_onnx_file_is_found_though_its_checksum_is_right(
    base: Path, networks: dict[Any, Any], models: tuple[str, ...]
) -> None:
    for model in set(models) - {"keypoints"}:
        nudge(base / model / "1" / onnx_file("emotion"), a_weight(networks), 1e-3)
        write_checksums(base / model / "1")
    problems = failed(verify(base))
    assert list(problems) == ["ONNX Runtime"]
    wanted = "differs from its checkpoint by" if len(models) > 1 else "emotion.onnx: differs from"
    assert wanted in problems["ONNX Runtime"]


def test_an_altered_litert_file_is_found_though_its_checksum_is_right(base: Path, networks: dict[Any, Any]) -> None:
    for model in ("emotion", "face"):
        nudge(base / model / "1" / litert_file("emotion", "float32"), a_weight(networks), 1e-2)
        write_checksums(base / model / "1")
    problems = failed(verify(base))
    assert list(problems) == ["LiteRT"]
    assert "LiteRT float32 differs from its checkpoint by" in problems["LiteRT"]


def test_a_litert_file_that_crashes_its_interpreter_is_a_failed_check(
    base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    version = PublishedVersion(1, base)
    version.load_checkpoint()
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(ExportError, match="LiteRT float32 of keypoints: the interpreter crashes"):
        version.compare_litert()


def test_the_proof_names_the_sizes_and_the_gates_of_litert_files(base: Path) -> None:
    proof = json.loads((base / "face/1" / PARITY_FILE).read_text())
    assert proof["litert"]["gates"].keys() == {"float32", "float16"}
    assert proof["litert"]["gates"]["float16"]["pixels"] == 0.02
    for kind in ("float32", "float16"):
        rows = [row for row in proof["rows"] if row["path"] == f"LiteRT {kind}" and row["servable"] == "emotion"]
        assert {row["size"] for row in rows} == {(base / "face/1" / litert_file("emotion", kind)).stat().st_size}


def test_a_version_from_before_the_onnx_files_passes(base: Path) -> None:
    for file in base.glob(f"*/1/{onnx_file('*')}"):
        file.unlink()
        write_checksums(file.parents[1])
    checks = verify(base)
    assert not failed(checks)
    assert "ONNX Runtime" not in {check.name for check in checks}


def test_the_onnx_files_name_their_contract(base: Path, networks: dict[Any, Any]) -> None:
    for task in TASKS:
        metadata = onnxruntime.InferenceSession(base / "face/1" / onnx_file(task)).get_modelmeta().custom_metadata_map
        contract = json.loads(metadata["contract"])
        assert (metadata["task"], contract["keypoints"]) == (task, list(KEYPOINTS))
        assert contract.get("classes") == (None if task == "keypoints" else list(networks[task].spec.class_set.names))


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def garbage(name: str) -> Callable[[Path], int]:
    return lambda folder: (folder / name).write_bytes(b"\x00garbage\xff" * 9)


@pytest.mark.parametrize(
    ("harm", "check", "text"),
    [
        (remove("saved_model.pb"), "SavedModel", "face/1"),
        (remove("fingerprint.pb"), "files", "fingerprint.pb: is missing"),
        (remove("assets.extra/emotion.safetensors"), "checkpoint", "no such checkpoint"),
        (remove("assets.extra/parity.json"), "files", "parity.json: is missing"),
        (remove("assets.extra/SHA256SUMS"), "files", "SHA256SUMS: is missing"),
        (remove("assets.extra/tf_serving_warmup_requests"), "warm-up", "tf_serving_warmup_requests"),
        (garbage("saved_model.pb"), "SavedModel", ""),
        (garbage("assets.extra/keypoints.safetensors"), "checkpoint", "not a readable checkpoint"),
        (garbage("assets.extra/tf_serving_warmup_requests"), "warm-up", ""),
        (garbage("assets.extra/notes.txt"), "files", "notes.txt: was added"),
        (shutil.rmtree, "files", "SHA256SUMS: is missing"),
    ],
    ids=range(11),
)
def test_damage_is_found_and_named(base: Path, harm: Callable[[Path], object], check: str, text: str) -> None:
    harm(base / "face" / "1")
    (version, *_) = checks = verify(base)
    assert version.version == 1
    problems = failed(checks)
    assert text in problems[check]
    assert all(problem and "\n" not in problem for problem in problems.values())


def test_the_command_exits_with_1_and_names_the_problem(base: Path) -> None:
    (base / "keypoints/1/assets.extra/MODEL_CARD.md").write_text("praise")
    for model in ("keypoints", "emotion", "face"):
        shutil.rmtree(base / model / "1" / "variables", ignore_errors=True)
    result = CliRunner().invoke(app, ["verify", str(base), "--version", "1"], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "was altered after the export" in result.stdout or "is missing" in result.stdout


def test_nothing_to_verify_is_a_clear_error(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ConfigError, match="no published versions there"):
        verify(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no version 9 there"):
        verify(base, VerifyOptions(version=9))
    with pytest.raises(ConfigError, match="`device` 'vulkan' is not available here"):
        verify(base, VerifyOptions(device="vulkan"))
    with pytest.raises(ClientError, match="no server answers"):
        verify(base, VerifyOptions("http://127.0.0.1:9"))
