"""The script of a GPU's figures, without a GPU and at its smallest sizes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from emotion_ai.benchmarks import gpu, gpu_parts
from emotion_ai.benchmarks.gpu import TINY, Measurement, as_dict, as_markdown, measure
from emotion_ai.benchmarks.training import Comparison, PipelineSpeed
from emotion_ai.benchmarks.training_runs import STAGES, StageTimes

CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Measurement:
    """A measurement whose trainings are invented."""
    speeds = tuple(PipelineSpeed(name, (2.0, 2.1), 2**20) for name in ("ours", "customary"))
    monkeypatch.setattr(gpu, "compare", lambda setting, *_: Comparison(setting, speeds))
    monkeypatch.setattr(
        gpu, "measure_stages", lambda setting, *_: StageTimes(setting, dict.fromkeys(STAGES, 1.0), 9.0, None, 1.0)
    )
    monkeypatch.delenv("EMOTION_AI_DATA", raising=False)
    return Measurement(CPU, "cpu", tmp_path, TINY, time.monotonic() + 600)


def test_the_other_parts_go_on_if_one_fails(quick: Measurement, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu_parts, "half_precision_errors", fail)
    measure(quick)
    assert quick.failed == [f"half, {task} bf16: RuntimeError: out of memory" for task in ("keypoints", "emotion")]
    content = json.loads(json.dumps(as_dict(quick)))
    assert [row["batch_size"] for row in content["inference"]] == [1, 2] * 4
    assert all(row["faces_per_second"] > 0 for row in content["inference"])
    text = as_markdown(quick)
    for title in ("Stages of a training step", "Training", "Inference, faces per second", "Not measured"):
        assert f"## {title}\n" in text


def test_no_part_begins_after_the_deadline(quick: Measurement) -> None:
    quick.deadline = time.monotonic() + 1
    measure(quick)
    assert quick.results == {}
    assert all(text.endswith("no time left") for text in quick.failed)
    assert len(quick.failed) == 16


def test_half_precision_is_finite_on_extreme_images() -> None:
    for task in ("keypoints", "emotion"):
        rows = gpu_parts.half_precision_errors(gpu_parts.bundled_network(task), CPU, "bf16", 1)
        assert [row["images"] for row in rows] == ["black", "white", "noise", "stripes"]
        assert all(row["finite"] for row in rows)
        assert all(row["largest_difference"] < (0.1 if task == "emotion" else 2) for row in rows)
    network = gpu_parts.bundled_network("emotion")
    with torch.no_grad():
        network.encoder.stem[0].weight.fill_(torch.inf)  # type: ignore[index, union-attr]
    assert not any(row["finite"] for row in gpu_parts.half_precision_errors(network, CPU, "bf16", 1))


def test_training_ends_at_the_target(tmp_path: Path) -> None:
    small = ("experiment=demo_keypoints", "data.count=40", "batch_size=16", "epochs=3")
    reached = gpu_parts.Target(small, "val/rmse", 1000.0, largest=False)
    found = gpu_parts.time_to_target(reached, "cpu", False, tmp_path / "reached")
    assert found["reached"]
    assert found["epochs"] == 1
    assert found["seconds_to_target"] == found["seconds"][0] > 0
    missed = gpu_parts.time_to_target(
        gpu_parts.Target(small, "val/rmse", 0.0, largest=False), "cpu", False, tmp_path / "missed"
    )
    assert missed["epochs"] == 3
    assert missed["seconds_to_target"] is None
    assert missed["best"] == min(missed["values"])
