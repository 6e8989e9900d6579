"""The export through the command line: what it publishes, and what a killed one leaves behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from emotion_ai.contract import SERVABLES, TASKS
from emotion_ai.evaluation.answers import find_reference, read_answers
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.provenance import RunRecord
from emotion_ai.published import list_versions
from emotion_ai_export.registry.model_config import parse

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    torch.manual_seed(0)
    arguments = []
    for task in TASKS:
        network = FaceNetwork(task, TINY)
        for parameter in network.head.parameters():
            torch.nn.init.normal_(parameter, std=0.002)  # untrained features are large
        save_network(network, tmp_path / f"{task}.safetensors", RunRecord(metrics={"test/loss": 1.0}))
        arguments.append(f"{task}={tmp_path / task}.safetensors")
    return [sys.executable, "-m", "emotion_ai.cli", "export", f"out={tmp_path / 'models'}", *arguments]


def published(base: Path) -> dict[str, list[int]]:
    return {name: list_versions(base / name) for name in SERVABLES}


def test_a_killed_export_leaves_nothing_visible_and_the_next_one_publishes(tmp_path: Path, command: list[str]) -> None:
    base = tmp_path / "models"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet, start_new_session=True, cwd=tmp_path)
    deadline = time.monotonic() + 150
    while not list(base.glob(".staging-*/*/saved_model.pb")):
        assert process.poll() is None, "the export ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert published(base) == {name: [] for name in SERVABLES}
    assert not (base / "models.config").exists()

    result = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert published(base) == {name: [1] for name in SERVABLES}
    assert not list(base.glob(".staging-*"))
    for name in SERVABLES:
        extra = base / name / "1" / "assets.extra"
        proof = json.loads((extra / "parity.json").read_text())
        assert proof["computed_on"]["checkpoint"] == ["cpu"], "a proof names its device"
        assert proof["passes"]
        given_pixels = [row for row in proof["rows"] if "given files" not in row["path"]]
        in_float64 = [row for row in given_pixels if row["path"] == "SavedModel in float64"]
        assert {row["kind"] for row in in_float64} == {"real", "synthetic", "black", "white", "noise"}
        given_pixels = [row for row in given_pixels if row not in in_float64]
        assert {row["batch"] for row in given_pixels} == {1, 2, 7, 64}
        assert {row["signature"] for row in proof["rows"]} == {
            "serving_default",
            "serving_bytes",
            "serving_uncertainty",
            "serving_full",
            "serving_classes",
        }
        assert {row["path"] for row in given_pixels} == {"ONNX Runtime", "SavedModel"}
        others = {"SavedModel in float64", "SavedModel given files"}
        assert {row["path"] for row in proof["rows"]} - {"ONNX Runtime", "SavedModel"} == others
        assert {row["kind"] for row in given_pixels} == {"real", "synthetic", "black", "white", "noise"}
        for line in (extra / "SHA256SUMS").read_text().splitlines():
            digest, path = line.split("  ")
            assert hashlib.sha256((base / name / "1" / path).read_bytes()).hexdigest() == digest
        reference = read_answers(find_reference(base / name / "1"))
        assert (len(reference) > 60, reference.versions) == (True, (1,))
        parts = TASKS if name == "face" else (name,)
        for task in parts:
            load_network(extra / f"{task}.safetensors", task)
    configs = parse((base / "models.config").read_text())
    assert [(c.name, c.versions, c.labels) for c in configs] == [(n, (1,), {"stable": 1}) for n in SERVABLES]
    assert {path.name for path in tmp_path.iterdir()} == {"models", "keypoints.safetensors", "emotion.safetensors"}


def test_a_device_that_is_not_here_ends_the_export_before_it_begins(tmp_path: Path, command: list[str]) -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    arguments = [*command, "device=cuda"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=150, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cuda: no CUDA device here")
    assert not (tmp_path / "models").exists()
