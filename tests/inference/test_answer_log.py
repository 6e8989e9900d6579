"""The log of answers: whole files, whatever happens to the process, the folder and the disk."""

import io
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import ConfigError, NoFaceError
from emotion_ai.inference import answer_log
from emotion_ai.inference.answer_log import AnswerLog
from emotion_ai.inference.answer_rows import SCHEMA, Answer, FaceAnswers, Origin, to_table
from emotion_ai.inference.results import CropReadings, FaceReading
from emotion_ai.vision.crops import Box
from emotion_ai.vision.photo import UNNAMED, Photo, encode_png

FACE = Origin("face", 3, "stable", "a.jpg")


def faces(count: int = 1, seed: int = 0, classes: int = 5) -> FaceAnswers:
    rng = np.random.default_rng(seed)
    readings = CropReadings(
        rng.random((count, 15, 2), np.float32),
        rng.dirichlet(np.ones(classes), count).astype(np.float32),
        rng.random((count, 15, 2), np.float32),
        uncertain_below=np.full((count, classes), 0.4, np.float32),
    )
    found = FaceAnswers.of_crops(readings, list(rng.integers(0, 256, (count, 48, 48), dtype=np.uint8)))
    assert found is not None
    return found


def answer(count: int = 1, origin: Origin = FACE, **more: Any) -> Answer:
    return Answer(origin, 1.7e9, 0.01, faces=faces(count), **more)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Each file is opened once: a log that grows replaces it."""
    files = [io.BytesIO(path.read_bytes()) for path in sorted(folder.glob("*.parquet"))]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AnswerLog]:
    with AnswerLog(tmp_path / "log", seconds=60) as log:  # writes when told to
        yield log


def test_a_row_holds_the_answer_of_a_face() -> None:
    found = faces(2)
    table = to_table([Answer(FACE, 1.7e9, 0.25, 0.125, found)])
    assert table.schema.equals(SCHEMA)
    first, second = table.to_pylist()
    assert (first["face"], second["face"]) == (1, 2)
    assert (first["time"].timestamp(), first["latency_ms"], first["requests_ms"]) == (1.7e9, 250, 125)
    assert [first[name] for name in ("source", "model", "version", "label")] == ["a.jpg", "face", 3, "stable"]
    assert second["probabilities"] == found.probabilities[1].tolist()
    assert second["confidence"] == found.probabilities[1].max()
    assert found.deviations is not None
    assert second["deviations"] == found.deviations[1].ravel().tolist()
    assert first["size"] == 48
    assert first["left"] is first["expressions"] is first["error"] is first["crop"] is None
    assert found.images is not None
    image = found.images[1]
    assert image is not None
    enlarged = Image.fromarray(image.astype(np.float32)).resize((96, 96), Image.Resampling.BILINEAR)
    assert second["brightness"] == pytest.approx(np.asarray(enlarged).mean(), rel=1e-5)


def test_a_verdict_below_the_threshold_is_uncertain() -> None:
    probabilities = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 0.1, 0.9, 0]], np.float32)
    readings = CropReadings(
        np.zeros((2, 15, 2), np.float32), probabilities, uncertain_below=np.full((2, 5), 0.6, np.float32)
    )
    table = to_table([Answer(FACE, 0, 0, faces=FaceAnswers.of_crops(readings, None))])
    assert table["emotion"].to_pylist() == ["Angry", "Happy"]
    assert table["verdict"].to_pylist() == ["uncertain", "Happy"]


def test_answers_of_different_models_share_a_table() -> None:
    nothing = CropReadings(np.zeros((1, 15, 2), np.float32), np.full((1, 5), np.nan, np.float32))
    table = to_table(
        [
            answer(2),
            Answer(Origin("keypoints"), 1.6e9, 0, faces=FaceAnswers.of_crops(nothing, None)),
            Answer(Origin("face", source="no face.jpg"), 1.8e9, 0),
            Answer(Origin("face"), 1.9e9, 30, error="no answer within 30 s"),
        ]
    )
    assert table["emotion"].is_null().to_pylist() == [True, False, False, True, True]
    assert table["probabilities"].is_null().to_pylist() == [True, False, False, True, True]
    assert table["face"].to_pylist() == [1, 1, 2, None, None]
    assert table["error"].to_pylist() == [None, None, None, None, "no answer within 30 s"]


def test_names_and_errors_that_utf_8_cannot_hold_are_escaped() -> None:
    table = to_table([Answer(Origin("face", source="a\udcff.jpg"), 0, 0, error="\ud800" * 5000)])
    assert table["source"].to_pylist() == ["a\\udcff.jpg"]
    assert table["error"][0].as_py().startswith("\\ud800")
    assert len(table["error"][0].as_py()) < 10_000


def test_the_file_grows_as_a_whole_and_another_begins_when_it_is_full(
    log: AnswerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_log, "PART_ROWS", 5)
    for count in (2, 2, 2, 1):
        log.add(answer(count))
        log.flush()
    assert [pq.read_metadata(path).num_rows for path in sorted(log.folder.iterdir())] in ([6, 1], [1, 6])
    assert len(rows(log.folder)) == 7


def test_answers_are_written_within_a_second_or_so(tmp_path: Path) -> None:
    with AnswerLog(tmp_path, seconds=0.05) as log:
        for count in (1, 2):
            log.add(answer(count))
            deadline = time.monotonic() + 10
            while len(rows(tmp_path)) < 2 * count - 1 and time.monotonic() < deadline:
                time.sleep(0.01)
        assert len(rows(tmp_path)) == 3


def test_what_a_request_returns_may_be_changed_afterwards() -> None:
    readings = CropReadings(np.zeros((1, 15, 2), np.float32), np.full((1, 5), 0.2, np.float32))
    image = np.full((48, 48), 200, np.uint8)
    found = FaceAnswers.of_crops(readings, [image])
    readings.probabilities[:] = 1
    image[:] = 0
    (row,) = to_table([Answer(FACE, 0, 0, faces=found)]).to_pylist()
    assert (row["confidence"], row["brightness"]) == (np.float32(0.2), 200)


def test_a_failed_request_is_a_row_and_the_error_goes_on(log: AnswerLog) -> None:
    with pytest.raises(ZeroDivisionError), log.request(FACE):
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), log.request(FACE):
        raise KeyboardInterrupt
    with log.request(FACE) as request:
        request.faces = faces(2)
    log.flush()
    assert [row["error"] for row in rows(log.folder)] == ["division by zero", None, None]


def test_more_than_the_queue_holds_is_dropped_and_counted(
    log: AnswerLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answer_log, "CAPACITY", 5)
    writing, go_on = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> None:
        writing.set()
        go_on.wait(10)

    monkeypatch.setattr(answer_log, "write_rows", slow)
    log.add(answer())
    assert writing.wait(10)
    started = time.monotonic()
    for _ in range(8):
        log.add(answer())
    assert time.monotonic() - started < 1  # although the disk does not answer
    assert log.dropped == 3
    go_on.set()
    log.close()
    assert "3 rows were not logged" in caplog.text


def test_a_full_disk_is_one_warning_and_nothing_is_lost(
    log: AnswerLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(answer_log, "write_rows", full)
        for _ in range(3):
            log.add(answer())
            log.flush()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "No space left on device" in caplog.text
    log.add(answer())
    log.flush()
    assert len(rows(log.folder)) == 4
    assert log.dropped == 0


def test_what_cannot_be_written_is_counted_when_the_log_is_closed(log: AnswerLog, caplog: Any) -> None:
    shutil.rmtree(log.folder)
    log.folder.write_text("a file where the folder was")
    log.add(answer(2))
    log.close()
    assert log.dropped == 2
    assert len(caplog.records) == 1
    log.add(answer())  # after the end
    assert log.dropped == 3


def test_rows_that_cannot_wait_any_longer_are_dropped(log: AnswerLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_log, "CAPACITY", 3)
    log.add(answer(2))
    log.flush()
    path = next(log.folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(answer_log, "write_rows", lambda *_, **__: path / "not a folder" / "x" and 1 / 0)
        for _ in range(3):
            log.add(answer(2))
            log.flush()
    assert log.dropped == 3
    log.flush()
    assert len(rows(log.folder)) == 2 + 3  # those on the disk stay


def test_a_removed_folder_is_one_warning(log: AnswerLog, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        log.add(answer())
        log.flush()
        shutil.rmtree(log.folder)
    log.add(answer())
    log.flush()
    assert len(rows(log.folder)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{log.folder}: the folder was removed; a new one is written"
    ]


def test_files_may_be_moved_away_at_any_time(log: AnswerLog, tmp_path: Path) -> None:
    log.add(answer(2))
    log.flush()
    archive = tmp_path / "archive"
    log.folder.rename(archive)
    log.add(answer())
    log.flush()
    assert (len(rows(archive)), len(rows(log.folder))) == (2, 1)


def test_threads_share_a_log(log: AnswerLog) -> None:
    def work() -> None:
        for _ in range(50):
            log.add(answer())
            if _ % 10 == 0:
                log.flush()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len(rows(log.folder)) == 400


def test_the_version_is_asked_for_and_unknown_while_it_changes(log: AnswerLog) -> None:
    served = [1, 1, 2, None]

    def lookup() -> int:
        version = served.pop(0)
        if version is None:
            raise ConnectionError("the server is away")
        return version

    for position in range(4):
        log._writer.add(Answer(Origin("face", source=str(position)), position, 0, faces=faces()), lookup)
        log.flush()
    log.close()
    found = {row["source"]: row["version"] for row in rows(log.folder)}
    assert found == {"0": 1, "1": 1, "2": None, "3": None}


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        with pytest.raises(ConfigError, match="answers cannot be logged there"):
            AnswerLog(folder)


def test_what_a_killed_process_began_is_removed(tmp_path: Path) -> None:
    old, young, other = (tmp_path / f".answers-{name}.partial" for name in ("old", "young", "other"))
    other = other.with_name(".other.partial")
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (1, 1))
    AnswerLog(tmp_path).close()
    assert sorted(tmp_path.iterdir()) == sorted([young, other])


def test_a_log_that_is_deleted_is_written(tmp_path: Path) -> None:
    AnswerLog(tmp_path, seconds=60).add(answer())
    assert len(rows(tmp_path)) == 1


SCRIPT = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_answer_log import AnswerLog, answer
log = AnswerLog({folder!r}, seconds=0.05)
"""


