"""Devices are chosen in one place, half precision stays within its tolerance, and batches fit the memory."""

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emotion_ai.contract import TASKS, Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.models.device import TOLERANCES, DeviceBatches, Placement, Precision, exact_float32, find_device
from emotion_ai.models.encoder import SqueezeExcite
from emotion_ai.vision.crops import crop, resize_to_crop
from emotion_ai.vision.photo import PORTRAITS, load_photo

CPU = torch.device("cpu")


def extremes() -> NDArray[np.uint8]:
    """Black, white, noise."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    return np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise])


def real() -> NDArray[np.uint8]:
    photos = [load_photo(path) for path in PORTRAITS]
    crops = [resize_to_crop(crop(photo.gray, face.box)) for photo in photos for face in detect_faces(photo)]
    return np.stack(crops).round().astype(np.uint8)


def run(network: FaceNetwork, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    function = network.uncertainty if network.task == "keypoints" else network.classified
    return DeviceBatches(network.device).run(function, images[:, None])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_within_its_tolerance(precision: Precision, task: Task) -> None:
    images = np.concatenate([extremes(), real(), synthetic_faces(2 if precision == "fp16" else 16, 3).images])
    expected = run(load_network("bundled", task).network, images)
    network = Placement.of("cpu", precision).place(load_network("bundled", task).network)
    assert Placement.like(network) == Placement(CPU, precision)
    for got, wanted in zip(run(network, images), expected, strict=True):
        assert got.dtype == np.float32
        assert np.isfinite(got).all()
        tolerance = TOLERANCES[precision].pixels if task == "keypoints" else TOLERANCES[precision].probability
        difference = np.abs(got - wanted).max()
        assert 0 < difference <= tolerance, "0 would mean that it was not computed in half precision"


def test_fp32_changes_nothing() -> None:
    images = np.concatenate([extremes(), real()])
    expected = run(load_network("bundled", "emotion").network, images)
    network = Placement.of("cpu").place(load_network("bundled", "emotion").network)
    for got, wanted in zip(run(network, images), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_squeeze_and_excite_is_finite_in_half_precision(kind: str, dtype: torch.dtype) -> None:
    """Also at the largest activations of fp16, whose sum over the map is beyond its range."""
    torch.manual_seed(0)
    block = SqueezeExcite(16).eval()
    with torch.no_grad():
        torch.nn.init.normal_(block.reduce.weight, std=1e-4)
    largest = 6e4
    maps = {"black": torch.zeros(2, 16, 48, 48), "white": torch.full((2, 16, 48, 48), largest)}
    maps["noise"] = torch.rand(2, 16, 48, 48) * largest
    with torch.inference_mode():
        expected = block(maps[kind])
        got = block.to(dtype)(maps[kind].to(dtype)).float()
    assert torch.isfinite(got).all()
    assert (got - expected).abs().max() <= 0.02 * largest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "cuda: no CUDA device here.*; use device auto or cpu"),
        ("cuda:0", "cuda:0: no CUDA device here"),
        ("mps", "mps: no Apple GPU here; use device auto or cpu"),
        ("meta", "`device` 'meta' is not available here"),
        ("cpu:x", "`device` 'cpu:x' is not available here"),
        ("", "`device` '' is not available here"),
    ],
)
def test_a_device_that_is_not_here_is_one_error(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        find_device(name)
    assert find_device("auto") == CPU


def test_a_number_beyond_the_devices_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="cuda:2: no such CUDA device here; there are 2, from cuda:0 to cuda:1"):
        find_device("cuda:2")


@pytest.mark.parametrize("precision", ["half", "", "bfloat16"])
def test_an_unknown_precision_is_an_error(precision: str) -> None:
    with pytest.raises(ConfigError, match=f"`precision` must be fp32, bf16 or fp16, got '{precision}'"):
        Placement.of("cpu", precision)


@pytest.mark.parametrize("text", ["CUDA out of memory. Tried to allocate", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"])
def test_a_batch_that_does_not_fit_is_halved_and_all_images_are_read_once(text: str) -> None:
    sizes: list[int] = []
    done: list[int] = []

    def function(images: torch.Tensor) -> tuple[torch.Tensor]:
        sizes.append(len(images))
        if len(images) > 5:
            raise RuntimeError(text)
        return (images.float() * 2,)

    batches = DeviceBatches(CPU, 20)
    numbers = np.arange(33)
    (got,) = batches.run(function, numbers, progress=done.append)
    np.testing.assert_array_equal(got, numbers * 2)
    assert sizes == [20, 10, 5, 5, 5, 5, 5, 5, 3]
    assert sum(done) == 33
    batches.run(function, numbers[:7])
    assert sizes[-2:] == [5, 2], "the size that fits is kept"


def test_one_image_that_does_not_fit_is_an_error_and_other_errors_are_not_retried() -> None:
    def full(_: torch.Tensor) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nMore")

    with pytest.raises(ConfigError, match=r"cpu: its memory is too small for one face \(CUDA out of memory\.\); end"):
        DeviceBatches(CPU).run(full, np.arange(9))

    def broken(_: torch.Tensor) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        DeviceBatches(CPU).run(broken, np.arange(9))


def test_tf32_is_off_until_the_last_thread_is_done() -> None:
    cuda = torch.device("cuda")  # the setting exists without a GPU as well
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    def settings() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        inside, leave = threading.Event(), threading.Event()

        def other() -> None:
            with exact_float32(cuda):
                inside.set()
                leave.wait(10)

        thread = threading.Thread(target=other)
        with exact_float32(cuda):
            thread.start()
            assert inside.wait(10)
            assert settings() == (False, False)
        assert settings() == (False, False), "the other thread still computes"
        leave.set()
        thread.join()
        assert settings() == (True, True)
        with exact_float32(CPU):
            assert settings() == (True, True)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_the_guide_states_these_tolerances() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "predict.md").read_text()
    for precision, tolerance in TOLERANCES.items():
        (row,) = re.findall(rf"^\| `{precision}`.*\| ([\d.]+) px \| ([\d.]+) \|$", guide, re.MULTILINE)
        assert tuple(map(float, row)) == tolerance
