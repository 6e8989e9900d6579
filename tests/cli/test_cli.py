import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emotion_ai import cli, extras
from emotion_ai.errors import MissingExtraError

STAGES = ("train", "cross-validate", "ablations", "evaluate", "export", "data", "serve", "predict", "web", "demo")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emotion_ai.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd)


def test_alone_it_lists_the_stages() -> None:
    result = CliRunner().invoke(cli.app, [])
    for stage in STAGES:
        assert stage in result.output


@pytest.mark.parametrize("stage", ["ablations", "data", "serve", "predict", "web", "demo"])
def test_every_stage_helps(stage: str) -> None:
    result = CliRunner().invoke(cli.app, [stage, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("stage", ["train", "cross-validate", "evaluate", "export"])
def test_every_hydra_stage_helps(stage: str, tmp_path: Path) -> None:
    result = run(stage, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "== Config ==" in result.stdout
    assert not list(tmp_path.iterdir())


def test_the_command_line_starts_without_the_stages() -> None:
    code = (
        "import sys, emotion_ai.cli; print([m for m in ('torch', 'tensorflow', 'pandas', 'hydra') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "none.csv"], "none.csv: no such file or folder"),
        (["train", "data.train=none.csv"], "none.csv: no such file or folder"),
        (["train", "data.split=[0.8,0.2]", "data.folds=5"], "contradict each other"),
        (["cross-validate", "experiment=emotion"], "give the number of folds, e.g. data.folds=5"),
        (["ablations", "--budget", "large"], "choose one of full, quick"),
        (["evaluate", "task=emotion", "checkpoint=none.ckpt"], "none.ckpt: no such checkpoint"),
        (["evaluate", "task=emotion"], "checkpoint must be given"),
        (["export", "out=models", "keypoints=a.ckpt"], "both networks are wanted"),
        (["serve", "none"], "none: no such folder"),
        (
            ["predict", "--kaggle", "test.csv", "IdLookupTable.csv", "--server", "http://127.0.0.1:9"],
            "test.csv: no such file",
        ),
        (["predict", "none.jpg", "--server", "http://127.0.0.1:9", "--version", "1", "--label", "a"], "contradict"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in result.stderr


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'tensorflow.python'", name="tensorflow.python")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'emotion-ai\[serve\]'"):
        extras.load("anything")


def test_a_bug_of_ours_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'emotion_ai.typo'", name="emotion_ai.typo")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        extras.load("anything")