def run(body: str, folder: Path, **options: Any) -> "subprocess.Popen[str]":
    start = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", start + body], stdout=-1, stderr=-1, text=True, **options)


def test_the_end_of_the_process_closes_the_log(tmp_path: Path) -> None:
    process = run("log._writer.seconds = 60\nlog.add(answer()); time.sleep(0.3); log.add(answer(4))", tmp_path)
    assert process.communicate(timeout=60) == ("", "")
    assert len(rows(tmp_path)) == 5


def test_a_kill_loses_what_was_not_written_and_leaves_whole_files(tmp_path: Path) -> None:
    body = "print('ready', flush=True)\nwhile True:\n    log.add(answer()); time.sleep(0.001)"
    processes = [run(body, tmp_path) for _ in range(2)]  # into one folder
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while len(rows(tmp_path)) < 100 and time.monotonic() < deadline:
            time.sleep(0.02)
        before = len(rows(tmp_path))
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert len(rows(tmp_path)) >= before >= 100  # every file can be read
    assert len(list(tmp_path.glob("*.parquet"))) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_process_writes_a_file_of_its_own(tmp_path: Path) -> None:
    body = """
log.add(answer(3)); log.flush()
if child := os.fork():
    os.waitpid(child, 0)
else:
    log.add(answer(2)); log.flush(); os._exit(0)
log.add(answer()); log.close()
"""
    assert run(body, tmp_path).communicate(timeout=60) == ("", "")
    assert sorted(pq.read_metadata(path).num_rows for path in tmp_path.glob("*.parquet")) == [2, 4]


