"""`--answer-log` and `emotion-ai drift` on the command line."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from emotion_ai.cli import app, main
from emotion_ai.cli.photos import PredictOptions, predict_command
from emotion_ai.errors import ConfigError
from emotion_ai.inference.answer_rows import write_rows
from emotion_ai.inference.reader import FaceReader
from emotion_ai.vision.photo import PORTRAITS
from tests.cli.test_predict import Happy
from tests.evaluation.test_drift import answers


@pytest.fixture
def happy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaceReader, "bundled", lambda *_, **__: Happy())


@pytest.mark.usefixtures("happy")
def test_predict_logs_a_row_per_face_with_the_photos_path(tmp_path: Path) -> None:
    options = PredictOptions(PORTRAITS, answer_log=tmp_path / "log")
    for _ in range(2):
        assert predict_command(options) == 0
    rows = [row for file in (tmp_path / "log").iterdir() for row in pq.read_table(file).to_pylist()]
    assert [(row["source"], row["emotion"], row["crop"]) for row in rows] == [
        (str(photo), "Happy", None) for photo in (*PORTRAITS, *PORTRAITS)
    ]


@pytest.mark.usefixtures("happy")
def test_crops_are_kept_when_asked_for(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["predict", str(PORTRAITS[0]), "--answer-log", str(tmp_path), "--answer-log-crops"]
    )
    assert result.exit_code == 0, result.output
    (file,) = tmp_path.iterdir()
    assert pq.read_table(file)["crop"][0].as_py().startswith(b"\x89PNG")


def test_crops_without_a_log_are_a_contradiction(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --answer-log FOLDER as well"):
        predict_command(PredictOptions(PORTRAITS, answer_log_crops=True))


def test_a_log_that_cannot_be_written_is_an_error_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the web page's, for SIGTERM
    (tmp_path / "file").touch()
    for command in (["predict", str(PORTRAITS[0])], ["web"]):
        result = CliRunner().invoke(app, [*command, "--answer-log", str(tmp_path / "file")])
        assert isinstance(result.exception, ConfigError)
        assert "answers cannot be logged there" in str(result.exception)


def test_drift_exits_with_0_1_or_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, log = tmp_path / "reference.parquet", tmp_path / "log.parquet"
    write_rows(answers(500, 0), reference)
    write_rows(answers(500, 1, brightness=np.full(500, 30.0)), log)
    monkeypatch.chdir(tmp_path)
    for arguments, code in (((reference, reference), 0), ((reference, log), 1), ((reference, "missing"), 2)):
        monkeypatch.setattr("sys.argv", ["emotion-ai", "drift", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
    assert capsys.readouterr().err.endswith("error: missing: no such file or folder; check the path\n")
    assert (tmp_path / "drift.png").is_file()
