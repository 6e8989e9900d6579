"""The training stage: a plain function of a config."""

import logging
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig
from pytorch_lightning import seed_everything
from pytorch_lightning.utilities.exceptions import SIGTERMException

from emotion_ai.data.batches import Batches
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.splits import DataSplits, build_splits
from emotion_ai.errors import TERMINATED, ConfigError
from emotion_ai.evaluation.calibration import FOLDS
from emotion_ai.files import locked_folder, write_json
from emotion_ai.models import load_network, save_network
from emotion_ai.models.device import exact_float32
from emotion_ai.provenance import RunRecord, environment
from emotion_ai.training.allocator import keep_freed_memory
from emotion_ai.training.calibrate import calibrate
from emotion_ai.training.config import EmotionTask, TrainConfig, recorded_settings
from emotion_ai.training.modules import FaceModule
from emotion_ai.training.networks import build_module
from emotion_ai.training.run_folder import PreviousRun, check_same_data, choose_best, previous_run
from emotion_ai.training.trainer import Callbacks, build_trainer

# TensorBoard's own switch for doing without TensorFlow, which it would otherwise import where it is installed
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its notices of devices that are not there


def train(cfg: DictConfig) -> dict[str, float]:
    """Trains one network; writes `network.safetensors`, `best.ckpt`, `last.ckpt`, `run.json` and logs into `cfg.out`.

    `network.safetensors` has the weights of the best epoch on the validation split, calibrated there. The test split is
    evaluated once, at the end; with `test=false` not at all. With `trainer.fast_dev_run` nothing is written.

    With `resume=true` training goes on after the last complete epoch of the folder. The best epoch is the best of all
    that the folder has seen. `epochs` and `patience` may be others than before, and the learning rate then follows the
    schedule of the new length; all else must be the same.

    Returns:
        Metrics of these weights: "val/..." and "test/...".

    Raises:
        DataError: a dataset that cannot be used.
        CheckpointError: the checkpoint to resume from is damaged or of another task.
        ConfigError: settings that contradict each other, or an output folder that is in use.
        KeyboardInterrupt: Ctrl-C. Training can be resumed.
        SystemExit: SIGTERM, with code 143. Training can be resumed.
    """
    config, settings = TrainConfig.of(cfg), recorded_settings(cfg)
    writes = not config.trainer.get("fast_dev_run") and getattr(rank_zero_only, "rank", 0) == 0
    with locked_folder(Path(config.out)) if writes else nullcontext():
        return _train(config, settings, previous_run(config, settings))


def _train(config: TrainConfig, settings: dict[str, Any], previous: PreviousRun) -> dict[str, float]:
    out, splits = Path(config.out), load_splits(config)
    if config.task.name == "emotion" and len(splits.val) < FOLDS:  # calibration would fail after training
        raise ConfigError(f"the validation split has {len(splits.val)} faces and needs {FOLDS}; give more data")
    check_same_data(previous.records, splits.record())
    if previous.last:  # has all weights, so the file may be gone
        config = replace(config, model=replace(config.model, weights=None))
    run = build_run(config, splits)
    module, trainer, callbacks = run.module, run.trainer, run.callbacks
    module.record = RunRecord(settings, splits.record(), **environment())
    if previous.scores:
        callbacks.best.keep(choose_best(out, previous, module.mode))
    names = ("confident_accuracy", "neutral_risk") if isinstance(config.task, EmotionTask) else ()
    wanted = {name: getattr(config.task, name) for name in names}
    with _lightning(), device_settings(trainer.strategy.root_device):
        trainer.fit(module, run.train_batches(), run.batches(splits.val), ckpt_path=previous.last, weights_only=True)
        if callbacks.best.best_model_path:  # else no epoch was validated, and the last averaged weights are kept
            network, _ = load_network(callbacks.best.best_model_path, module.network.task)
            module.network.load_state_dict(network.state_dict())
        module.network.eval()
        calibration = calibrate(module.network, splits.val, **wanted)
        trainer.callbacks.remove(callbacks.ema)  # type: ignore[attr-defined]  # it would evaluate the last epoch's weights
        results = trainer.validate(module, run.batches(splits.val), verbose=False)
        if config.test:
            results += trainer.test(module, run.batches(splits.test), verbose=False)
    metrics = {name: value for result in results for name, value in result.items()}
    if trainer.is_global_zero and not config.trainer.get("fast_dev_run"):
        record = replace(module.record, metrics=metrics, calibration=calibration, epochs=trainer.current_epoch)
        (out / "run.json").unlink(missing_ok=True)  # where it lies, it is that of the network beside it
        save_network(module.network, out / "network.safetensors", record)
        write_json(out / "run.json", replace(record, seconds=round(callbacks.timer.time_elapsed("train"), 1)).as_dict())
    return metrics


