"""Commands that are Hydra applications, from their arguments to their results."""

import json
import os
import resource
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from emotion_ai import cli
from emotion_ai.cli import hydra
from emotion_ai.training import train as training
from emotion_ai.training.trainer import AtomicCheckpointIO

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


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (["train", "out=a b"], "add to the command: 'out=a b' resume=true"),
        (["train", "-m", "seed=0,1"], "start the same command again"),
        (["cross-validate", "data.folds=2", "out=folds"], "add to the command: out=folds"),
    ],
    ids=["run", "sweep", "folds"],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_a_stopped_training_tells_how_to_continue(
    command: list[str],
    advice: str,
    number: int,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["emotion-ai", *command, *TINY, "data.count=150", "epochs=3", "patience=null"])
    real, written = AtomicCheckpointIO.save_checkpoint, 0

    def stopping(*arguments: Any, **named: Any) -> None:
        nonlocal written
        real(*arguments, **named)
        written += 1
        if written == 4:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpointIO, "save_checkpoint", stopping)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert stopped.value.code == code
    (note,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert advice in note
    (left,) = {path.parent for path in tmp_path.rglob("*.ckpt")}
    assert not {path.name for path in left.iterdir()} & {"network.safetensors", "run.json"}
    GlobalHydra.instance().clear()
    more = shlex.split(note.partition("command: ")[2])
    monkeypatch.setattr(sys, "argv", [*sys.argv, *(text for text in more if text not in sys.argv)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert [record["epochs"] for record in records] == [3] * (1 if command[0] == "train" and "-m" not in command else 2)


def test_a_full_disk_ends_training_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["emotion-ai", "train", *TINY, "logger=tensorboard", "out=run"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, file in ((50_000, "best.ckpt"), (50, "run")):  # the checkpoint is too large, or the log
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(SystemExit) as stopped:
                cli.main()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert f"{file}: File too large; raise the limit on file sizes" in line
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"tensorboard"}
        GlobalHydra.instance().clear()


@pytest.mark.parametrize("stage", ["train", "cross-validate", "sweep", "evaluate"])
def test_an_output_folder_that_cannot_be_is_one_line(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    settings = ["task=emotion", "checkpoint=bundled"] if stage == "evaluate" else [*TINY, "data.folds=2"]
    for out, line in (("file", "file: File exists"), ("file/run", "file/run: Not a directory")):
        monkeypatch.setattr(sys, "argv", ["emotion-ai", stage, *settings, f"out={out}"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith(f"error: {line}; ")
        GlobalHydra.instance().clear()
    assert Path("file").read_text() == "kept"


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
