"""The benchmark runs; its figures are not checked."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion_ai.models import save_network
from emotion_ai.provenance import RunRecord
from emotion_ai_export.bench import compare, speed
from emotion_ai_export.bench.keras_port import to_keras


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_the_keras_port_is_the_same_network(task: str, networks: dict[str, Any]) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (3, 96, 96, 1)).astype(np.float32)
    network, tensor = networks[task], torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = network(tensor) if task == "keypoints" else network.classified(tensor)[0]
    np.testing.assert_allclose(to_keras(network)(images).numpy(), wanted.numpy(), atol=1e-4)


def test_another_encoder_is_an_error(make_network: Any) -> None:
    with pytest.raises(TypeError, match="TorchvisionEncoder cannot be ported"):
        to_keras(make_network("emotion", {"name": "resnet18"}))


def test_the_benchmark_runs_all_five_and_compares_with_a_baseline(
    networks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / f"{task}.safetensors") for task in ("keypoints", "emotion")]
    for task, file in zip(("keypoints", "emotion"), files, strict=True):
        save_network(networks[task], Path(file), RunRecord())
    threads = str(torch.get_num_threads())  # it sets them for the whole process: other tests keep what they have
    arguments = ["--rounds", "2", "--batches", "1", "3", "--threads", threads, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["speed", *arguments, "--checkpoint", *files])
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")  # put back afterwards
    speed.main()
    record = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert len(record["rows"]) == 2 * 2 * 5
    assert all(row["milliseconds"] > 0 for row in record["rows"])
    assert record["nodes"]["emotion"]["ours"]["Transpose"] == 0
    assert record["nodes"]["emotion"]["onnx_tf"]["Transpose"] > 10
    assert (tmp_path / "out" / "speed.png").read_bytes()[:4] == b"\x89PNG"
    output = capsys.readouterr().out
    assert "SavedModel" in output
    figures = compare.read_figures(tmp_path / "out" / "speed.json")
    assert len(figures) == 2 * (1 + 2 * 3)
    assert {len(figure.values) for figure in figures} == {1, 2}

    monkeypatch.setattr(speed, "run", lambda options: figures)
    baseline = ["--baseline", str(tmp_path / "out" / "speed.json"), "--fail"]
    for more, compared in (([], 2 * (1 + 2 * 2)), (["--absolute"], len(figures))):
        monkeypatch.setattr(sys, "argv", ["speed", *baseline, *more])
        with pytest.raises(SystemExit) as ended:
            speed.main()
        assert ended.value.code == 0
        assert f"0 of {compared} figures are worse" in capsys.readouterr().out
