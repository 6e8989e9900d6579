"""What only a CUDA device can show: the same answers as a CPU within the tolerances, and training.

    python -m pytest tests/gpu

Needs neither TensorFlow nor Ray; without Hydra and grad-cam, training and evaluation are skipped.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emotion_ai.contract import TASKS, Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError
from emotion_ai.inference.reader import FaceReader
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.models.device import GPU_TOLERANCE, TOLERANCES, DeviceBatches, Placement, Precision, find_device
from emotion_ai.models.encoder import SqueezeExcite

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]


def crops() -> NDArray[np.uint8]:
    """Synthetic faces, black, white and noise."""
    noise = np.random.default_rng(0).integers(0, 256, (61, 96, 96), dtype=np.uint8)
    return np.concatenate([synthetic_faces(200, 1).images, noise, noise[:1] * 0, noise[:1] * 0 + 255])


def run(network: FaceNetwork, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    function = network.uncertainty if network.task == "keypoints" else network.classified
    return DeviceBatches(network.device).run(function, images[:, None])


def largest(first: tuple[NDArray[np.float32], ...], second: tuple[NDArray[np.float32], ...]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def config(stage: str, *overrides: str) -> Any:
    hydra = pytest.importorskip("hydra")
    with hydra.initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return hydra.compose(stage, list(overrides))


def test_the_reader_answers_as_on_a_cpu() -> None:
    images = crops()
    cpu, gpu = FaceReader.bundled(device="cpu").read_crops(images), FaceReader.bundled().read_crops(images)
    assert cpu.deviations is not None
    assert gpu.deviations is not None
    assert cpu.expressions is not None
    assert gpu.expressions is not None
    pixels = largest((cpu.keypoints, cpu.deviations), (gpu.keypoints, gpu.deviations))
    probability = largest((cpu.probabilities, cpu.expressions), (gpu.probabilities, gpu.expressions))
    print(f"fp32: {pixels:.2g} px, {probability:.2g}")
    assert pixels <= GPU_TOLERANCE.pixels
    assert probability <= GPU_TOLERANCE.probability


def test_tf32_is_off_while_faces_are_read_and_would_be_beyond_the_tolerance() -> None:
    network = Placement.of("cuda").place(load_network("bundled", "keypoints").network)
    images = crops()
    expected = run(load_network("bundled", "keypoints").network, images)
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        exact = run(network, images)
        assert torch.backends.cudnn.allow_tf32
        with torch.inference_mode():
            rounded = network.uncertainty(torch.from_numpy(images)[:, None].cuda())
        difference = largest(tuple(part.cpu().numpy() for part in rounded), expected)
        print(f"TF32: {difference:.2g} px")
        assert largest(exact, expected) <= GPU_TOLERANCE.pixels < difference
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_within_its_tolerance(precision: Precision, task: Task) -> None:
    images = crops()
    expected = run(load_network("bundled", task).network, images)
    got = run(Placement.of("cuda", precision).place(load_network("bundled", task).network), images)
    assert all(np.isfinite(part).all() for part in got)
    difference = largest(got, expected)
    print(f"{task}, {precision}: {difference:.2g}")
    tolerance = TOLERANCES[precision]
    assert 0 < difference <= (tolerance.pixels if task == "keypoints" else tolerance.probability)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["black", "white", "noise"])
def test_squeeze_and_excite_is_finite_in_half_precision(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block = SqueezeExcite(16).eval().cuda()
    torch.nn.init.normal_(block.reduce.weight, std=1e-4)
    maps = {"black": torch.zeros(2, 16, 48, 48), "white": torch.full((2, 16, 48, 48), 6e4)}
    maps["noise"] = torch.rand(2, 16, 48, 48) * 6e4
    x = maps[kind].cuda()
    with torch.inference_mode():
        plain = block.to(dtype)(x.to(dtype))
        with torch.autocast("cuda", dtype):
            mixed = block.float()(x.to(dtype))
    assert torch.isfinite(plain).all()
    assert torch.isfinite(mixed).all()


def test_batches_shrink_to_the_memory() -> None:
    network = Placement.of("cuda").place(load_network("bundled", "keypoints").network)
    images = np.concatenate([crops()] * 8)
    expected = run(network, images)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    batches = DeviceBatches(network.device, len(images))
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 3e8) / total)
        got = batches.run(network.uncertainty, images[:, None])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(f"{batches.size} of {len(images)} images fit")
    assert batches.size < len(images)
    assert largest(got, expected) <= GPU_TOLERANCE.pixels


def test_devices_are_numbered() -> None:
    assert find_device("auto").type == "cuda"
    with pytest.raises(ConfigError, match="cuda:99: no such CUDA device here; there are"):
        find_device("cuda:99")


@pytest.mark.parametrize("task", TASKS)
def test_evaluate_gives_the_same_figures(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra")
    if task == "emotion":
        pytest.importorskip("pytorch_grad_cam")
    from emotion_ai.evaluation.stage import evaluate

    monkeypatch.setattr("emotion_ai.evaluation.evaluated_faces._SYNTHETIC_COUNT", 100)
    given = (f"task={task}", "checkpoint=bundled", "robustness=true")
    cpu = evaluate(config("evaluate", *given, "device=cpu", f"out={tmp_path / 'cpu'}"))
    for precision, tolerance in (("fp32", 1e-3), ("bf16", 0.05)):
        out = tmp_path / precision
        gpu = evaluate(config("evaluate", *given, "device=cuda", f"precision={precision}", f"out={out}"))
        for name, value in cpu.items():
            assert gpu[name] == pytest.approx(value, abs=tolerance), f"{precision} {name}"
        assert '"device": "cuda (' in (out / "report.json").read_text()


@pytest.mark.parametrize("task", TASKS)
def test_a_checkpoint_is_within_the_tolerance_of_its_own_float64(task: Task) -> None:
    """What `export` and `verify` compare with `device=cuda`; PyTorch's default, TF32, is off meanwhile."""
    from emotion_ai_export.convert.parity_cases import parity_faces, pixel_cases

    network = load_network("bundled", task).network
    placed = Placement.of("cuda").place(load_network("bundled", task).network)
    first, second = ("keypoints", "deviations") if task == "keypoints" else ("probabilities", "expressions")
    worst = 0.0
    for case in pixel_cases({task: network}, parity_faces()):
        assert case.crops is not None
        got = run(placed, np.ascontiguousarray(case.crops[..., 0]))
        worst = max(worst, largest(got, (case.expected[first], case.expected[second])))
    print(f"{task}, from float64: {worst:.2g}")
    assert worst <= (GPU_TOLERANCE.pixels if task == "keypoints" else GPU_TOLERANCE.probability)


@pytest.mark.parametrize("task", TASKS)
def test_training_runs_and_its_network_reads_on_a_cpu(task: Task, tmp_path: Path) -> None:
    pytest.importorskip("hydra")
    from emotion_ai.training.train import train

    given = ["trainer=gpu", "data.count=400", "batch_size=64", "epochs=2", "ema_decay=0.5", f"out={tmp_path}"]
    metrics = train(config("train", f"task={task}", *given))
    assert all(np.isfinite(value) for value in metrics.values())
    network = load_network(tmp_path / "network.safetensors", task).network
    assert network.device.type == "cpu"
    assert all(np.isfinite(part).all() for part in run(network, crops()[-3:]))
