"""`FaceReader` returns what its networks return, and only it needs PyTorch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emotion_ai
from emotion_ai.contract import Task
from emotion_ai.errors import ConfigError
from emotion_ai.provenance import RunRecord
from emotion_ai.vision.photo import PORTRAITS


def test_the_reader_readings_as_its_networks_do(tmp_path: Path) -> None:
    import torch

    from emotion_ai import FaceReader
    from emotion_ai.models import FaceNetwork, save_network
    from emotion_ai.vision.crops import resize_to_crop

    torch.manual_seed(0)
    networks: dict[Task, FaceNetwork] = {}
    tasks: tuple[Task, ...] = ("keypoints", "emotion")
    for task in tasks:
        network = FaceNetwork(task, {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}).eval()
        for parameter in network.head.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        save_network(network, tmp_path / f"{task}.safetensors", RunRecord(calibration={"uncertain_below": 0.55}))
        networks[task] = network
    reader = FaceReader.load(tmp_path / "keypoints.safetensors", tmp_path / "emotion.safetensors")
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (rng.integers(20, 200), rng.integers(20, 200)), dtype=np.uint8) for _ in range(70)]
    readings = reader.read_crops(crops)
    assert readings.deviations is not None
    assert readings.keypoints.shape == (70, 15, 2)
    assert readings.keypoints.dtype == readings.probabilities.dtype == np.float32
    np.testing.assert_allclose(readings.probabilities.sum(1), 1, atol=1e-5)
    with torch.inference_mode():
        for i in (0, 66):
            crop = torch.tensor(resize_to_crop(crops[i]))[None, None]
            points, deviations = networks["keypoints"].uncertainty(crop)
            np.testing.assert_allclose(readings.keypoints[i], points[0].numpy(), atol=1e-3)
            np.testing.assert_allclose(readings.deviations[i], deviations[0].numpy(), atol=1e-3)
            np.testing.assert_allclose(readings.probabilities[i], networks["emotion"](crop)[0].numpy(), atol=1e-5)
    none = reader.read_crops([])
    assert none.deviations is not None
    assert none.keypoints.shape == none.deviations.shape == (0, 15, 2)
    (face,) = reader.read(PORTRAITS[0])
    assert face.uncertain_below == reader.uncertain_below == 0.55, "the checkpoint's own"
    certain = FaceReader.load(tmp_path / "keypoints.safetensors", tmp_path / "emotion.safetensors", uncertain_below=0)
    assert not certain.read(PORTRAITS[0])[0].uncertain
    with pytest.raises(ConfigError, match="must be between 0 and 1, got nan"):
        FaceReader(networks["keypoints"], networks["emotion"], float("nan"))


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_device_is_chosen_by_name(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from emotion_ai import FaceReader

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    crop = np.arange(96 * 96, dtype=np.uint8).reshape(1, 96, 96)
    first, second = FaceReader.bundled(device=device).read_crops(crop), FaceReader.load().read_crops(crop)
    np.testing.assert_array_equal(first.keypoints, second.keypoints)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_auto_prefers_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from emotion_ai.inference.reader import FaceReader
    from emotion_ai.models import FaceNetwork

    moved: list[str] = []

    zeros = torch.zeros

    def zeros_of(*size: Any, device: torch.device | None = None, **options: Any) -> torch.Tensor:
        moved.extend([] if device is None else [str(device)])
        return zeros(*size, **options)

    def to(network: FaceNetwork, device: torch.device | None = None, **options: Any) -> FaceNetwork:
        moved.extend([] if device is None else [str(device)])
        return network

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", zeros_of)
    monkeypatch.setattr(FaceNetwork, "to", to)
    FaceReader.bundled()
    assert moved == ["cuda", "cuda", "cuda"]


@pytest.mark.parametrize("device", ["nonsense", "vulkan"])
def test_a_device_that_is_not_there_is_an_error(device: str) -> None:
    from emotion_ai import FaceReader

    with pytest.raises(ConfigError, match=f"`device` '{device}' is not available here; use 'auto' or 'cpu'"):
        FaceReader.bundled(device=device)


def test_the_base_install_imports_neither_torch_nor_tensorflow_nor_pandas() -> None:
    code = (
        "import sys, emotion_ai, emotion_ai.client, emotion_ai.cli.photos, emotion_ai.cli; emotion_ai.FaceClient;"
        "print([m for m in ('torch', 'tensorflow', 'pandas', 'onnx', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_without_torch_the_reader_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from emotion_ai.errors import MissingExtraError\n"
        "try:\n    from emotion_ai import FaceReader\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "emotion-ai[train]" in done.stdout, done.stderr


def test_exports_are_complete() -> None:
    for name in emotion_ai.__all__:
        assert getattr(emotion_ai, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = emotion_ai.Nothing
