"""A watched folder loses nothing: servers that reload, odd files, restarts, its own output."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from emotion_ai.cli.photos import PredictOptions, follow
from emotion_ai.errors import (
    AccessDeniedError,
    ModelNotFoundError,
    ServerFailureError,
    ServerTimeoutError,
    ServerUnavailableError,
    ServerUnreachableError,
)
from emotion_ai.inference.pipeline import read_photo
from emotion_ai.inference.results import FaceReading
from emotion_ai.vision.photo import PORTRAITS, Photo, Source
from tests.cli.conftest import StubServer
from tests.cli.test_predict import Happy

Step = Callable[[], object]


def nothing() -> None:
    pass


def watch(options: PredictOptions, reader: Happy, steps: Sequence[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a step after each look, and Ctrl-C after the last."""
    left = iter(steps)

    def look(_: float) -> None:
        try:
            next(left)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("emotion_ai.cli.watch.time.sleep", look)
    assert follow(options, reader) == 0


def rows(table: Path) -> list[tuple[str, bool]]:
    with table.open(newline="", encoding="utf-8") as file:
        return [(Path(row["photo"]).name, bool(row["error"])) for row in csv.DictReader(file)]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy(PORTRAITS[0], folder / name)
    return folder


@pytest.mark.parametrize(
    "kind",
    [ServerUnreachableError, ServerTimeoutError, ServerUnavailableError, ModelNotFoundError, AccessDeniedError],
)
def test_photos_wait_while_the_server_is_away(
    kind: type[Exception],
    inbox: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    away: list[int] = []

    class Away(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            if len(away) == 1:
                raise kind("the server is away")
            return super().read(photo)

    options = PredictOptions(watch=inbox, csv=tmp_path / "faces.csv", json=True)
    steps: list[Step] = [lambda: away.append(1), *[nothing] * 9, lambda: away.append(1), nothing, nothing]
    watch(options, Away(), steps, monkeypatch)
    out, err = capsys.readouterr()
    assert sorted(rows(tmp_path / "faces.csv")) == [(f"{name}.png", False) for name in "abc"]
    assert all("faces" in json.loads(line) for line in out.splitlines())
    assert err.count("the server is away; photos wait until the server is back") == 1


def test_one_photo_that_always_takes_too_long_does_not_hold_up_the_others(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            assert isinstance(photo, Photo)
            if photo.name.endswith("a.png"):
                raise ServerTimeoutError("no answer within 30 s")
            return super().read(photo)

    watch(PredictOptions(watch=inbox, csv=tmp_path / "faces.csv"), Slow(), [nothing] * 6, monkeypatch)
    assert sorted(rows(tmp_path / "faces.csv")) == [("b.png", False), ("c.png", False)]


def test_other_failures_are_tried_a_few_times(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    class Failing(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            assert isinstance(photo, Photo)
            tried.append(Path(photo.name).name)
            if tried.count("a.png") < 3 and photo.name.endswith("a.png"):
                raise ServerFailureError("500, internal")
            if photo.name.endswith("b.png"):
                raise RuntimeError("broken")
            return super().read(photo)

    watch(PredictOptions(watch=inbox, csv=tmp_path / "faces.csv"), Failing(), [nothing] * 8, monkeypatch)
    assert rows(tmp_path / "faces.csv") == [("c.png", False), ("a.png", False), ("b.png", True)]
    assert (tried.count("a.png"), tried.count("b.png")) == (3, 3)
    assert "500, internal" not in capsys.readouterr().err


def test_what_is_no_photo_is_skipped_and_every_format_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    (folder / "folder.jpg").mkdir(parents=True)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "circle").symlink_to(folder)
    for name in ("a.gif", "b.JFIF", "c.jpe", "._d.jpg", ".e.jpg"):
        shutil.copy(PORTRAITS[0], folder / name)  # decoded by its content
    watch(PredictOptions(watch=folder, csv=tmp_path / "faces.csv"), Happy(), [nothing] * 3, monkeypatch)
    assert rows(tmp_path / "faces.csv") == [("a.gif", False), ("b.JFIF", False), ("c.jpe", False)]
    assert capsys.readouterr().err == ""


def test_a_folder_that_is_removed_is_waited_for(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def restore() -> None:
        inbox.mkdir()
        shutil.copy(PORTRAITS[0], inbox / "d.png")

    steps = [nothing, nothing, lambda: shutil.rmtree(inbox), nothing, nothing, restore, nothing, nothing]
    watch(PredictOptions(watch=inbox, csv=tmp_path / "faces.csv"), Happy(), steps, monkeypatch)
    assert [name for name, _ in rows(tmp_path / "faces.csv")] == ["a.png", "b.png", "c.png", "d.png"]
    assert capsys.readouterr().err.count("cannot be listed (No such file or directory); waiting for it") == 1


@pytest.mark.parametrize("below", [".", "out"])
def test_annotated_photos_in_the_folder_are_not_read_and_do_not_overwrite_each_other(
    below: str, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PORTRAITS[1], inbox / "a.jpg")
    options = PredictOptions(watch=inbox, out=inbox / below, csv=inbox / "faces.csv")
    for _ in range(2):
        watch(options, Happy(), [nothing] * 6, monkeypatch)
    assert [name for name, _ in rows(inbox / "faces.csv")] == ["a.jpg", "a.png", "b.png", "c.png"]
    pictures = sorted(path.name for path in (inbox / below).glob("*.annotated.png"))
    assert pictures == [f"{name}.annotated.png" for name in ("a.jpg", "a.png", "b.png", "c.png")]


def test_a_restart_reads_what_is_new_changed_or_failed(
    inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "b.png").write_bytes(b"nonsense")
    read: list[str] = []

    class Counting(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            assert isinstance(photo, Photo)
            read.append(Path(photo.name).name)
            return read_photo(photo, self)

    options = PredictOptions(watch=inbox, csv=tmp_path / "faces.csv")
    watch(options, Counting(), [nothing] * 6, monkeypatch)
    assert rows(tmp_path / "faces.csv") == [("a.png", False), ("c.png", False), ("b.png", True)]
    read.clear()
    monkeypatch.undo()
    time.sleep(0.02)
    shutil.copy(PORTRAITS[1], inbox / "c.png")
    shutil.copy(PORTRAITS[0], inbox / "b.png")
    shutil.copy(PORTRAITS[0], inbox / "d.png")
    watch(options, Counting(), [nothing] * 3, monkeypatch)
    assert read == ["b.png", "c.png", "d.png"]
    assert rows(tmp_path / "faces.csv") == [(f"{name}.png", False) for name in "abcd"]


def test_a_photo_that_is_still_copied_has_no_error_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, content = tmp_path / "in", PORTRAITS[1].read_bytes()
    folder.mkdir()
    (folder / "a.jpg").write_bytes(content[:20000])
    steps = [*[nothing] * 5, lambda: (folder / "a.jpg").write_bytes(content), nothing, nothing]
    watch(PredictOptions(watch=folder, csv=tmp_path / "faces.csv"), Happy(), steps, monkeypatch)
    assert rows(tmp_path / "faces.csv") == [("a.jpg", False)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_ends_on_a_signal_with_whole_files(
    number: signal.Signals, code: int, inbox: Path, tmp_path: Path, stub_server: StubServer
) -> None:
    command = [sys.executable, "-m", "emotion_ai.cli", "predict", "--watch", str(inbox), "--server", stub_server.url]
    command += ["--signature", "serving_bytes", "--csv", str(tmp_path / "faces.csv"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline() for _ in range(3)]
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (code, b"")
    assert all("faces" in json.loads(line) for line in lines)
    assert len(rows(tmp_path / "faces.csv")) == 3
