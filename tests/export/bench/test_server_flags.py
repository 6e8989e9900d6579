"""The benchmark of our flags, on the test double."""

import sys
from pathlib import Path

import pytest

from emotion_ai_export.bench import server_flags
from tests.export.serving_double.saved_models import fake_servables


@pytest.mark.parametrize(("at_least", "code"), [("0.2", 0), ("9", 1)])
def test_both_flags_are_measured_side_by_side(
    at_least: str,
    code: int,
    as_real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_servables(tmp_path, 1)
    monkeypatch.setenv("TFS_DOUBLE_PREDICT_SECONDS", "0.02")
    options = ["--encoding", "gRPC, JPEG", "--clients", "12", "--rounds", "2", "--seconds", "0.3"]
    monkeypatch.setattr(sys, "argv", ["server_flags", str(tmp_path), *options, "--at-least", at_least])
    with pytest.raises(SystemExit) as caught:
        server_flags.main()
    assert caught.value.code == code
    printed = capsys.readouterr().out
    assert "gRPC, JPEG, 12 clients: faces/s" in printed
    assert "failed requests: 0 with our flags, " in printed, "12 clients, 64 threads"
    assert ", 0 with the default flags" not in printed, "12 clients, 8 threads"


def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_real: Path
) -> None:
    fake_servables(tmp_path, 1)
    for arguments, message in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(tmp_path), "--encoding", "post"], "encoding 'post': choose one of REST"),
        ([str(tmp_path), "--clients", "0"], "must be > 0"),
    ):
        monkeypatch.setattr(sys, "argv", ["server_flags", *arguments])
        with pytest.raises(SystemExit) as caught:
            server_flags.main()
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
