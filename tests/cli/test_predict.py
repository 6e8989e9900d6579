"""The command: a bad photo never costs the others their result, and the exit code shows it."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_ai.cli.photos import PredictOptions, follow, predict, predict_command
from emotion_ai.contract import EMOTIONS, MEAN_FACE
from emotion_ai.errors import ConfigError, ModelNotFoundError, ServerTimeoutError, ServerUnreachableError
from emotion_ai.inference.pipeline import read_photo
from emotion_ai.inference.results import COLUMNS, CropReadings, Crops, FaceReading
from emotion_ai.vision.photo import PORTRAITS, Photo, Source


class Happy:
    """Reads every face as the mean face, 70 % happy."""

    def read_crops(self, images: Crops) -> CropReadings:
        probabilities = np.tile(np.array([0.1, 0.05, 0.05, 0.7, 0.1], np.float32), (len(images), 1))
        return CropReadings(np.repeat(np.array(MEAN_FACE, np.float32)[None], len(images), 0), probabilities)

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        return read_photo(photo, self)

    def class_names(self) -> tuple[str, ...]:
        return EMOTIONS


SERVER = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture
def bad(tmp_path: Path) -> list[Path]:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "half [1].jpg").write_bytes(PORTRAITS[1].read_bytes()[:30000])
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("RGB", (300, 200), "teal").save(tmp_path / "wall.png")
    return [tmp_path / name for name in ("empty.jpg", "half [1].jpg", "dot.png", "wall.png", "missing.jpg")]


def test_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert predict(PredictOptions(PORTRAITS), Happy()) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("Happy") == 3, "the column and two faces"
    assert "astronaut.png" in out
    assert "grace_hopper.jpg" in out
    assert "70.0%" in out


def test_bad_photos_are_one_line_each_and_the_others_are_read(
    bad: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "new" / "faces.csv"
    photos = [*bad[:3], PORTRAITS[0], *bad[3:], PORTRAITS[1]]
    assert predict(PredictOptions(photos, out=tmp_path / "out", csv=table, json=True), Happy()) == 1
    out, err = capsys.readouterr()
    lines = err.strip().splitlines()
    assert len(lines) == len(bad)
    for line, path in zip(lines, bad, strict=True):
        assert line.startswith(f"error: {path}: ")
    records = json.loads(out)
    assert [record["photo"] for record in records] == [str(photo) for photo in photos]
    assert ["faces" in record for record in records] == [photo in PORTRAITS for photo in photos]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == [str(photo) for photo in photos]
    assert tuple(rows[0]) == ("photo", "face", *COLUMNS, "error")
    assert [row["face"] for row in rows] == ["", "", "", "1", "", "", "1"]
    failed = [row["photo"] for row in rows if row["error"]]
    assert failed == [str(path) for path in bad if path.name != "wall.png"], "a photo without a face has not failed"
    assert float(rows[3]["nose_tip_x"]) == pytest.approx(records[3]["faces"][0]["points"]["nose_tip"][0], abs=0.01)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "astronaut.png.annotated.png",
        "grace_hopper.jpg.annotated.png",
    ]
    with Image.open(tmp_path / "out" / "astronaut.png.annotated.png") as picture:
        assert picture.size == (640, 640)


def test_pictures_of_the_same_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "astronaut.png").write_bytes(PORTRAITS[0].read_bytes())
    photos = (PORTRAITS[0], tmp_path / "a" / "astronaut.png")
    assert predict(PredictOptions(photos, out=tmp_path / "out"), Happy()) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "astronaut.png-2.annotated.png",
        "astronaut.png.annotated.png",
    ]


@pytest.mark.parametrize("error", [ServerUnreachableError, ModelNotFoundError])
def test_a_server_that_is_not_there_ends_it_with_one_line(
    error: type[Exception], bad: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[str] = []

    class NoServer(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            assert isinstance(photo, Photo)
            read.append(photo.name)
            raise error("http://127.0.0.1:1: nobody there; start it")

    assert predict(PredictOptions([bad[0], *PORTRAITS]), NoServer()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 2
    assert "nobody there" in err
    assert read == [str(PORTRAITS[0])], "the second portrait is not tried"


def test_a_slow_response_costs_only_its_own_photo(capsys: pytest.CaptureFixture[str]) -> None:
    calls = iter([True, False])

    class SlowOnce(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            if next(calls):
                raise ServerTimeoutError("http://127.0.0.1:1: no answer within 30 s")
            return super().read(photo)

    assert predict(PredictOptions(PORTRAITS, json=True), SlowOnce()) == 1
    records = json.loads(capsys.readouterr().out)
    assert "no answer" in records[0]["error"]
    assert len(records[1]["faces"]) == 1


def test_command_without_a_server_that_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert predict_command(PredictOptions(PORTRAITS, server=SERVER)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert SERVER in err


def test_without_a_server_and_pytorch_the_extra_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; from emotion_ai.cli import main; main()"
    command = [sys.executable, "-c", code, "predict", str(PORTRAITS[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: reading faces without a server needs torch: pip install 'emotion-ai[train]'")
    assert len(done.stderr.splitlines()) == 1


def test_settings_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--server"):
        predict_command(PredictOptions(PORTRAITS, label="stable"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        predict(PredictOptions(PORTRAITS, out=tmp_path / "file"), Happy())
    with pytest.raises(ConfigError, match="cannot be written"):
        predict(PredictOptions(PORTRAITS, csv=tmp_path), Happy())


def test_photos_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give either photos, or --watch FOLDER"):
        predict_command(PredictOptions())
    with pytest.raises(ConfigError, match="give either photos, or --watch FOLDER"):
        predict_command(PredictOptions(PORTRAITS, watch=tmp_path))
    with pytest.raises(ConfigError, match="--signature, --version and --label choose a served model"):
        predict_command(PredictOptions(PORTRAITS, signature="serving_default"))
    with pytest.raises(ConfigError, match="no such folder; --watch needs an existing one"):
        follow(PredictOptions(watch=tmp_path / "nowhere"), Happy())


def test_uncertain_below_a_confidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")

    class Uncertain(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            return read_photo(photo, self, uncertain_below=0.8)

    options = PredictOptions([PORTRAITS[0]], out=tmp_path, csv=tmp_path / "faces.csv")
    assert predict(options, Uncertain()) == 0
    out = capsys.readouterr().out
    assert "uncertain" in out
    assert out.count("Happy") == 1, "the column's name"
    with (tmp_path / "faces.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["emotion"], row["uncertain"]) == ("Happy", "True")
    with pytest.raises(ConfigError, match="`uncertain_below` must be between 0 and 1, got 1.5"):
        predict_command(PredictOptions(PORTRAITS, server=SERVER, uncertain_below=1.5))


def test_flags_have_a_column_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    photo = tmp_path / "half.png"
    Image.open(PORTRAITS[1]).convert("RGB").crop((0, 0, 290, 600)).save(photo)
    assert predict(PredictOptions([photo], csv=tmp_path / "faces.csv"), Happy()) == 0
    out = capsys.readouterr().out
    assert "quality" in out
    assert "cut" in out
    with (tmp_path / "faces.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["quality"] == "cut"
    assert abs(float(row["roll"])) < 10
    assert predict(PredictOptions([PORTRAITS[1]], json=True), Happy()) == 0
    ((face,),) = (record["faces"] for record in json.loads(capsys.readouterr().out))
    assert (face["flags"], set(face["quality"])) == ([], {"size", "sharpness", "brightness", "contrast"})


def test_frames_of_a_video_are_smoothed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each frame's face has another expression; a broken frame costs only its own place in time."""
    shares = iter([0.9, 0.3, 0.3])

    class Flickering(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            happy = next(shares)
            probabilities = np.array([1 - happy, 0, 0, happy, 0], np.float32)
            return [replace(face, probabilities=probabilities) for face in super().read(photo)]

    frames = [PORTRAITS[0], Path("missing.png"), PORTRAITS[0], PORTRAITS[0]]
    assert predict(PredictOptions(frames, json=True, fps=25), Flickering()) == 1
    records = json.loads(capsys.readouterr().out)
    happy = [record["faces"][0]["probabilities"]["Happy"] for record in records if "faces" in record]
    assert happy[0] == 0.9
    assert 0.9 > happy[1] > happy[2] > 0.3
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="--fps"):
            predict_command(PredictOptions(PORTRAITS, server=SERVER, fps=fps))
    with pytest.raises(ConfigError, match="for photos without --watch"):
        predict_command(PredictOptions(watch=Path("."), fps=25))


