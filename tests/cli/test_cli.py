import errno
import io
import os
import pwd
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from typer.testing import CliRunner

from emotion_ai import cli
from emotion_ai.errors import MissingExtraError
from emotion_ai.extras import load, optional_imports
from emotion_ai.vision.photo import PORTRAITS

HYDRA_STAGES = ["train", "cross-validate", "sweep", "evaluate", "export"]
COMMANDS = [
    *("ablations", "data", "serve", "versions", "promote", "rollback", "prune", "verify", "predict", "web", "demo")
]


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `emotion-ai`, run in this process, which spares the imports."""
    monkeypatch.setattr(sys, "argv", ["emotion-ai", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    GlobalHydra.instance().clear()
    return int(ended.value.code or 0)


def test_without_arguments_it_lists_every_command() -> None:
    result = CliRunner().invoke(cli.app, [])
    for command in (*HYDRA_STAGES, *COMMANDS):
        assert command in result.output


def test_it_prints_its_version() -> None:
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == version("emotion-ai")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("stage", HYDRA_STAGES)
def test_every_hydra_stage_has_help(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call([stage, "--help"], monkeypatch) == 0
    assert "== Config ==" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "code",
    [
        "import emotion_ai",
        "from emotion_ai.cli import app; app(['--help'], standalone_mode=False)",
        "from emotion_ai.cli import app; app(['predict', '--help'], standalone_mode=False)",
    ],
)
def test_importing_and_help_stay_light(code: str) -> None:
    heavy = ("torch", "tensorflow", "gradio", "pandas", "matplotlib", "scipy", "hydra", "numpy", "PIL", "requests")
    code += f"; import sys; print('loaded:', [name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "none.csv"], "none.csv: no such file or folder"),
        (["train", "data.train=none.csv"], "none.csv: no such file or folder"),
        (["train", "data.split=[0.6,0.2,0.2]", "data.folds=5"], "contradict each other"),
        (["cross-validate", "experiment=emotion"], "give the number of folds, e.g. data.folds=5"),
        (["evaluate", "task=emotion", "checkpoint=none.ckpt"], "none.ckpt: no such checkpoint"),
        (["evaluate", "task=emotion"], "checkpoint must be given"),
        (["export", "out=models", "keypoints=a.ckpt"], "both networks are needed"),
        (["export", "out=models", "checkpoint=bundled", "data=none.csv"], "none.csv: no such file or folder"),
        (["export", "out=models", "checkpoint=bundled", "data.path=none.csv"], "none.csv: no such file or folder"),
        (["export", "out=models", "checkpoint=bundled", "litert=[int4]"], "unknown kind of LiteRT file 'int4'"),
        (["ablations", "--budget", "large"], "choose one of full, quick"),
        (["serve", "none"], "none: no such folder"),
        (
            ["predict", "--kaggle", "test.csv", "IdLookupTable.csv", "--server", "http://127.0.0.1:9"],
            "test.csv: no such file",
        ),
        (["predict", "none.jpg", "--server", "http://127.0.0.1:9", "--version", "1", "--label", "a"], "not both"),
        (["predict", "none.jpg", "--server", "http://127.0.0.1:9", "--model", "nose"], "must be one of keypoints"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(arguments, monkeypatch) == 2
    stderr = capsys.readouterr().err
    lines = [line for line in stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in stderr


@pytest.mark.parametrize("command", ["data", "evaluate"])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/run.json"),
            "a/run.json: No space left on device; free some space, or write to another disk",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.csv"),
            "a.csv: Permission denied; check the permissions, or use another folder",
        ),
        (OSError("odd"), "odd"),
    ],
    ids=str,
)
def test_what_the_operating_system_refuses_is_one_line(
    command: str,
    error: OSError,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("emotion_ai.evaluation.stage.evaluate", refuse)
    monkeypatch.setattr("emotion_ai.data.loaders.load", refuse)
    monkeypatch.chdir(tmp_path)
    arguments = {"data": ["data", "a.csv"], "evaluate": ["evaluate", "task=emotion", "checkpoint=bundled"]}[command]
    assert call(arguments, monkeypatch) == 2
    assert capsys.readouterr().err == f"error: {line}\n"


def test_a_hydra_stage_fails_in_one_line_from_the_shell(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emotion_ai.cli", "train", "data.train=none.csv"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: none.csv: no such file or folder")
    assert result.stderr.count("\n") == 1


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'emotion-ai\[serve\]'"), optional_imports():
        raise ModuleNotFoundError("No module named 'tensorflow.python'", name="tensorflow.python")


def test_a_command_without_its_extra_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert call(["web"], monkeypatch) == 2
    assert capsys.readouterr().err == "error: this needs gradio: pip install 'emotion-ai[web]'\n"


def test_a_bug_is_not_taken_for_a_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError):
        load("emotion_ai.typo")


def test_escape_sequences_of_a_name_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["versions", "\x1b[31m[bold]:smile:\x9b\udcff"], monkeypatch) == 2
    assert capsys.readouterr().err.startswith(r"error: \x1b[31m[bold]:smile:\x9b\udcff: ")


def test_an_exception_of_ours_has_no_escape_sequences_either() -> None:
    code = (
        "from emotion_ai.cli import main, app\n"
        "def broken() -> None: raise AssertionError('server said \\x1b[31mred')\n"
        "app.command()(broken); main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "broken"], capture_output=True, timeout=60)
    assert done.returncode == 1
    assert rb"AssertionError: server said \x1b[31mred" in done.stderr
    assert b"\x1b" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_the_output_cannot_show_are_escaped(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Ω"
    (folder / "Happy").mkdir(parents=True)
    shutil.copy(PORTRAITS[0], folder / "Happy" / "a.png")
    monkeypatch.chdir(tmp_path)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    assert call(["data", str(folder)], monkeypatch) == 0
    assert r"\u03a9: emotion" in written.getvalue().decode(encoding)


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", str(PORTRAITS[1]), "--csv", "faces.csv"],
        ["data", "five.csv"],
        ["train", "--help"],
        ["versions", "none"],
        ["promote", "none", "--offline"],
        ["serve", "none"],
        ["verify", "none"],
        ["web", "none"],
    ],
)
def test_commands_work_without_a_home_and_for_an_unknown_user(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "EMOTION_AI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    rows = [f"{number},{' '.join([str(number)] * 2304)}\n" for number in range(5)]
    Path("five.csv").write_text("emotion,pixels\n" + "".join(rows))
    expected = 2 if "none" in arguments else 0
    assert call(arguments, monkeypatch) == expected
    if expected:
        assert capsys.readouterr().err.startswith(("error: none", f"error: {tmp_path}/none"))


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "emotion_ai.cli", "--version"], stdout=write, stderr=subprocess.PIPE, timeout=60
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")
