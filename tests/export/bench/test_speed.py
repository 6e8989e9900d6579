"""The benchmark's road, not its figures."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion_ai.models import save_network
from emotion_ai_export.bench import speed
from emotion_ai_export.bench.keras_twin import keras_twin


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_the_twin_in_keras_is_the_same_network(task: str, networks: dict[str, Any]) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (3, 96, 96, 1)).astype(np.float32)
    with torch.inference_mode():
        wanted = networks[task](torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(keras_twin(networks[task])(images).numpy(), wanted, atol=1e-4)


def test_an_encoder_without_a_twin_is_refused(make_network: Any) -> None:
    with pytest.raises(TypeError, match="TorchvisionEncoder has no twin"):
        keras_twin(make_network("emotion", {"name": "resnet18"}))


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert speed.ratio([1.0, 2.0, 6.0], [2.0, 2.0, 2.0])[0] == 1.0
    low, high = speed.ratio([1.0, 2.0, 6.0, 2.0, 3.0], [2.0] * 5)[1:]
    assert 0.5 <= low <= 1.0 <= high <= 3.0
    assert speed.ratio([3.0], [2.0]) == (1.5, 1.5, 1.5)


def test_the_benchmark_compares_all_five_and_leaves_table_and_picture(
    networks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / f"{task}.safetensors") for task in ("keypoints", "emotion")]
    for task, file in zip(("keypoints", "emotion"), files, strict=True):
        save_network(networks[task], Path(file), {})
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
    assert "SavedModel" in capsys.readouterr().out
