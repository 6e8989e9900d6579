"""Sweeps: what is tried, that a sweep goes on where it stopped, and pruning."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sqlalchemy import Engine, event

from emotion_ai.errors import ConfigError
from emotion_ai.files import locked_folder
from emotion_ai.schema import bind
from emotion_ai.studies import sweep as module
from emotion_ai.studies.sweep import sweep
from emotion_ai.studies.trials import Report, SweepConfig, open_study
from emotion_ai.training import train as training
from emotion_ai.training.modules import KeypointModule
from emotion_ai.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

QUICK = [
    *("task=keypoints", "model.encoder.widths=[8,16]", "model.encoder.depths=[1,1]", "data.count=60", "batch_size=32"),
    *("ema_decay=0.5", "epochs=2", "logger=none", "callbacks=none", "test=true"),
    *("sweep.trials=4", "sweep.start=2", "sweep.prune=false"),
]
SETTINGS = {"trials": 1, "workers": 1, "sampler": "tpe", "prune": False, "prune_after": 0, "start": 1}


def config(out: Path, *overrides: str) -> DictConfig:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return compose("train", ["sweep=default", *QUICK, f"out={out}", *overrides])


@pytest.fixture
def recipe(tmp_path: Path) -> DictConfig:
    cfg = config(tmp_path)
    del cfg.sweep
    return cfg


def trials(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "sweep.json").read_text())["trials"]
    return found


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, r"sweep\.space is empty"),
        ({"optimizer": {"lr": 3}}, r"sweep\.space\.optimizer\.lr=3: give optimizer\.lr\.low"),
        ({"optimizer": {"lr": {"low": 1.0}}}, r"sweep\.space\.optimizer\.lr\.high is missing"),
        ({"optimizer": {"lr": {"low": 1.0, "high": 0.5}}}, r"sweep\.space\.optimizer\.lr: "),
        ({"optimizer": {"lr": {"low": 0.0, "high": 0.5, "log": True}}}, r"sweep\.space\.optimizer\.lr: "),
        ({"optimizer": {"lr": {"low": 0.0, "high": float("inf")}}}, r"sweep\.space\.optimizer\.lr"),
        ({"epochs": {"low": 1, "high": 10, "step": 4}}, r"sweep\.space\.epochs: "),
        ({"epochs": {"low": 1, "high": 10, "base": 4}}, r"unknown setting sweep\.space\.epochs\.base"),
        ({"epochs": {"choices": []}}, r"sweep\.space\.epochs: "),
        ({"epochs": {"choices": 3}}, r"sweep\.space\.epochs\.choices must be a list"),
        ({"epochs": {"low": 1, "high": 10, "step": 0}}, r"sweep\.space\.epochs: `step > 0` must hold, but got step=0"),
        (
            {"ema_decay": {"low": 0, "high": 0.5, "step": 0}},
            r"sweep\.space\.ema_decay: `step > 0` must hold, but got step=0",
        ),
        ({"epochs": {"low": 1.5, "high": 10}}, r"sweep\.space\.epochs: epochs must be an integer >= 1, got 1\.5"),
        ({"epochs": {"low": 0, "high": 10}}, r"sweep\.space\.epochs: epochs must be an integer >= 1, got 0"),
        ({"ema_decay": {"low": 0, "high": 1}}, r"sweep\.space\.ema_decay: ema_decay must be .* < 1, got 1\.0"),
        ({"epochs": {"choices": [1, "two"]}}, r"sweep\.space\.epochs: epochs must be an integer >= 1, got two"),
        (
            {"optimizer": {"lr": {"choices": [0.1, "a"]}}},
            r"sweep\.space\.optimizer\.lr: optimizer\.lr must be a number",
        ),
        ({"optimizer": {"betas": {"choices": [[0.9, 0.9]]}}}, r"sweep\.space\.optimizer\.betas: is a list or a group"),
        ({"optimizer": {"choices": [1]}}, r"sweep\.space\.optimizer: is a list or a group"),
        (
            {"optimizer": {"lr": {"choices": [[1, 2]]}}},
            r"sweep\.space\.optimizer\.lr: choices must be different numbers",
        ),
        ({"optimizer": {"lr": {"choices": [{"a": 1}]}}}, r"sweep\.space\.optimizer\.lr: choices must be different"),
        (
            {"optimizer": {"lr": {"choices": [0.1, float("nan")]}}},
            r"sweep\.space\.optimizer\.lr: choices must be different",
        ),
        ({"optimizer": {"lr": {"choices": [1, True]}}}, r"sweep\.space\.optimizer\.lr: choices must be different"),
        ({"compile": {"low": 0, "high": 1}}, r"sweep\.space\.compile: the recipe's value False is no number"),
        ({"model": {"encoder": {"name": {"low": 0, "high": 1}}}}, r"encoder\.name: the recipe's value residual is no"),
        (
            {"optimizer": {"lr": {"low": 1, "high": 2, "choices": [1]}}},
            r"sweep\.space\.optimizer\.lr has bounds and choices",
        ),
        ({"out": {"choices": ["x", "y"]}}, r"sweep\.space\.out: is the same in all trials; leave it out"),
        ({"resume": {"choices": [True]}}, r"sweep\.space\.resume: is the same in all trials"),
        ({"test": {"choices": [True, False]}}, r"sweep\.space\.test: is the same in all trials"),
        ({"seed": {"low": 0, "high": 9}}, r"sweep\.space\.seed: is the same in all trials"),
        ({"data": {"count": {"low": 50, "high": 90}}}, r"sweep\.space\.data\.count: is the same in all trials"),
        ({"task": {"name": {"choices": ["emotion", "keypoints"]}}}, r"sweep\.space\.task\.name: "),
        ({"epochs": {"low": {"low": 1, "high": 2}, "high": 3}}, r"sweep\.space\.epochs\.low must be a number"),
        ({"epochs": {"5": {"low": 1, "high": 2}}}, r"the recipe has no setting epochs\.5"),
        (
            {"task": {"augment": {"erasing_size": {"a": {"low": 0, "high": 1}}}}},
            r"sweep\.space\.task\.augment\.erasing_size\.a: Index 'a'",
        ),
    ],
    ids=str,
)
def test_a_space_that_makes_no_sense_is_refused(space: dict[str, Any], message: str, recipe: DictConfig) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        bind(SweepConfig, SETTINGS | {"space": space}, "sweep.").distributions(recipe)
    assert "\n" not in str(refused.value)


def test_what_may_be_tried(recipe: DictConfig) -> None:
    space = {
        "ema_decay": {"low": 0, "high": 0},
        "patience": {"low": 1, "high": 4},
        "epochs": {"low": 1, "high": 9, "step": 4},
        "optimizer": {"lr": {"low": 1, "high": 2.0}},
        "model": {"encoder": {"name": {"choices": ["residual", None]}}},
        "task": {"augment": {"erasing_size": {"0": {"low": 0.1, "high": 0.2}}}},
    }
    OmegaConf.update(recipe, "patience", None)
    found = bind(SweepConfig, SETTINGS | {"space": space}, "sweep.").distributions(recipe)
    assert found == {
        "ema_decay": FloatDistribution(0.0, 0.0),
        "patience": IntDistribution(1, 4),
        "epochs": IntDistribution(1, 9, step=4),
        "optimizer.lr": FloatDistribution(1.0, 2.0),
        "model.encoder.name": CategoricalDistribution(("residual", None)),
        "task.augment.erasing_size.0": FloatDistribution(0.1, 0.2),
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+sweep.space.nobody.low=1", r"sweep\.space\.nobody\.high is missing"),
        ("+sweep.space.nobody.choices=[1,2]", "the recipe has no setting nobody"),
        ("sweep.trials=0", r"sweep\.trials must be an integer >= 1"),
        ("sweep.sampler=grid", r"sweep\.sampler must be tpe or random"),
        ("+sweep.other=1", r"unknown setting sweep\.other"),
    ],
)
def test_settings_that_do_not_fit_are_refused(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(config(tmp_path, override))


def test_train_refuses_a_sweeps_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting sweep"):
        train(config(tmp_path))


def test_a_stopped_sweep_tries_what_a_whole_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = sweep(config(tmp_path / "whole"))
    whole = trials(tmp_path / "whole")
    assert [trial["state"] for trial in whole] == ["complete"] * 4
    assert whole[0]["tried"] == {"optimizer.lr": 0.002, "optimizer.weight_decay": 0.05}, "the recipe unchanged"
    assert len({json.dumps(trial["tried"]) for trial in whole}) == 4
    assert all(1e-4 <= trial["tried"]["optimizer.lr"] <= 1e-2 for trial in whole)
    assert all(len(trial["epochs"]) == 2 for trial in whole)
    assert best == min(whole, key=lambda trial: trial["value"])["tried"]
    assert (tmp_path / "whole" / "sweep.png").stat().st_size > 5000
    record = json.loads((tmp_path / "whole" / "trial-0001" / "run.json").read_text())
    assert record["config"]["optimizer"]["lr"] == whole[1]["tried"]["optimizer.lr"]
    assert record["metrics"]["val/rmse"] == whole[1]["value"]
    assert not any(name.startswith("test/") for name in record["metrics"])

    trained: list[str] = []

    def stopping(cfg: DictConfig) -> Any:
        if len(trained) in (1, 3):
            trained.append(Path(cfg.out).name)
            raise KeyboardInterrupt
        trained.append(Path(cfg.out).name)
        return train(cfg)

    monkeypatch.setattr(training, "train", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sweep(config(tmp_path / "stopped"))
    assert sweep(config(tmp_path / "stopped")) == best
    assert trials(tmp_path / "stopped") == whole
    assert trained == ["trial-0000", "trial-0001", "trial-0001", "trial-0002", "trial-0002", "trial-0003"]

    sweep(config(tmp_path / "stopped", "sweep.trials=5"))
    assert trials(tmp_path / "stopped")[:4] == whole
    assert len(trained) == 7
    with pytest.raises(ConfigError, match=r"made with train\.epochs=2; give another out"):
        sweep(config(tmp_path / "stopped", "epochs=3"))
    with pytest.raises(ConfigError, match=r"made with sweep\.space\.optimizer\.lr\.low=0\.0001; give another out"):
        sweep(config(tmp_path / "stopped", "sweep.space.optimizer.lr.low=2e-4"))
    with locked_folder(tmp_path / "stopped"), pytest.raises(ConfigError, match="another process writes to this folder"):
        sweep(config(tmp_path / "stopped"))
    (tmp_path / "stopped" / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match=r"study\.db: cannot be used"):
        sweep(config(tmp_path / "stopped"))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_kill_between_any_two_writes_changes_nothing(
    sampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run", _trained)
    monkeypatch.setattr(module, "trials_plot", lambda *_: None)
    monkeypatch.setattr(module, "save", lambda *_: None)
    chosen = [f"sweep.sampler={sampler}", "sweep.prune=true", "sweep.prune_after=0", "sweep.start=1"]
    cfg, file = config(tmp_path, *chosen), tmp_path / "study.db"
    open_study(tmp_path, "min", bind(SweepConfig, SETTINGS | {"space": {}}))
    left: dict[bytes, None] = {}

    def remember(*_: Any) -> None:
        left[file.read_bytes()] = None

    event.listen(Engine, "before_cursor_execute", remember)
    try:
        sweep(cfg)
    finally:
        event.remove(Engine, "before_cursor_execute", remember)
    whole = trials(tmp_path)
    assert [trial["state"] for trial in whole] == ["complete", "pruned", "fail", "complete"]
    assert len(left) > 4 * 2, "each trial is made and ended"
    for content in left:  # what a kill leaves at one of these moments
        file.write_bytes(content)
        sweep(cfg)
        assert trials(tmp_path) == whole


def _trained(cfg: DictConfig) -> SimpleNamespace:
    """Stands for a training run of one epoch, whose metric depends on the trial's number alone."""
    own = {key: value for key, value in cfg.callbacks.sweep.items() if key != "_target_"}
    metrics = {"val/rmse": [0.3, 0.5, math.inf, 0.1][own["number"]]}
    if own["number"] < 2:
        trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"), callback_metrics=metrics, current_epoch=0)
        Report(**own).on_validation_end(trainer, KeypointModule)  # type: ignore[arg-type]
    return SimpleNamespace(metrics=metrics)


