"""Nothing is lost: outages, interruptions, kills, and photos and names that cannot be read."""

import csv
import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.cli.photos import PredictOptions, predict_command
from emotion_ai.client import FaceClient
from emotion_ai.errors import AccessDeniedError, ConfigError, ServerUnavailableError
from emotion_ai.inference.photo_table import PhotoTable
from emotion_ai.vision.photo import PORTRAITS
from tests.cli.conftest import StubServer


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("portrait") / "small.jpg"
    with Image.open(PORTRAITS[0]) as image:
        image.convert("RGB").resize((160, 160)).save(file)
    return file.read_bytes()


def photos(folder: Path, count: int, content: bytes) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"photo{number}.jpg").write_bytes(content)
    return folder


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_once(table: Path) -> Counter[str]:
    """How many rows each photo without an error has."""
    return Counter(Path(row["photo"]).name for row in rows(table) if not row["error"])


def started(*arguments: str | Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "emotion_ai.cli", "predict", *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def served(server: StubServer) -> tuple[str, ...]:
    return "--server", server.url, "--signature", "serving_bytes"


def wait_for_rows(table: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not table.exists() or table.read_bytes().count(b"\n") <= count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_outage_corrupt_files_an_odd_name_and_ctrl_c(
    tmp_path: Path, portrait: bytes, stub_server: StubServer
) -> None:
    """Every readable photo has exactly one row after a second call with the same arguments."""
    folder, table = photos(tmp_path / "in", 60, portrait), tmp_path / "faces.csv"
    odd = os.fsdecode(b"=photo\xff\x1b[31m.jpg")
    (folder / odd).write_bytes(portrait)
    for name in ("photo3.png", "photo7.webp", "photo11.tif"):
        (folder / name).write_bytes(portrait[: len(portrait) // 2])
    arguments: list[str | Path] = [folder, *served(stub_server), "--csv", table, "--json"]

    def respond(number: int) -> None:
        if number == 12:
            stub_server.away(3.0)  # longer than the client itself tries again

    stub_server.respond = respond
    first = started(*arguments)
    wait_for_rows(table, 16)
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
    assert err.count(b"waiting up to 120 s for the server") == 1
    assert b"Traceback" not in err
    assert b"\x1b" not in err
    assert table.read_bytes().endswith(b"\n")
    assert len(json.loads(out)) == len({row["photo"] for row in rows(table)})
    second = started(*arguments)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 1, "three photos cannot be read"
    assert b"are not read again" in err
    expected = {path.name for path in folder.iterdir() if path.name.startswith("photo") and path.suffix == ".jpg"}
    assert read_once(table) == dict.fromkeys([*expected, r"=photo\udcff" + "\x1b[31m.jpg"], 1)
    assert sorted(Path(row["photo"]).name for row in rows(table) if row["error"]) == [
        *("photo11.tif", "photo3.png", "photo7.webp")
    ]
    third = started(*arguments)
    out, _ = third.communicate(timeout=60)
    assert {os.path.basename(record["photo"]) for record in json.loads(out)} == {
        *("photo11.tif", "photo3.png", "photo7.webp")
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_leaves_whole_rows(
    number: signal.Signals, code: int, tmp_path: Path, portrait: bytes, stub_server: StubServer
) -> None:
    folder, table = photos(tmp_path / "in", 30, portrait), tmp_path / "faces.csv"
    run = started(folder, *served(stub_server), "--csv", table, "--out", tmp_path / "out")
    wait_for_rows(table, 3)
    run.send_signal(number)
    _, err = run.communicate(timeout=60)
    assert run.returncode == code
    assert b"Traceback" not in err
    assert 3 <= len(rows(table)) < 30
    assert all(None not in row and None not in row.values() for row in rows(table))
    for picture in (tmp_path / "out").rglob("*.png"):
        with Image.open(picture) as image:
            image.load()


def predict(folder: Path, server: StubServer, table: Path, timeout: float | None = None, json: bool = False) -> int:
    options = PredictOptions(
        (folder,), server=server.url, signature="serving_bytes", csv=table, timeout=timeout, json=json
    )
    return predict_command(options)


@pytest.mark.parametrize(
    ("answer", "notices"),
    [
        ((502, "<html>Bad gateway</html>"), 1),
        ((503, json.dumps({"error": "starting"})), 0),  # the client itself repeats the request
        ((504, ""), 1),
        ((404, json.dumps({"error": "Servable not found for request: Latest(face)"})), 1),
    ],
)
def test_a_server_that_reloads_is_waited_for(
    answer: tuple[int, str],
    notices: int,
    tmp_path: Path,
    portrait: bytes,
    stub_server: StubServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, table = photos(tmp_path / "in", 4, portrait), tmp_path / "faces.csv"
    stub_server.respond = lambda number: answer if 3 < number < 7 else None
    assert predict(folder, stub_server, table) == 0
    assert len(rows(table)) == 4
    assert capsys.readouterr().err.count("waiting up to 120 s for the server") == notices


def test_a_server_that_stays_away_is_reported_once_and_a_second_call_completes(
    tmp_path: Path, portrait: bytes, stub_server: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = photos(tmp_path / "in", 6, portrait), tmp_path / "faces.csv"
    stub_server.respond = lambda number: (502, "<html>Bad gateway</html>") if number > 4 else None
    assert predict(folder, stub_server, table, timeout=0.1, json=True) == 2
    out, err = capsys.readouterr()
    assert err.count("error:") == 1
    assert "4 photos were not read, run the same command once the server is back" in err
    assert ["faces" in record for record in json.loads(out)] == [True, True, False]
    assert len(rows(table)) == 2
    stub_server.respond = lambda number: None
    assert predict(folder, stub_server, table) == 0
    assert read_once(table) == {f"photo{n}.jpg": 1 for n in range(6)}
    assert "has 2 of the 6 photos already" in capsys.readouterr().err


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("answered", [0, 2])
def test_a_server_that_denies_access_is_reported_once_and_a_second_call_completes(
    status: int,
    answered: int,
    tmp_path: Path,
    portrait: bytes,
    stub_server: StubServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, table = photos(tmp_path / "in", 6, portrait), tmp_path / "faces.csv"
    denied = (status, "<html>Log in</html>")
    stub_server.respond = lambda number: denied if number > 2 * answered else None  # two for each photo
    assert predict(folder, stub_server, table) == 2
    err = capsys.readouterr().err
    assert err.count("error:") == 1
    assert f"{status}" in err
    assert f"{6 - answered} photos were not read, run the same command with access" in err
    assert stub_server.requests == 2 * answered + 1
    assert not answered or read_once(table) == {f"photo{n}.jpg": 1 for n in range(answered)}
    stub_server.respond = lambda number: None
    assert predict(folder, stub_server, table) == 0
    assert read_once(table) == {f"photo{n}.jpg": 1 for n in range(6)}


@pytest.mark.parametrize("kind", [AccessDeniedError, ServerUnavailableError])
def test_a_table_of_other_classes_does_not_hide_why_the_server_gives_none(
    kind: type[Exception], tmp_path: Path, portrait: bytes, stub_server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: FaceClient) -> None:
        raise kind("no classes")

    monkeypatch.setattr(FaceClient, "class_names", refuse)
    folder, table = photos(tmp_path / "in", 1, portrait), tmp_path / "faces.csv"
    with PhotoTable(table, ("Joy", "Rage")) as other:
        other.append(folder / "other.jpg", "an error")
    with pytest.raises(kind, match="no classes"):
        predict(folder, stub_server, table)


def test_a_server_that_starts_late_is_waited_for_if_asked(
    tmp_path: Path, portrait: bytes, stub_server: StubServer
) -> None:
    folder, table = photos(tmp_path / "in", 1, portrait), tmp_path / "faces.csv"
    stub_server.away(0.5)
    time.sleep(0.2)
    assert predict(folder, stub_server, table, timeout=20) == 0
    assert len(rows(table)) == 1


def test_names_and_files_that_cannot_be_read_are_one_row_each(
    tmp_path: Path, portrait: bytes, stub_server: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = photos(tmp_path / "in", 1, portrait), tmp_path / "faces.csv"
    (folder / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    (folder / (long := "x" * 251 + ".jpg")).write_bytes(portrait)
    odd = (
        tmp_path / ("y" * 300 + ".jpg"),
        Path(os.fsdecode(b"missing\xff.jpg")),
        folder / "z\n\x1b[2J.jpg",
    )
    options = PredictOptions(
        (folder, *odd), server=stub_server.url, signature="serving_bytes", csv=table, json=True, out=tmp_path / "out"
    )
    assert predict_command(options) == 1
    out, err = capsys.readouterr()
    assert [(Path(row["photo"]).name, bool(row["error"])) for row in rows(table)] == [
        *(("nowhere.jpg", True), ("photo0.jpg", False), (long, False)),
        *(("y" * 300 + ".jpg", True), (r"missing\udcff.jpg", True), ("z\n\x1b[2J.jpg", True)),
    ]
    assert len(err.splitlines()) == 4
    assert err.splitlines()[2].startswith(r"error: missing\udcff.jpg: no such file")
    assert r"/in/z\n\x1b[2J.jpg: no such file" in err
    assert [os.fsencode(record["photo"]) for record in json.loads(out)][-2:] == [
        *(b"missing\xff.jpg", os.fsencode(folder / "z\n\x1b[2J.jpg"))
    ]
    assert len(list((tmp_path / "out" / "in").iterdir())) == 2


def test_a_photo_without_rights_does_not_keep_the_others_from_being_read(
    tmp_path: Path, portrait: bytes, stub_server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = photos(tmp_path / "in", 1, portrait), tmp_path / "faces.csv"
    (secret := tmp_path / "two  spaces.jpg").write_bytes(portrait)
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == secret:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(os, "access", lambda path, *_, **__: Path(path) != secret)  # root may read everything
    monkeypatch.setattr(Path, "read_bytes", refuse)
    arguments = ["predict", str(secret), str(folder), *served(stub_server), "--csv", str(table), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1, done.output
    assert [(Path(row["photo"]).name, bool(row["error"])) for row in rows(table)] == [
        ("two  spaces.jpg", True),
        ("photo0.jpg", False),
    ]
    assert json.loads(done.stdout)[0]["error"].startswith(f"{secret}: cannot be read (Permission denied)")
    assert f"error: {secret}: cannot be read" in done.stderr


def test_a_closed_stderr_does_not_damage_the_table(tmp_path: Path, portrait: bytes, stub_server: StubServer) -> None:
    folder, table = photos(tmp_path / "in", 1, portrait), tmp_path / "faces.csv"
    command = [
        sys.executable,
        "-m",
        "emotion_ai.cli",
        "predict",
        str(folder),
        *served(stub_server),
        "--csv",
        str(table),
    ]
    done = subprocess.run(f"{shlex.join(command)} 2>&-", shell=True, timeout=60)
    assert done.returncode == 0
    assert read_once(table) == {"photo0.jpg": 1}


def test_a_folder_without_photos_says_what_was_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(ConfigError, match="no photos in this folder"):
        predict_command(PredictOptions((tmp_path,), server="http://127.0.0.1:9"))
    assert "not pictures: 2 (.mp4, .txt)" in capsys.readouterr().err


def test_what_a_library_raises_costs_one_photo(
    tmp_path: Path, portrait: bytes, stub_server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emotion_ai.cli import photo_reading as command

    load: Callable[[Path], object] = vars(command)["load_photo"]

    def fails(path: Path) -> object:
        if path.name == "photo1.jpg":
            raise MemoryError("too large")
        return load(path)

    folder, table = photos(tmp_path / "in", 3, portrait), tmp_path / "faces.csv"
    monkeypatch.setattr(command, "load_photo", fails)
    assert predict(folder, stub_server, table) == 1
    assert [row["error"] != "" for row in rows(table)] == [False, True, False]


def test_a_missing_picture_is_drawn_again(tmp_path: Path, portrait: bytes, stub_server: StubServer) -> None:
    folder, table = photos(tmp_path / "in", 2, portrait), tmp_path / "faces.csv"
    options = PredictOptions(
        (folder,), server=stub_server.url, signature="serving_bytes", csv=table, out=tmp_path / "out"
    )
    assert predict_command(options) == 0
    (tmp_path / "out" / "in" / "photo1.jpg.annotated.png").unlink()
    assert predict_command(options) == 0
    assert len(list((tmp_path / "out" / "in").iterdir())) == 2
    assert read_once(table) == {"photo0.jpg": 1, "photo1.jpg": 1}


@pytest.mark.skipif(not os.path.exists("/proc/self/fd/1"), reason="no /proc")
def test_a_table_on_stdout_stands_there_alone(tmp_path: Path, portrait: bytes, stub_server: StubServer) -> None:
    folder = photos(tmp_path / "in", 2, portrait)
    command = [sys.executable, "-m", "emotion_ai.cli", "predict", str(folder), *served(stub_server)]
    for extra in ((), ("--json",)):
        with (tmp_path / "faces.csv").open("wb") as file:
            done = subprocess.run([*command, "--csv", "/proc/self/fd/1", *extra], stdout=file, stderr=subprocess.PIPE)
        if extra:
            assert done.returncode == 2
            assert done.stderr.startswith(b"error: --csv /proc/self/fd/1: --json and --watch print there as well")
        else:
            assert done.returncode == 0
            assert b"photo0.jpg" in done.stderr
            assert read_once(tmp_path / "faces.csv") == {"photo0.jpg": 1, "photo1.jpg": 1}


def test_a_wrong_scheme_is_not_waited_for(
    tmp_path: Path, portrait: bytes, stub_server: StubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = photos(tmp_path / "in", 2, portrait), tmp_path / "faces.csv"
    url = stub_server.url.replace("http://", "https://")
    started_at = time.monotonic()
    assert predict_command(PredictOptions((folder,), server=url, csv=table, timeout=60)) == 2
    assert time.monotonic() - started_at < 30
    assert "this port speaks no TLS; write http:// instead of https://" in capsys.readouterr().err
