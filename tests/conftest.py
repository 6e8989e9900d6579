"""Shared by all tests: a cache of their own, the real datasets where they are at hand, small random networks."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision  # noqa: F401 - before TensorFlow, see emotion_ai_export.convert.frameworks
from hypothesis import settings

from emotion_ai.contract import SERVABLES, Task
from emotion_ai.models import FaceNetwork

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
settings.register_profile("any machine", deadline=None)  # speed belongs in a benchmark
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("EMOTION_AI_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that EMOTION_AI_DATA names; tests that need it are skipped without it."""
    folder = os.environ.get("EMOTION_AI_DATA")
    if not folder:
        pytest.skip("EMOTION_AI_DATA is not set: no real datasets")
    return Path(folder)


ENCODERS: dict[Task, dict[str, Any]] = {
    "keypoints": {
        "name": "residual",
        "widths": [8, 16, 16],
        "depths": [1, 1, 1],
        "stem_stride": 4,
        "strides": [1, 2, 1],
    },
    "emotion": {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 2},
}


def random_network(task: Task, encoder: dict[str, Any], seed: int = 0, head: str = "heatmap") -> FaceNetwork:
    """As after training: no statistic, gain or head weight is left at a value that hides a wrong conversion."""
    generator = torch.Generator().manual_seed(seed)
    network = FaceNetwork(task, encoder, {"name": head}, mean=120.0, std=60.0).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
        if task == "emotion":
            network.head.linear.weight.normal_(0, 1.0, generator=generator)
        else:
            network.head.conv.weight.normal_(0, 0.02 if head == "regression" else 0.5, generator=generator)
            network.deviations.linear.weight.normal_(0, 0.1, generator=generator)
            network.deviations.linear.bias.normal_(0, 0.1, generator=generator)
    return network


@pytest.fixture(scope="session")
def make_network() -> Callable[..., FaceNetwork]:
    return random_network


@pytest.fixture(scope="session")
def networks() -> dict[Task, FaceNetwork]:
    return {task: random_network(task, encoder) for task, encoder in ENCODERS.items()}


@pytest.fixture(scope="session")
def onnx_models(networks: dict[Task, FaceNetwork]) -> dict[Task, Any]:
    from emotion_ai_export.convert.graph import to_onnx

    return {task: to_onnx(network) for task, network in networks.items()}


@pytest.fixture(scope="session")
def folders(onnx_models: dict[Task, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SavedModels, not yet published, by servable."""
    from emotion_ai_export.convert.graph import to_graph
    from emotion_ai_export.convert.saved_model import save_servable

    base = tmp_path_factory.mktemp("saved")
    graphs = {task: to_graph(model) for task, model in onnx_models.items()}
    for name in SERVABLES:
        save_servable(graphs, name, base / name)
    return {name: base / name for name in SERVABLES}
