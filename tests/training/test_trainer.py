"""Lightning's Trainer: the user's arguments, loggers, callbacks, optimizers and schedules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ProgressBar
from torch import nn

from emotion_ai.errors import ConfigError
from emotion_ai.training.config import Cosine, OneCycle, Plateau, TrainConfig
from emotion_ai.training.optim import build_optimizer, build_scheduler
from emotion_ai.training.train import train
from emotion_ai.training.trainer import build_trainer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

TINY = ["data.count=60", "epochs=2", "batch_size=16", "ema_decay=0.5", "callbacks=none"]
TINY += ["model.encoder.widths=[8,16]", "model.encoder.depths=[1,1]"]


def config(*overrides: str) -> DictConfig:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return compose("train", list(overrides))


@pytest.mark.parametrize(
    "arguments",
    [
        ["+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1", "+trainer.limit_test_batches=1"],
        ["+trainer.limit_val_batches=0"],
        ["+trainer.max_steps=2"],
        ["+trainer.overfit_batches=1", "scheduler=none"],
        ["+trainer.check_val_every_n_epoch=2", "scheduler=cosine"],
        ["+trainer.num_sanity_val_steps=1", "+trainer.log_every_n_steps=5", "+trainer.enable_model_summary=true"],
        ["+trainer.enable_progress_bar=false", "callbacks=default", "scheduler=plateau"],
        ["+trainer.gradient_clip_val=1.0", "+trainer.accumulate_grad_batches=2", "optimizer=sgd"],
        ["debug=profile", "epochs=1"],
        ["debug=overfit", "callbacks=learning_rate", "logger=csv"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_arguments_of_the_trainer_work(arguments: list[str], tmp_path: Path) -> None:
    logger = [] if any("logger=" in text for text in arguments) else ["logger=none"]
    metrics = train(config(*TINY, *arguments, *logger, f"out={tmp_path / 'run'}"))
    assert all(key.startswith(("val/", "test/")) for key in metrics)
    assert (tmp_path / "run" / "network.safetensors").exists()


def test_the_network_can_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Callable[..., Any]] = []

    def compile_function(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_function)
    train(config(*TINY, "compile=true", "+trainer.fast_dev_run=true", f"out={tmp_path}"))
    assert [function.__name__ for function in compiled] == ["__call__", "outputs_and_loss"]


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_whose_package_is_missing_names_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_ai.training.trainer.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"logger={package} needs the package {package}: pip install {package}"):
        build_trainer(TrainConfig.of(config(f"logger={package}", "out=run")), "val/rmse", "min")


def test_callbacks_and_loggers_are_groups(tmp_path: Path) -> None:
    chosen = TrainConfig.of(config("callbacks=learning_rate", "logger=csv", "patience=null", f"out={tmp_path}"))
    trainer, _ = build_trainer(chosen, "val/rmse", "min")
    kinds = [type(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    assert LearningRateMonitor in kinds
    assert EarlyStopping not in kinds
    assert [type(logger).__name__ for logger in trainer.loggers] == ["CSVLogger"]
    quiet = TrainConfig.of(config("callbacks=none", "logger=none", f"out={tmp_path}"))
    trainer, _ = build_trainer(quiet, "val/rmse", "min")
    assert trainer.loggers == []
    assert not any(isinstance(callback, ProgressBar) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def rates(scheduler: OneCycle | Cosine | Plateau, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    built = build_scheduler(optimizer, scheduler, steps, "val/rmse", "min")
    assert built is not None
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built["scheduler"].step(*([1.0] if isinstance(scheduler, Plateau) else []))
    return found


def test_schedules_have_the_shape_that_their_settings_name() -> None:
    cycle = rates(OneCycle("one_cycle", pct_start=0.5, div_factor=4, final_div_factor=100), 22)
    assert cycle[0] == pytest.approx(1 / 4)
    assert max(cycle) == pytest.approx(1)
    assert cycle.index(max(cycle)) == 10
    assert cycle[-1] == pytest.approx(1 / 400)
    cosine = rates(Cosine("cosine", final_factor=0.1), 11)
    assert cosine[0] == 1
    assert cosine[10] == pytest.approx(0.1, abs=0.03)
    assert rates(Plateau("plateau", factor=0.5, patience=1), 4) == [1, 1, 1, 0.5]


def test_weight_decay_is_for_matrices() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = build_optimizer(
        network, {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.5, "momentum": 0.8}
    )
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(1, 0.5), (3, 0.0)]
    assert optimizer.param_groups[0]["momentum"] == 0.8


def test_patience_stops_a_run_that_does_not_get_better(tmp_path: Path) -> None:
    still = ["optimizer.lr=0", "optimizer.weight_decay=0", "patience=1", "epochs=9", "scheduler=none", "logger=none"]
    train(config(*TINY, *still, f"out={tmp_path}"))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] < 8