@dataclass(frozen=True)
class Run:
    """What a training run consists of."""

    config: TrainConfig
    splits: DataSplits
    module: FaceModule
    trainer: pl.Trainer
    callbacks: Callbacks

    def batches(self, faces: FaceDataset, shuffle_seed: int | None = None) -> Batches:
        trainer, size = self.trainer, self.config.batch_size
        device, rank, world = trainer.strategy.root_device, trainer.global_rank, trainer.world_size
        return Batches(faces, size, device, lambda: trainer.current_epoch, shuffle_seed, rank, world)

    def train_batches(self) -> Batches:
        vote_weight = self.config.task.vote_weight if isinstance(self.config.task, EmotionTask) else 0.0
        return self.batches(soft_targets(self.splits.train, vote_weight), self.config.seed)


def build_run(config: TrainConfig, splits: DataSplits) -> Run:
    """Network and Trainer of a run; the seed is set.

    Raises:
        ConfigError: as `build_module` and `build_trainer`, or there is no compiler for `compile`.
    """
    if config.compile and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++", "gcc", "cl"))):
        raise ConfigError("compile=true needs a C++ compiler, and there is none; install g++, or give compile=false")
    seed_everything(config.seed, verbose=False)
    module = build_module(config, splits)
    if config.compile:
        module.compile_step()
    return Run(config, splits, module, *build_trainer(config, module.monitor, module.mode))


def load_splits(config: TrainConfig) -> DataSplits:
    """The train, val and test splits of a run."""
    return build_splits(config.task.name, config.data, config.seed, config.classes.class_set)


def soft_targets(faces: FaceDataset, vote_weight: float) -> FaceDataset:
    """Faces whose targets are distributions, float32 (N, K), if there are votes; else unchanged.

    A labelled face has its label and the votes for the classes, mixed by `vote_weight`, or its label alone if
    nobody voted for any of them. A face with another label has its votes; they add up to less than 1, so it weighs
    less in the loss.
    """
    if faces.votes is None:
        return faces
    labelled, total = faces.targets >= 0, faces.votes.sum(1, keepdims=True)
    labels = np.eye(len(faces.classes), dtype=np.float32)[faces.targets]
    votes = np.where(total > 0, faces.votes / np.maximum(total, 1e-9), labels)
    mixed = np.where(labelled[:, None], (1 - vote_weight) * labels + vote_weight * votes, faces.votes)
    return replace(faces, targets=mixed.astype(np.float32))


@contextmanager
def device_settings(device: torch.device) -> Iterator[None]:
    """The process's settings while it trains: freed memory is kept on a processor, and TF32 is off on a GPU.

    With bfloat16, only the networks' heads compute in 32 bits; TF32 would round their heatmaps to 10 bits.
    """
    with keep_freed_memory() if device.type == "cpu" else exact_float32(device):
        yield


@contextmanager
def _lightning() -> Iterator[None]:
    """Silences warnings that do not apply, and turns Lightning's own refusals and exits into ours."""
    with warnings.catch_warnings():
        # the arrays are in memory: there is no loader whose workers could be more; callbacks of older versions
        warnings.filterwarnings("ignore", ".*(num_workers|treespec|is not empty|need to be provided).*")
        show = threading.excepthook
        # TensorBoard's thread ends when the disk is full; its error is raised again here by the next value to be logged
        threading.excepthook = lambda args: None if isinstance(args.exc_value, OSError) else show(args)
        try:
            yield
        except ValueError as error:  # of a logger that takes a full disk for a value of the wrong kind
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from error
            raise
        except MisconfigurationException as error:
            raise ConfigError(f"Lightning refuses these settings: {error}") from error
        except SIGTERMException as stop:  # exits with 0
            raise SystemExit(TERMINATED) from stop
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # exits with 1
                raise KeyboardInterrupt from stop
            raise
        finally:
            threading.excepthook = show