def test_a_hopeless_trial_is_pruned_and_a_failed_one_is_left_out(tmp_path: Path) -> None:
    space = ["~sweep.space.optimizer.weight_decay", "~sweep.space.optimizer.lr"]
    choices = "+sweep.space.optimizer.lr.choices=[0.002,3.0,1e30]"
    pruning = ["sweep.prune=true", "sweep.start=1", "sweep.prune_after=0", "sweep.trials=6", "sweep.sampler=random"]
    best = sweep(config(tmp_path, *space, choices, *pruning, "seed=3"))
    found = trials(tmp_path)
    assert best == {"optimizer.lr": 0.002}
    assert len(found) == 6
    states = {lr: {t["state"] for t in found if t["tried"]["optimizer.lr"] == lr} for lr in (0.002, 3.0, 1e30)}
    assert states == {0.002: {"complete"}, 3.0: {"pruned"}, 1e30: {"fail"}}
    pruned = next(trial for trial in found if trial["state"] == "pruned")
    assert len(pruned["epochs"]) == 1
    assert pruned["value"] is None
    assert "nan after epoch 0; give a lower optimizer.lr" in next(t for t in found if t["state"] == "fail")["error"]


def test_the_first_trial_is_drawn_where_the_recipe_lies_outside_the_space(tmp_path: Path) -> None:
    sweep(config(tmp_path, "sweep.space.optimizer.lr.low=3e-3", "sweep.trials=1", "epochs=1"))
    assert trials(tmp_path)[0]["tried"]["optimizer.lr"] >= 3e-3


