"""Training as it is measured: random faces, `train`'s own network, Trainer and batches, and a clock for its stages."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_module
from pytorch_lightning.profilers import Profiler

from emotion_ai.contract import CROP_SIZE, EMOTIONS, KEYPOINTS, MEAN_FACE, Task
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.splits import DataSplits
from emotion_ai.training.config import TrainConfig
from emotion_ai.training.train import Run, build_run, device_settings

STAGES = ("gather and resize", "augment", "forward", "backward", "optimizer", "average", "other")
INPUT = STAGES[:2]
"""The stages of the input pipeline."""
_ACTIONS = {
    ".train_dataloader_next": "gather and resize",
    ".augmented": "augment",
    ".training_step": "forward",
    ".backward": "backward",
    ".optimizer_step": "optimizer",
    "EMAWeightAveraging.on_train_batch_end": "average",
    "run_training_epoch": "other",
}
"""Ends of the names of Lightning's actions, and ours; what runs within another one is not counted with it."""


@dataclass(frozen=True)
class TrainingSetting:
    """What is trained, and how.

    Attributes:
        experiment: its network, augmentation and optimizer.
        trainer: of conf/trainer: "cpu", "cpu_bf16" or "gpu".
        precision: as of Lightning's Trainer; None takes that of `trainer`.
        overrides: further settings of `train`.
    """

    task: Task
    experiment: str
    batch_size: int
    trainer: str
    precision: str | None = None
    compile: bool = False
    overrides: tuple[str, ...] = ()

    def config(self, out: Path, epochs: int) -> TrainConfig:
        """The settings of a run that only trains."""
        settings = [
            f"experiment={self.experiment}",
            f"trainer={self.trainer}",
            f"batch_size={self.batch_size}",
            f"compile={str(self.compile).lower()}",
            f"epochs={epochs}",
            f"out={out}",
            "patience=null",
            "logger=none",
            "callbacks=none",
            "+trainer.limit_val_batches=0",
            *([f"trainer.precision={self.precision}"] if self.precision else []),
            *self.overrides,
        ]
        with initialize_config_module("emotion_ai_conf", version_base="1.3"):
            return TrainConfig.of(compose("train", settings))


def random_faces(task: Task, count: int, seed: int = 0) -> FaceDataset:
    """Noise at the size of the real datasets: 48x48 for emotion, 96x96 for keypoints."""
    rng = np.random.default_rng(seed)
    side = CROP_SIZE if task == "keypoints" else CROP_SIZE // 2
    images = rng.integers(0, 256, (count, side, side), dtype=np.uint8)
    points = np.asarray(MEAN_FACE, np.float32).reshape(len(KEYPOINTS), 2)
    moved = (points + rng.normal(0, 2, (count, *points.shape))).astype(np.float32)
    targets = moved if task == "keypoints" else rng.integers(0, len(EMOTIONS), count)
    return FaceDataset(task, images, targets, np.full(count, "", "U11"), "random", "")


def build(setting: TrainingSetting, out: Path, batches: int, epochs: int) -> Run:
    """A run over `batches` batches of random faces."""
    faces = random_faces(setting.task, setting.batch_size * batches)
    return build_run(setting.config(out, epochs), DataSplits(faces, faces[:10], faces[:10], "random"))


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class StageClock(Profiler):
    """Seconds of each stage of training steps. On a GPU each stage waits for the device, so that steps take longer."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._running: list[str] = []
        self._since = 0.0

    def start(self, action_name: str) -> None:
        if stage := _stage(action_name):
            self._change(self._running[-1] if self._running else None)
            self._running.append(stage)

    def stop(self, action_name: str) -> None:
        if _stage(action_name) and self._running:
            self._change(self._running.pop())

    def _change(self, stage: str | None) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        if stage is not None:
            self.seconds[stage] += now - self._since
        self._since = now


def _stage(action: str) -> str | None:
    return next((stage for end, stage in _ACTIONS.items() if action.endswith(end)), None)


@dataclass
class EpochClock(pl.Callback):
    """Seconds of each training epoch.

    Attributes:
        before, after: called at the epoch's ends, the latter with its seconds.
    """

    device: torch.device
    before: Callable[[], object] = lambda: None
    after: Callable[[float], object] = lambda _: None
    seconds: list[float] = field(default_factory=list)
    _since: float = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before()
        synchronize(self.device)
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(self.device)
        self.seconds.append(time.perf_counter() - self._since)
        self.after(self.seconds[-1])


def fit(run: Run, clock: EpochClock, stages: StageClock | None = None, before: pl.Callback | None = None) -> None:
    """Trains the run, under the clocks; `before` is called before them."""
    run.trainer.callbacks[:0] = [clock] if before is None else [before, clock]  # type: ignore[attr-defined]
    if stages is not None:
        run.trainer.profiler = stages  # type: ignore[attr-defined]
        augmented = run.module.augmented

        def timed(*arguments: Any) -> Any:
            with stages.profile(".augmented"):
                return augmented(*arguments)

        run.module.augmented = timed  # type: ignore[method-assign, assignment]
    with training_noise(), device_settings(run.trainer.strategy.root_device):
        run.trainer.fit(run.module, run.train_batches())


@contextmanager
def training_noise() -> Iterator[None]:
    """Without Lightning's advice on data loaders that are not there."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class StageTimes:
    """A training step, by stage.

    Attributes:
        milliseconds: of each of `STAGES`.
        images_per_second: without waiting for the device between the stages.
        memory: the largest number of bytes of tensors on a GPU.
        start_seconds: of the first epoch, with all compilation.
    """

    setting: TrainingSetting
    milliseconds: dict[str, float]
    images_per_second: float
    memory: int | None
    start_seconds: float

    @property
    def input_share(self) -> float:
        """The input pipeline's share of a step."""
        return sum(self.milliseconds[stage] for stage in INPUT) / sum(self.milliseconds.values())


def measure_stages(setting: TrainingSetting, out: Path, batches: int = 20, epochs: int = 3) -> StageTimes:
    """Trains twice: for the throughput, and for the stages. The first epoch of each is left out.

    Args:
        out: an empty folder.
        batches: of an epoch.
        epochs: that are measured.
    """
    torch._dynamo.reset()  # each module would add to the versions of one function, whose number is limited
    run = build(setting, out / "throughput", batches, epochs + 1)
    device = run.trainer.strategy.root_device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock = EpochClock(device)
    fit(run, clock)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    rate = setting.batch_size * batches / float(np.median(clock.seconds[1:]))
    staged = build(setting, out / "stages", batches, epochs + 1)
    stages = StageClock(device)
    parts: list[dict[str, float]] = []

    def keep(_: float) -> None:
        parts.append(stages.seconds)
        stages.reset()

    fit(staged, EpochClock(device, after=keep), stages)
    milliseconds = {name: 1000 * float(np.median([part[name] for part in parts[1:]])) / batches for name in STAGES}
    return StageTimes(setting, milliseconds, rate, memory, clock.seconds[0])