def test_a_table_of_other_columns_is_not_added_to(tmp_path: Path) -> None:
    table = tmp_path / "faces.csv"
    table.write_text("photo,face,emotion\n")
    shutil.copy(PORTRAITS[0], tmp_path / "a.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emotion_ai.cli.watch.time.sleep", lambda _: None)
        with pytest.raises(ConfigError, match="its first line differs from that of a table of photos"):
            follow(PredictOptions(watch=tmp_path, csv=table, json=True), Happy())
    assert table.read_text() == "photo,face,emotion\n"


def test_a_watched_folder_is_read_as_photos_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Present, new, half-written, replaced, broken ones; a server that is away for a while."""
    folder, table = tmp_path / "in", tmp_path / "out" / "faces.csv"
    folder.mkdir()
    shutil.copy(PORTRAITS[0], folder / "a.png")
    (folder / "notes.txt").write_text("not a photo")
    content = PORTRAITS[1].read_bytes()
    away = [True]
    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: (folder / "b.jpg").write_bytes(content[:9000]),
            lambda: (folder / "b.jpg").write_bytes(content),
            lambda: None,
            lambda: (folder / "bad.jpg").write_bytes(b"nonsense"),
            lambda: None,
            lambda: away.clear(),
            lambda: shutil.copy(PORTRAITS[0], folder / "b.jpg"),
            lambda: None,
        ]
    )

    class Away(Happy):
        def read(self, photo: Source | Photo) -> list[FaceReading]:
            if away:
                raise ServerUnreachableError("no server answers")
            return super().read(photo)

    def look(_: float) -> None:
        try:
            next(steps)()
        except StopIteration:
            raise KeyboardInterrupt from None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emotion_ai.cli.watch.time.sleep", look)
        assert follow(PredictOptions(watch=folder, out=tmp_path / "out", csv=table, json=True), Away()) == 0
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.strip().splitlines()]
    read = [Path(record["photo"]).name for record in records if "faces" in record]
    assert read == ["a.png", "b.jpg", "b.jpg"]
    assert err.count("no server answers") == 1
    assert err.count("bad.jpg") == 1
    with table.open(newline="") as file:
        rows = [(Path(row["photo"]).name, bool(row["error"])) for row in csv.DictReader(file)]
    assert [name for name, failed in rows if not failed] == read
    assert [name for name, failed in rows if failed] == ["bad.jpg"]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"a.png.annotated.png", "b.jpg.annotated.png"}
