"""Shared by all tests: one cache, the real datasets if present, small random networks, parallel runs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision  # noqa: F401 - before TensorFlow, see emotion_ai_export.convert.frameworks
from filelock import FileLock
from hypothesis import settings

from emotion_ai.class_set import SEVEN
from emotion_ai.contract import SERVABLES, Task
from emotion_ai.inference.verdict import VerdictRule
from emotion_ai.models import FaceNetwork

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
settings.register_profile("any machine", deadline=None)  # speed belongs in a benchmark
settings.load_profile("any machine")

IN_WORKER = "PYTEST_XDIST_WORKER" in os.environ
# A worker takes a whole module, because of the module's fixtures. Modules of TOGETHER share a process and its folder;
# tests of SEPARATE stand alone.
TOGETHER = ("web",)
SEPARATE = ("cli/test_cli.py", "docs/test_notebooks.py", "training/test_train.py")
LONGEST = ("web", "docs/test_notebooks", "docs/test_examples", "export/test_demo", "export", "training")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names files by their size: archives hold the time, and all workers must give a test the same name."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) and len(val) > 16 else None


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):  # the workers inherit it: one core for each
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a parallel run the longest modules start first, so that all workers end at about the same time."""

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((place for place, name in enumerate(LONGEST) if path.startswith(name)), len(LONGEST))

    if IN_WORKER:
        items.sort(key=place)


def scope_of(nodeid: str) -> str:
    """What a worker takes at once."""
    module = nodeid.partition("::")[0].removeprefix("tests/")
    folder = module.partition("/")[0]
    return nodeid if module in SEPARATE else folder if folder in TOGETHER else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


@pytest.fixture(scope="session")
def shared_tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of a parallel run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if IN_WORKER else base


@pytest.fixture(scope="session")
def built_once(shared_tmp: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function that builds a folder, once for all workers; tests only read it."""

    def built_once(name: str, build: Callable[[Path], object]) -> Path:
        folder = shared_tmp / name
        with FileLock(shared_tmp / f"{name}.lock"):
            if not folder.exists():
                partial = shared_tmp / f"{name}.partial"
                partial.mkdir()
                build(partial)
                partial.rename(folder)
        return folder

    return built_once


@pytest.fixture(autouse=True)
def own_cache(shared_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = shared_tmp / "cache"
    monkeypatch.setenv("EMOTION_AI_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that EMOTION_AI_DATA names; tests that need it are skipped without it."""
    folder = os.environ.get("EMOTION_AI_DATA")
    if not folder:
        pytest.skip("EMOTION_AI_DATA is not set: no real datasets")
    return Path(folder)


THRESHOLD = 0.55
"""Of the random emotion network, below which it is uncertain."""

LEAD = 0.125
"""By which an emotion of that network must lead Neutral."""

STRICTER = 0.7123456789
"""Of another export of it, in `folders["face"].parent / "stricter"`; with more digits than a float32 keeps."""


def rule(threshold: float) -> VerdictRule:
    """The rule of the random emotion network for a verdict."""
    return VerdictRule.leading([threshold] * len(SEVEN), SEVEN, LEAD)


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
    with torch.random.fork_rng(devices=[]):  # the same in every worker
        torch.manual_seed(seed)
        more: dict[str, Any] = {"classes": SEVEN.names, "emotion_temperature": 1.7} if task == "emotion" else {}
        network = FaceNetwork(task, encoder, {"name": head}, mean=120.0, std=60.0, **more).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
        layers: Any = network
        if task == "emotion":
            layers.head.linear.weight.normal_(0, 1.0, generator=generator)
        else:
            layers.head.conv.weight.normal_(0, 0.02 if head == "regression" else 0.5, generator=generator)
            layers.deviations.linear.weight.normal_(0, 0.1, generator=generator)
            layers.deviations.linear.bias.normal_(0, 0.1, generator=generator)
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
def folders(
    request: pytest.FixtureRequest, built_once: Callable[[str, Callable[[Path], object]], Path]
) -> dict[str, Path]:
    """SavedModels, not yet published, by servable."""
    from emotion_ai_export.convert.graph import to_graph
    from emotion_ai_export.convert.saved_model import save_servable

    def build(base: Path) -> None:
        models = request.getfixturevalue("onnx_models")
        graphs = {task: to_graph(model) for task, model in models.items()}
        for name in SERVABLES:
            save_servable(graphs, name, base / name, rule(THRESHOLD), SEVEN)
        save_servable(graphs, "face", base / "stricter", rule(STRICTER), SEVEN)

    base = built_once("saved", build)
    return {name: base / name for name in SERVABLES}
