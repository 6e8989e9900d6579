"""Training that starts from a file of encoder weights."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from safetensors.torch import save_file
from torchvision.models import resnet18

from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models import load_network
from emotion_ai.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


def run(*overrides: str) -> None:
    quick = ["task=emotion", "model=resnet18", "data.count=60", "batch_size=16", "ema_decay=0.5", "logger=none"]
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        train(compose("train", [*quick, *overrides]))


def test_the_file_is_needed_at_the_start_only(tmp_path: Path) -> None:
    weights, out = tmp_path / "model.safetensors", tmp_path / "run"
    own = resnet18().state_dict()
    save_file(own, weights)
    given = f"model.encoder.weights={weights}"
    run(given, f"out={out}", "epochs=1", "optimizer.lr=0", "optimizer.weight_decay=0")
    network = load_network(out / "network.safetensors", "emotion").network
    assert network.spec.encoder == {"name": "resnet18"}
    encoder: Any = network.encoder
    tensors = encoder.library_tensors()
    assert (tensors["layer4.1.conv2.weight"] - own["layer4.1.conv2.weight"]).abs().max() < 1e-6
    weights.unlink()
    run(given, f"out={out}", "epochs=2", "optimizer.lr=0", "optimizer.weight_decay=0", "resume=true")
    with pytest.raises(CheckpointError, match="no such file of weights"):
        run(given, f"out={tmp_path / 'new'}", "epochs=1")
    with pytest.raises(ConfigError, match="give one of them"):
        run(given, f"out={tmp_path / 'new'}", "epochs=1", "init_from=bundled")
