"""Lightning's Trainer from settings: callbacks, loggers and the user's own arguments."""

import inspect
import io
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    ProgressBar,
    Timer,
)
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from emotion_ai.errors import ConfigError
from emotion_ai.files import atomic_path
from emotion_ai.schema import unknown_key
from emotion_ai.training.config import TrainConfig
from emotion_ai.training.optim import build

_DEFAULTS = {"num_sanity_val_steps": 0, "enable_model_summary": False, "log_every_n_steps": 1}
_OURS = {
    "max_epochs": "give epochs=",
    "default_root_dir": "give out=",
    "logger": "choose logger=csv, tensorboard, wandb, mlflow, default or none",
    "callbacks": "choose callbacks=default, learning_rate or none, or add +callbacks.NAME._target_=CLASS",
    "enable_checkpointing": "checkpoints are always written; debug=fast writes none",
    "barebones": "use debug=fast, or logger=none callbacks=none",
    "plugins": "checkpoints are written by a plugin of ours",
    "use_distributed_sampler": "batches are always shared between processes",
}
"""Arguments of the Trainer that `train` sets itself, and what to use instead."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all: a killed run keeps the previous one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()  # torch.save itself hides why a file cannot be written
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(Path(path)) as partial:
            partial.write_bytes(content.getbuffer())


class RunCheckpoint(ModelCheckpoint):
    """A file of the run's own folder. Lightning restores absolute paths; this restores none, so folders can be moved.

    Args:
        folder: of the run.
        name: of the file, without its ending.
        monitor, mode: the metric that chooses the best epoch, and "min" or "max"; without, every epoch is saved.
    """

    def __init__(self, folder: Path, name: str, monitor: str | None = None, mode: str = "min") -> None:
        super().__init__(
            folder, name, monitor=monitor, mode=mode, save_on_train_epoch_end=True, enable_version_counter=False
        )

    def state_dict(self) -> dict[str, Any]:
        return {"best_model_score": self.best_model_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def keep(self, score: float) -> None:
        """Takes the file that lies in the folder for the best epoch so far."""
        path, value = self.format_checkpoint_name({}), torch.tensor(score)
        self.best_model_path = self.kth_best_model_path = path
        self.best_model_score = self.current_score = self.kth_value = value
        self.best_k_models = {path: value}


class Patience(EarlyStopping):
    """Stops after `patience` epochs without a better metric; a run that it stopped goes on only with more patience."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= max(self.patience, 1):
            trainer.should_stop = True


class WeightEma(EMAWeightAveraging):
    """Lightning's, with the same numbers, on the module's device and for all tensors at once.

    Lightning's own keeps the averages on the processor if training is on a GPU, and waits for it in every step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self._decay = decay
        self._averages: list[Tensor] = []
        self._current: list[Tensor] = []

    @property
    def state_key(self) -> str:
        return EMAWeightAveraging.__qualname__

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self._average_model is not None
        self._averages, self._current = (
            [tensor.detach() for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
            for module in (self._average_model.module, pl_module)
        )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == self._latest_update_step:  # gradients are accumulated
            return
        assert self._average_model is not None
        if self._latest_update_step == 0:
            torch._foreach_copy_(self._averages, self._current)
        else:
            torch._foreach_mul_(self._averages, self._decay)
            torch._foreach_add_(self._averages, torch._foreach_mul(self._current, 1 - self._decay))
        self._average_model.n_averaged += 1
        self._latest_update_step = trainer.global_step


@dataclass(frozen=True)
class Callbacks:
    """The callbacks that `train` needs again after fitting."""

    ema: WeightEma
    timer: Timer
    best: RunCheckpoint


def build_trainer(config: TrainConfig, monitor: str, mode: str) -> tuple[pl.Trainer, Callbacks]:
    """The Trainer and its own callbacks.

    Args:
        monitor: the validation metric that chooses the best epoch.
        mode: "min" or "max".

    Raises:
        ConfigError: an unknown argument, one that `train` sets itself, or a combination that Lightning refuses.
    """
    known = inspect.signature(pl.Trainer.__init__).parameters
    for name in config.trainer:
        if name in _OURS:
            raise ConfigError(f"trainer.{name} is set by train; {_OURS[name]}")
        if name not in known:
            raise ConfigError(unknown_key(f"trainer.{name}", [f"trainer.{key}" for key in known if key != "self"]))
    out = Path(config.out)
    own = Callbacks(
        WeightEma(config.ema_decay),
        Timer(),
        RunCheckpoint(out, "best", monitor, mode),
    )
    last = RunCheckpoint(out, "last")  # after the best: where it lies, the best epoch so far lies beside it
    callbacks: list[Callback] = [build(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    if config.trainer.get("enable_progress_bar") is False:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    callbacks += [own.ema, own.timer]
    if config.patience is not None:
        callbacks.append(Patience(monitor, mode=mode, patience=config.patience, strict=False))
    defaults = _DEFAULTS | {"benchmark": not config.trainer.get("deterministic")}  # all batches have one shape
    arguments = defaults | {"enable_progress_bar": any(isinstance(c, ProgressBar) for c in callbacks)} | config.trainer
    try:
        trainer = pl.Trainer(
            **arguments,
            max_epochs=config.epochs,
            default_root_dir=out,
            logger=_loggers(config) or False,
            callbacks=[*callbacks, own.best, last],
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,  # Batches gives each process its own share
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        given = ", ".join(f"trainer.{name}={value}" for name, value in config.trainer.items())
        raise ConfigError(f"Lightning refuses {given}: {error}") from error
    return trainer, own


def _loggers(config: TrainConfig) -> list[Logger]:
    for package in ("wandb", "mlflow"):
        if package in config.logger and find_spec(package) is None:
            raise ConfigError(f"logger={package} needs the package {package}: pip install {package}")
    return [build(node, f"logger.{name}") for name, node in config.logger.items()]
