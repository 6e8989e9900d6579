"""What keeps training fast: no waits for a device, shares of the faces, averages at once, memory that is kept."""

import subprocess
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from emotion_ai.data.splits import DataSplits
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError
from emotion_ai.models import FaceNetwork
from emotion_ai.training import optim, train
from emotion_ai.training.config import TrainConfig
from emotion_ai.training.modules import FaceModule, Teachers
from emotion_ai.training.networks import build_module
from emotion_ai.training.trainer import WeightEma

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}
META = torch.device("meta")


def config(*overrides: str) -> TrainConfig:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return TrainConfig.of(
            compose("train", ["model.encoder.widths=[8,16]", "model.encoder.depths=[1,1]", *overrides])
        )


class Copies(TorchDispatchMode):
    """Notes tensors of several numbers that are copied to the meta device in the way that waits on a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waiting: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        source: Any = args[1] if func is torch.ops.aten.copy_.default else args[0] if args else None
        target = args[0].device if func is torch.ops.aten.copy_.default else kwargs.get("device")
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            moved = isinstance(source, Tensor) and source.device.type == "cpu" and torch.device(target or "cpu") == META
            waits = not (kwargs.get("non_blocking") or args[2:] == (True,))
            if moved and waits:
                self.waiting.append(f"{func} of {tuple(source.shape)}")
        if func in (torch.ops.aten.index.Tensor,) and any(i is not None and i.device.type == "cpu" for i in args[1]):
            self.waiting.append("an index that is on the processor")
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    "overrides",
    [["task=keypoints"], ["task=emotion"], ["task=emotion", "task.mixup=0.4"]],
    ids=lambda overrides: overrides[-1],
)
def test_a_training_step_needs_no_number_from_the_device(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device tensors have no numbers: whatever would wait for them raises an error."""
    settings = config(*overrides)
    faces = synthetic_faces(12, seed=0).faces(settings.task.name)
    module = build_module(settings, DataSplits(faces, faces, faces, ""))
    teachers = (FaceNetwork(settings.task.name, TINY).to(META),)
    module.teachers = Teachers(teachers, 0.5, shift_px=2)
    module.to(META)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for this device
    monkeypatch.setattr(FaceModule, "_share", lambda *_: 1.0)
    monkeypatch.setattr(FaceModule, "log", lambda *_, **__: None)
    images = torch.empty(12, 1, 96, 96, device=META)
    targets = torch.from_numpy(faces.targets).to(META)
    with Copies() as copies:
        module.training_step((images, targets, np.arange(12)), 0).backward()
    assert copies.waiting == []
    assert all(parameter.grad is not None for parameter in module.network.parameters())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_classes_is_that_of_pytorch(smoothing: float) -> None:
    settings = config("task=emotion", f"task.label_smoothing={smoothing}", "task.class_weight_power=0.5")
    faces = synthetic_faces(40, seed=0).faces("emotion")[np.r_[0:40, 3, 8, 8]]
    module: Any = build_module(settings, DataSplits(faces, faces, faces, ""))
    targets = torch.from_numpy(faces.targets)
    logits = torch.randn(len(faces), 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert module.class_weights.std() > 0
    expected = nn.functional.cross_entropy(logits, targets, module.class_weights, label_smoothing=smoothing)
    found = module.loss(logits, targets)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    for got, wanted in zip(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-8)


def test_validation_batches_need_no_number_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(FaceModule, "log", lambda *_, **__: None)
    for overrides in (["task=keypoints"], ["task=emotion", "classes=seven"]):
        settings = config(*overrides)
        faces = synthetic_faces(12, seed=0, classes=settings.classes.class_set).faces(settings.task.name)
        module = build_module(settings, DataSplits(faces, faces, faces, "")).to(META)
        targets = torch.from_numpy(faces.targets).to(META)
        with Copies() as copies:
            module.validation_step((torch.empty(12, 1, 96, 96, device=META), targets, np.arange(12)), 0)
        assert copies.waiting == []


@pytest.mark.parametrize("accumulated", [1, 2])
def test_averages_of_the_weights_are_those_of_lightning(accumulated: int) -> None:
    torch.manual_seed(0)
    module = pl.LightningModule()
    module.net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    expected = AveragedModel(module, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)
    ema, trainer = WeightEma(0.9), SimpleNamespace(global_step=0)
    ema.setup(trainer, module, "fit")  # type: ignore[arg-type]
    ema.on_fit_start(trainer, module)  # type: ignore[arg-type]
    ema.on_train_start(trainer, module)  # type: ignore[arg-type]
    for batch in range(1, 7):
        if batch % accumulated == 0:
            trainer.global_step += 1
            with torch.no_grad():
                for tensor in (*module.parameters(), module.net[1].running_mean):
                    tensor.normal_()  # type: ignore[operator]
            expected.update_parameters(module)
        ema.on_train_batch_end(trainer, module, None, None, batch)  # type: ignore[arg-type]
    average = ema._average_model
    assert average is not None
    assert average.n_averaged == expected.n_averaged == 6 // accumulated
    for got, wanted in zip(average.module.parameters(), expected.module.parameters(), strict=True):
        assert torch.equal(got, wanted)
    assert torch.equal(average.module.net[1].running_mean, expected.module.net[1].running_mean)  # type: ignore[union-attr, index]


class Placed(nn.Module):
    """A module whose parameters are on a device that need not exist."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.where = torch.device(device)

    def parameters(self, recurse: bool = True) -> Any:
        return iter([SimpleNamespace(ndim=2, device=self.where)])


@pytest.mark.parametrize(
    ("device", "settings", "clipped", "fused"),
    [
        ("cuda", {}, False, True),
        ("cpu", {}, False, None),
        ("cuda", {}, True, None),
        ("cuda", {"fused": False}, False, False),
        ("cuda", {"_target_": "torch.optim.RMSprop"}, False, None),
    ],
)
def test_optimizers_are_fused_on_a_gpu(
    device: str, settings: dict[str, Any], clipped: bool, fused: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "build", lambda settings, *_: settings)
    built: Any = optim.build_optimizer(Placed(device), {"_target_": "torch.optim.AdamW"} | settings, clipped)
    assert built.get("fused") == fused


def test_a_run_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    faces = synthetic_faces(12, seed=0).faces("keypoints")
    with pytest.raises(ConfigError, match=r"compile=true needs a C\+\+ compiler, and there is none; install g\+\+"):
        train.build_run(config("compile=true", "out=run"), DataSplits(faces, faces, faces, ""))


FAULTS = """
import resource, torch
from emotion_ai.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(6_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
with keep_freed_memory():
    faults()
    kept = faults()
print(usual, kept)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_kept_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    usual, kept = map(int, found.split())
    assert kept < usual / 10, found


def test_metrics_are_computed_once_from_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config("task=keypoints")
    faces = synthetic_faces(12, seed=0).faces("keypoints")
    module = build_module(settings, DataSplits(faces, faces, faces, ""))
    logged: dict[str, Any] = {}
    monkeypatch.setattr(FaceModule, "log", lambda _, name, value, **__: logged.update({name: value}))
    images = torch.from_numpy(faces.images)[:, None].float()
    batches: Iterable[slice] = (slice(0, 8), slice(8, 12))
    for batch in batches:
        module.validation_step((images[batch], torch.from_numpy(faces.targets[batch]), np.arange(4)), 0)
    assert "val/rmse" not in logged
    module.on_validation_epoch_end()
    with torch.no_grad():
        errors = module.network.eval()(images).numpy() - faces.targets
    module.on_validation_epoch_end()  # nothing is left of the epoch before
    assert float(logged["val/rmse"].compute()) == pytest.approx(float(np.sqrt((errors**2).mean())), rel=0.2)