def test_an_error_of_the_recipe_itself_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trainer=ddp"):
        sweep(config(tmp_path, "trainer=ddp"))


def test_two_workers_try_what_one_does_also_after_one_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = ["sweep.sampler=random", "sweep.trials=2", "epochs=1"]
    sweep(config(tmp_path / "1", *random))
    cfg = config(tmp_path / "2", *random, "sweep.workers=2")
    with monkeypatch.context() as patched:
        patched.setattr(module, "_work", _die)
        with pytest.raises(ConfigError, match="the process of trial [01] ended with -9"):
            sweep(cfg)
    sweep(cfg)
    one, two = trials(tmp_path / "1"), trials(tmp_path / "2")
    assert [trial["tried"] for trial in one] == [trial["tried"] for trial in two]
    np.testing.assert_allclose([t["value"] for t in one], [t["value"] for t in two], rtol=1e-3)


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_command_reads_its_settings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emotion_ai.cli", "sweep", "sweep.trials=0", f"out={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr == "error: sweep.trials must be an integer >= 1, got 0\n"


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(tmp_path: Path) -> None:
    chosen = [argument for argument in QUICK if argument != "test=true"]
    command = [sys.executable, "-m", "emotion_ai.cli", "sweep", *chosen, "sweep.prune=true", "sweep.prune_after=1"]
    subprocess.run([*command, f"out={tmp_path / 'whole'}"], check=True, timeout=300)
    rng = np.random.default_rng(0)
    started = time.monotonic()
    subprocess.run([*command, f"out={tmp_path / 'timed'}"], check=True, timeout=300)
    duration = time.monotonic() - started
    for _ in range(4):
        with subprocess.Popen([*command, f"out={tmp_path / 'killed'}"]) as process:
            time.sleep(rng.uniform(0.4, 0.9) * duration)
            process.kill()
    subprocess.run([*command, f"out={tmp_path / 'killed'}"], check=True, timeout=300)
    assert trials(tmp_path / "killed") == trials(tmp_path / "whole") == trials(tmp_path / "timed")