def test_a_pickled_log_writes_a_file_of_its_own(log: AnswerLog) -> None:
    copy = pickle.loads(pickle.dumps(log))
    assert (copy.folder, copy.crops) == (log.folder, log.crops)
    log.add(answer())
    copy.add(answer())
    log.close()
    copy.close()
    assert len(list(log.folder.iterdir())) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="limits a file's size as Linux does")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    body = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
for _ in range(20):
    log.add(answer(3)); time.sleep(0.02)
log.close()
print(log.dropped)
"""
    out, err = run(body, tmp_path).communicate(timeout=60)
    assert out == "60\n"
    assert err.count("\n") == 1
    assert "File too large" in err
    assert not list(tmp_path.iterdir())


class Reader:
    """Finds one face in a photo, or none in a black one."""

    def read(self, photo: Any) -> list[FaceReading]:
        if not photo.gray.any():
            raise NoFaceError("no face found")
        points = np.zeros((15, 2), np.float32)
        return [FaceReading(points, np.eye(5, dtype=np.float32)[3], Box(1, 2, 30), points, 0.9)]

    def class_names(self) -> tuple[str, ...]:
        return EMOTIONS

    def read_crops(self, images: Any) -> CropReadings:
        return CropReadings(np.zeros((len(images), 15, 2), np.float32), np.eye(5, dtype=np.float32)[: len(images)])


def test_any_reader_can_be_logged(tmp_path: Path) -> None:
    gray = np.arange(6400, dtype=np.uint8).reshape(80, 80)
    with AnswerLog(tmp_path / "log", crops=True) as log:
        reader = log.of(Reader())
        reader.read(Photo(np.stack([gray] * 3, -1), gray, "a.jpg"))
        with pytest.raises(NoFaceError):
            reader.read(Photo(np.stack([0 * gray] * 3, -1), 0 * gray, UNNAMED))
        reader.read_crops([gray, gray])
    found = rows(tmp_path / "log")
    assert [(row["source"], row["face"], row["emotion"], row["error"]) for row in found] == [
        ("a.jpg", 1, "Happy", None),
        (None, None, None, None),
        (None, 1, "Angry", None),
        (None, 2, "Disgust", None),
    ]
    assert found[0]["crop"] == encode_png(gray[2:32, 1:31])
    assert (found[0]["left"], found[0]["top"], found[0]["size"]) == (1, 2, 30)
    assert found[2]["crop"] == encode_png(gray)


def test_of_many_crops_some_are_measured(log: AnswerLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_log._Writer, "_start", lambda _: None)  # nothing is written before `flush`
    for count in (100, 0, 200):
        log.add(answer(count) if count else Answer(FACE, 0, 0))
    log.flush()
    measured = [i for i, row in enumerate(rows(log.folder)) if row["brightness"] is not None]
    assert len(measured) == answer_log.MEASURED
    assert max(np.diff(measured)) < 10  # spread over all
    monkeypatch.setattr(answer_log, "MAX_IMAGE_BYTES", 5 * 48 * 48)
    for _ in range(2):
        log.add(answer(4))
    log.flush()
    assert sum(row["brightness"] is not None for row in rows(log.folder)) == answer_log.MEASURED + 4
