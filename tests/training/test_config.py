"""Settings that are refused, each with one clear line."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from emotion_ai.errors import ConfigError
from emotion_ai.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

QUICK = [
    "model.encoder.widths=[8,16]",
    "model.encoder.depths=[1,1]",
    "data.count=200",
    "batch_size=32",
    "ema_decay=0.5",
]


def config(*overrides: str) -> DictConfig:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return compose("train", list(overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.split=[0.8,0.1,0.1]", "data.folds=5"], "contradict"),
        (["data.split=[0.8,0.2]"], "data.split must be a list of 3 values, each a number >= 0 and <= 1 or null"),
        (["data.folds=3", "data.fold=3"], "data.fold must be an integer < 3"),
        (["data.fold=3"], "needs the number of folds"),
        (["data.folds=1"], "data.folds must be an integer >= 2 or null, got 1"),
        (["data.folds=2.5"], "data.folds must be an integer >= 2 or null, got 2.5"),
        (["data.split=abc"], "data.split must be a list of 3 values"),
        (["data.split=[0.8,0.1,x]"], "data.split must be a list of 3 values"),
        (["data.val=1.5"], "data.val must be a number > 0 and < 1 or text, got 1.5"),
        (["data.val=0.2", "data.split=[0.8,0.1,0.1]"], "data.val=0.2 and data.split contradict"),
        (["data.test=synthetic", "data.folds=3"], "data.test and data.folds contradict"),
        (["epochs=0"], "epochs must be an integer >= 1, got 0"),
        (["epochs=abc"], "epochs must be an integer >= 1, got abc"),
        (["epochs=null"], "epochs must be an integer >= 1, got null"),
        (["batch_size=true"], "batch_size must be an integer >= 1, got True"),
        (["seed=abc"], "seed must be an integer >= 0 and <= 2147483647, got abc"),
        (["ema_decay=1"], "ema_decay must be a number >= 0 and < 1, got 1"),
        (["ema_decay=nan"], "ema_decay must be a number"),
        (["patience=-1"], "patience must be an integer >= 0 or null, got -1"),
        (["test=2"], "test must be true or false, got 2"),
        (["teacher_shift_px=-1"], "teacher_shift_px must be an integer >= 0 and <= 48, got -1"),
        (["teacher_shift_px=2"], "no effect without teachers"),
        (["optimizer.lr=-1"], "optimizer.lr must be a number >= 0, got -1"),
        (["optimizer._target_=torch.optim.Lion"], "optimizer: "),
        (["+optimizer.momentum=0.9"], "optimizer: .*momentum"),
        (["scheduler.pct_start=1"], "scheduler.pct_start must be a number > 0 and < 1, got 1"),
        (
            ["+scheduler.final_factor=1"],
            "unknown setting scheduler.final_factor; did you mean scheduler.final_div_factor",
        ),
        (["task.augment.rotation=x"], "task.augment.rotation must be a number >= 0, got x"),
        (["task.augment.flip=2"], "task.augment.flip must be a number >= 0 and <= 1, got 2"),
        (["task.augment.erasing_size=[0.4,0.1]"], "erasing_size must be .smallest, largest."),
        (["task=emotion", "task.dropout=7"], "task.dropout must be a number >= 0 and < 1, got 7"),
        (["task=emotion", "task.label_smoothing=3"], "task.label_smoothing must be a number >= 0 and <= 1, got 3"),
        (["task=emotion", "task.vote_weight=3"], "task.vote_weight must be a number >= 0 and <= 1, got 3"),
        (["task=emotion", "task.mixup=-1"], "task.mixup must be a number >= 0, got -1"),
        (["task=emotion", "data.count=30"], "the validation split has 3 faces and needs 5"),
        (["task=emotion", "+model.head.name=heatmap"], "model.head is for task=keypoints"),
        (["model.encoder.name=vgg"], "unknown encoder"),
        (["+epoch=3"], "unknown setting epoch; did you mean epochs"),
        (["+trainer.fast_run=true"], "unknown setting trainer.fast_run; did you mean trainer.fast_dev_run"),
        (["+trainer.max_epochs=3"], "trainer.max_epochs is set by train; give epochs="),
        (["+trainer.logger=false"], "trainer.logger is set by train; choose logger="),
        (["trainer.accelerator=abacus"], "Lightning refuses .*abacus"),
    ],
)
def test_settings_that_do_not_fit(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(config(*QUICK, f"out={tmp_path / 'run'}", *overrides))
