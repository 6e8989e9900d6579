"""Commands that are Hydra applications, from their arguments to their results."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emotion_ai.cli import hydra
from emotion_ai.training import train as training

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

TINY = ["experiment=demo_emotion", "data.count=60", "epochs=1", "batch_size=16", "ema_decay=0.5"]
TINY += ["model.encoder.widths=[8,16]", "model.encoder.depths=[1,1]", "callbacks=none", "logger=none"]
Command = Callable[..., None]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["emotion-ai", "train", *TINY, *arguments])
        hydra.train()

    return command


@pytest.mark.parametrize("out", [["out=swept"], []])
def test_a_sweep_that_was_killed_keeps_the_finished_job_and_completes_the_others(
    out: list[str], train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    real = training.train

    def killed_at(seed: int | None) -> None:
        def counting(cfg: Any) -> Any:
            if cfg.seed == seed:
                raise KeyboardInterrupt
            trained.append(cfg.seed)
            return real(cfg)

        monkeypatch.setattr(training, "train", counting)

    killed_at(1)
    with pytest.raises(KeyboardInterrupt):
        train("-m", "seed=0,1", *out)
    assert trained == [0]
    killed_at(None)
    train("-m", "seed=0,1", *out)
    assert trained == [0, 1]
    records = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.rglob("run.json")}
    assert {name: record["config"]["seed"] for name, record in records.items()} == {"seed=0": 0, "seed=1": 1}
    assert len({path.parents[1] for path in tmp_path.rglob("run.json")}) == 1
    assert (tmp_path / "swept").exists() == bool(out)


@pytest.mark.parametrize("argument", ["+trainer.fast_dev_run=true", "trainer.fast_dev_run=true", "debug=fast"])
def test_a_fast_dev_run_passes_and_saves_nothing(
    argument: str, train: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(argument, "out=run")
    output = capsys.readouterr().out
    assert "accuracy" in output
    assert "nothing is saved" in output
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_error_in_a_job_of_a_sweep_is_one_line(
    train: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train("-m", "epochs=0,1", f"out={tmp_path}")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines() == ["error: epochs must be an integer >= 1, got 0"]


def test_an_old_command_line_trains_with_a_notice(
    train: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("ema=0.25", "data.val=synthetic", "++task.smoothing=0.2", "report=false", f"out={tmp_path / 'run'}")
    (notice,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert "ema is now ema_decay" in notice
    assert "data.val is now data.test" in notice
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["config"]["ema_decay"] == 0.25
    assert record["config"]["task"]["label_smoothing"] == 0.2
    assert record["data"]["how"] == "separate file"
    assert not any(name.startswith("test/") for name in record["metrics"])
