"""What is measured on a GPU beside the stages of training: waits, time to a target, inference, half precision."""

import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from torch import Tensor

from emotion_ai.benchmarks.training_runs import EpochClock, TrainingSetting, build, fit, synchronize, training_noise
from emotion_ai.contract import CROP_SIZE, Task
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.training.config import TrainConfig
from emotion_ai.training.train import build_run, device_settings, load_splits

PRECISIONS: dict[str, torch.dtype | None] = {
    "fp32": None,
    "tf32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class WaitCounter(pl.Callback):
    """Counts how often training steps wait for the GPU, by the line of code. The first two steps are left out."""

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()
        self.steps = 0
        self._recorder: AbstractContextManager[Any] | None = None
        self._found: list[warnings.WarningMessage] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        if index == 2:
            self._recorder = warnings.catch_warnings(record=True)
            self._found = self._recorder.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
        self.steps = index - 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._recorder is None:
            return
        torch.cuda.set_sync_debug_mode("default")
        self._recorder.__exit__(None, None, None)
        for warning in self._found:
            if "synchroniz" in str(warning.message):
                self.places[f"{Path(warning.filename).name}:{warning.lineno}"] += 1


def count_waits(setting: TrainingSetting, out: Path, batches: int = 12) -> dict[str, Any]:
    """How often a training step waits for the GPU, and where: {"steps", "waits", "places"}."""
    run = build(setting, out, batches, 1)
    counter = WaitCounter()
    fit(run, EpochClock(run.trainer.strategy.root_device), before=counter)
    return {"steps": counter.steps, "waits": counter.places.total(), "places": dict(counter.places)}


@dataclass(frozen=True)
class Target:
    """A recipe, and the validation metric that it is to reach.

    Attributes:
        metric: "val/..."; it is reached at `value` or, if `largest`, from it on.
    """

    overrides: tuple[str, ...]
    metric: str
    value: float
    largest: bool

    def reached(self, value: float) -> bool:
        return value >= self.value if self.largest else value <= self.value


class TargetClock(pl.Callback):
    """Seconds from the first step to the end of each validation; training ends when the target is reached."""

    def __init__(self, target: Target, device: torch.device) -> None:
        self.target, self.device = target, device
        self.seconds: list[float] = []
        self.values: list[float] = []
        self._began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(self.device)
        self._began = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.values.append(float(trainer.callback_metrics[self.target.metric]))
        self.seconds.append(time.perf_counter() - self._began)
        trainer.should_stop = trainer.should_stop or self.target.reached(self.values[-1])


def time_to_target(target: Target, trainer: str, compiled: bool, out: Path) -> dict[str, Any]:
    """Trains a recipe until its target is reached.

    Returns:
        seconds and values after each epoch; `seconds_to_target`, None if it was not reached; `first_epoch`, which is
        longer than the others by what compilation and the choice of convolutions took; and metrics of the test split.
    """
    settings = [*target.overrides, f"trainer={trainer}", f"compile={str(compiled).lower()}", f"out={out}"]
    began = time.perf_counter()
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        config = TrainConfig.of(compose("train", [*settings, "logger=none", "callbacks=none"]))
    splits = load_splits(config)
    loading = time.perf_counter() - began
    torch._dynamo.reset()
    run = build_run(config, splits)
    clock = TargetClock(target, run.trainer.strategy.root_device)
    run.trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    with training_noise(), device_settings(run.trainer.strategy.root_device):
        run.trainer.fit(run.module, run.train_batches(), run.batches(splits.val))
        tested = run.trainer.test(run.module, run.batches(splits.test), verbose=False)
    epochs = np.diff([0.0, *clock.seconds])
    done = target.reached(clock.values[-1])
    return {
        "recipe": " ".join(target.overrides),
        "compiled": compiled,
        "target": f"{target.metric} {target.value}",
        "reached": done,
        "epochs": len(clock.seconds),
        "seconds_to_target": clock.seconds[-1] if done else None,
        "first_epoch": float(epochs[0]),
        "epoch": float(np.median(epochs[1:])) if len(epochs) > 1 else None,
        "loading": loading,
        "best": max(clock.values) if target.largest else min(clock.values),
        "seconds": clock.seconds,
        "values": clock.values,
        "test": {name: float(value) for result in tested for name, value in result.items()},
    }


def in_precision(function: Callable[[Tensor], Any], device: torch.device, precision: str) -> Callable[[Tensor], Any]:
    """A function whose convolutions run in that precision; the networks' heads stay in 32 bits."""

    def run(images: Tensor) -> Any:
        half = PRECISIONS[precision]
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
        try:
            with torch.inference_mode(), torch.autocast(device.type, half) if half else nullcontext():
                return function(images)
        finally:
            torch.backends.cudnn.allow_tf32 = before

    return run


def inference_speed(
    network: FaceNetwork, device: torch.device, batch_size: int, precision: str, seconds: float = 0.4
) -> dict[str, Any]:
    """Faces per second of a network on the device, for images that are there already; the median of five rounds."""
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    images = torch.randint(0, 256, (batch_size, 1, CROP_SIZE, CROP_SIZE), dtype=torch.uint8, device=device)
    run = in_precision(network, device, precision)
    for _ in range(3):
        run(images)
    rates = []
    for _ in range(5):
        synchronize(device)
        began, calls = time.perf_counter(), 0
        while time.perf_counter() - began < seconds / 5:
            for _ in range(4):
                run(images)
            calls += 4
            synchronize(device)
        rates.append(batch_size * calls / (time.perf_counter() - began))
    return {
        "task": network.task,
        "batch_size": batch_size,
        "precision": precision,
        "faces_per_second": float(np.median(rates)),
    }


def extreme_images(device: torch.device, count: int) -> dict[str, Tensor]:
    """Black, white, noise, and stripes of black and white: uint8 (N, 1, 96, 96)."""
    shape = (count, 1, CROP_SIZE, CROP_SIZE)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stripes = torch.zeros(shape, dtype=torch.uint8)
    stripes[..., ::2] = 255
    found = {"black": torch.zeros(shape, dtype=torch.uint8), "white": torch.full(shape, 255, dtype=torch.uint8)}
    return {name: images.to(device) for name, images in (found | {"noise": noise, "stripes": stripes}).items()}


def half_precision_errors(
    network: FaceNetwork, device: torch.device, precision: str, count: int
) -> list[dict[str, Any]]:
    """Whether all features and answers are finite in a precision, and by how much the answers differ from 32 bits."""
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    exact, other = in_precision(network, device, "fp32"), in_precision(network, device, precision)
    features = in_precision(network.features, device, precision)
    return [
        {
            "task": network.task,
            "precision": precision,
            "images": name,
            "finite": bool(features(images).isfinite().all() & other(images).isfinite().all()),
            "largest_difference": float((other(images) - exact(images)).abs().max()),
        }
        for name, images in extreme_images(device, count).items()
    ]


def bundled_network(task: Task) -> FaceNetwork:
    """The network that comes with the package."""
    return load_network("bundled", task).network
