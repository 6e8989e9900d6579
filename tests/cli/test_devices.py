"""`--device` and `--precision` of the commands that read, and of `evaluate`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

from emotion_ai.cli.readers import ReaderOptions, local_record
from emotion_ai.cli.score_run import ScoreCommand
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.stage import evaluate
from emotion_ai.inference.reader import FaceReader
from emotion_ai.models import FaceNetwork


def test_a_reader_gets_the_device_and_the_precision() -> None:
    with ReaderOptions(device="cpu", precision="bf16").opened(None) as reader:
        assert isinstance(reader, FaceReader)
        assert local_record(reader) == {"device": "cpu", "precision": "bf16"}
    half = ScoreCommand(sources=(), dest=Path(), device="cpu", precision="bf16").reader()
    assert local_record(half.open()) == {"device": "cpu", "precision": "bf16"}
    full = ScoreCommand(sources=(), dest=Path(), device="cpu").reader()
    assert half.identity() != full.identity(), "a run does not go on in another precision"
    assert "precision" not in full.identity(), "runs of before go on"


@pytest.mark.parametrize("option", [{"device": "cpu"}, {"precision": "fp16"}])
def test_a_server_has_its_own_device(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--device and --precision are for reading without a server; leave out"):
        ReaderOptions(server="http://127.0.0.1:9", **option).check()


def test_workers_share_the_gpus() -> None:
    with pytest.raises(ConfigError, match="--device cuda:1: the workers share all GPUs; give --device cuda, and"):
        ScoreCommand(sources=(), dest=Path(), device="cuda:1").check()
    with pytest.raises(ConfigError, match="`precision` must be fp32, bf16 or fp16, got 'half'"):
        ScoreCommand(sources=(), dest=Path(), precision="half").reader().identity()


def test_evaluate_computes_on_the_device_in_the_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All networks, also the one that crops for the robustness table, are where the config says."""
    monkeypatch.setattr("emotion_ai.evaluation.evaluated_faces._SYNTHETIC_COUNT", 12)
    seen: set[tuple[str, torch.dtype | None]] = set()
    features = FaceNetwork.features

    def recorded(network: FaceNetwork, images: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():  # activation maps need exact gradients
            seen.add((network.task, network.half_precision))
        return features(network, images)

    monkeypatch.setattr(FaceNetwork, "features", recorded)
    given = ["task=emotion", "checkpoint=bundled", "against=bundled", "robustness=true", "device=cpu"]
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        cfg = compose("evaluate", [*given, "precision=bf16", f"out={tmp_path}"])
    evaluate(cfg)
    assert seen == {("emotion", torch.bfloat16), ("keypoints", torch.bfloat16)}
    report = (tmp_path / "report.json").read_text()
    assert '"device": "cpu"' in report
    assert '"precision": "bf16"' in report
    assert "device=cpu precision=bf16" in report, "the command that repeats it"


def test_evaluate_on_a_device_that_is_not_here_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        cfg = compose("evaluate", ["checkpoint=bundled", "device=cuda", f"out={tmp_path}"])
    with pytest.raises(ConfigError, match="cuda: no CUDA device here"):
        evaluate(cfg)
