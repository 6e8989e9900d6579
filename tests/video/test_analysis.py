"""A whole video: what is written, and that a run which ended early goes on as if it had not."""

import csv
import itertools
import json
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from emotion_ai.class_set import SEVEN
from emotion_ai.errors import AccessDeniedError, ConfigError, ImageError, ServerUnreachableError, VideoError
from emotion_ai.inference.results import FaceReading
from emotion_ai.video import analysis, folder
from emotion_ai.video.analysis import VideoListener, VideoOptions, VideoProgress, analyze
from emotion_ai.video.events import EventChanges
from emotion_ai.video.folder import VideoOutput
from emotion_ai.video.frames import Frame, FrameReading
from emotion_ai.video.rows import video_columns
from tests.video.fakes import restless, shown_number, write_clip

COUNT = 120


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "numbers.mp4", COUNT)


@pytest.fixture(scope="module")
def whole(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one run without interruption."""
    out = tmp_path_factory.mktemp("whole")
    analyze(clip, restless, VideoOutput(out))
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "rows.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same_results(out: Path, whole: Path) -> bool:
    return all((out / name).read_bytes() == (whole / name).read_bytes() for name in ("rows.csv", "events.json"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def stop_at(frame: int, error: BaseException) -> VideoListener:
    def on_frame(reading: FrameReading, _: VideoProgress) -> None:
        if reading.frame == frame:
            raise error

    return VideoListener(on_frame)


def test_every_frame_and_every_face_has_a_row(whole: Path, clip: Path) -> None:
    rows = rows_of(whole)
    assert tuple(rows[0]) == video_columns(SEVEN.names[:5])
    frames = [int(row["frame"]) for row in rows]
    assert sorted(set(frames)) == list(range(COUNT))
    for number in range(COUNT):
        faces = [row for row in rows if int(row["frame"]) == number]
        expected = 0 if number % 50 >= 45 else 1 + (number // 30) % 2
        assert [row["face"] for row in faces] == ([""] if not expected else [str(i + 1) for i in range(expected)])
        assert {row["source"] for row in faces} == {str(clip)}
        assert all(float(row["seconds"]) == pytest.approx(number / 25, abs=1e-4) for row in faces)


def test_the_other_files(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {
        "rows.csv", "events.json", "summary.json", "timeline.png", "state.json"
    }  # fmt: skip
    events, summary = (json.loads((whole / name).read_text()) for name in ("events.json", "summary.json"))
    assert len(events) == summary["events"] >= 3
    assert all(set(event) == {"track", "start", "end", "expression", "confidence", "peak"} for event in events)
    assert summary["complete"] is True
    assert summary["frames"] == COUNT
    assert summary["without_face"] == 10
    assert summary["seconds"] == pytest.approx(COUNT / 25)
    assert summary["seconds_without_face"] == pytest.approx(10 / 25)
    assert sum(summary["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert sum(track["events"] for track in summary["tracks"]) == len(events)


def test_killed_ten_times_the_rows_are_the_same_each_once(
    clip: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.01)
    rng = random.Random(0)
    output = VideoOutput(tmp_path / "out", resume=True)
    positions = []
    for _ in range(10):
        delay = rng.uniform(0, 0.05)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the other threads of this process do nothing
            child = os.fork()
        if not child:
            _read_until_killed(clip, output, delay)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        positions.append(json.loads((tmp_path / "out" / "state.json").read_text())["frame"])
    analyze(clip, restless, output)
    assert same_results(tmp_path / "out", whole)
    assert positions == sorted(positions)
    assert len(set(positions)) > 5


def _read_until_killed(clip: Path, output: VideoOutput, delay: float) -> NoReturn:
    """Reads, and is killed at any moment, so many seconds after the eighth frame."""
    frames = itertools.count(1)

    def read(rgb: np.ndarray) -> list[FaceReading]:
        time.sleep(0.005)
        if next(frames) == 8:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return restless(rgb)

    try:
        analyze(clip, read, output)
        time.sleep(1)
    finally:
        os._exit(0)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), ServerUnreachableError("no server")])
def test_a_run_that_ends_early_leaves_complete_files_and_is_resumed(
    clip: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.02)
    out = tmp_path / "out"
    with pytest.raises(type(error)):
        analyze(clip, restless, VideoOutput(out), listener=stop_at(75, error))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["complete"] is False
    assert summary["frames"] == 76
    assert {int(row["frame"]) for row in rows_of(out)} == set(range(76))
    events = json.loads((out / "events.json").read_text())
    assert events[-1]["end"] == pytest.approx(76 / 25)
    assert pixels(out / "timeline.png").shape[1] > 1000
    resumed = analyze(clip, restless, VideoOutput(out, resume=True))
    assert resumed["frames"] == COUNT
    assert same_results(out, whole)


def test_ctrl_c_while_something_is_written_waits_for_it(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Interrupting(folder.VideoFolder):
        def add(self, reading: FrameReading) -> None:
            if reading.frame == 20:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            super().add(reading)

    monkeypatch.setattr(analysis, "VideoFolder", Interrupting)
    try:
        with pytest.raises(KeyboardInterrupt):
            analyze(clip, restless, VideoOutput(out))
    finally:
        signal.signal(signal.SIGINT, before)
    assert {int(row["frame"]) for row in rows_of(out)} == set(range(21))


def test_a_finished_run_is_not_read_again(clip: Path, tmp_path: Path) -> None:
    analyze(clip, restless, VideoOutput(tmp_path / "out"))

    def read(rgb: np.ndarray) -> list[FaceReading]:
        raise AssertionError("read again")

    summary = analyze(clip, read, VideoOutput(tmp_path / "out", resume=True))
    assert summary["frames"] == COUNT


def test_results_are_replaced_only_when_asked(clip: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    analyze(clip, restless, VideoOutput(out), VideoOptions(limit=10))
    kept = (out / "rows.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"has the results of a run.*--resume.*--overwrite"):
        analyze(clip, restless, VideoOutput(out))
    assert (out / "rows.csv").read_bytes() == kept
    analyze(clip, restless, VideoOutput(out, overwrite=True))
    assert same_results(out, whole)


@pytest.mark.parametrize(
    ("name", "changed"),
    [("every", {"every": "2"}), ("limit", {"limit": 100}), ("hold", {"hold": 1.0}), ("smooth", {"smooth": False})],
)
def test_another_option_is_refused_by_name(clip: Path, tmp_path: Path, name: str, changed: dict[str, Any]) -> None:
    out = tmp_path / "out"
    analyze(clip, restless, VideoOutput(out), VideoOptions(limit=5))
    with pytest.raises(ConfigError, match=f"was written with {name} "):
        analyze(clip, restless, VideoOutput(out, resume=True), replace(VideoOptions(limit=5), **changed))


def test_another_source_is_refused_and_a_moved_one_is_not(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(clip.read_bytes())
    analyze(clip, restless, VideoOutput(out), VideoOptions(limit=5))
    analyze(moved, restless, VideoOutput(out, resume=True), VideoOptions(limit=5))
    content = bytearray(clip.read_bytes())
    content[len(content) // 2] ^= 1
    moved.write_bytes(content)
    with pytest.raises(ConfigError, match="a source of other content"):
        analyze(moved, restless, VideoOutput(out, resume=True), VideoOptions(limit=5))


def test_another_model_is_refused(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    for answer in (0.4, 0.4004):  # as on another machine
        monkeypatch.setattr(analysis, "model_identity", lambda _, a=answer: {"classes": ["a", "b"], "answers": [[a]]})
        analyze(clip, lambda rgb: [], VideoOutput(out, resume=True), VideoOptions(limit=5))
    for other in ({"classes": ["a", "c"], "answers": [[0.4]]}, {"classes": ["a", "b"], "answers": [[0.5]]}):
        monkeypatch.setattr(analysis, "model_identity", lambda _, other=other: other)
        with pytest.raises(ConfigError, match="a model that reads otherwise"):
            analyze(clip, lambda rgb: [], VideoOutput(out, resume=True), VideoOptions(limit=5))


def test_a_table_that_was_cut_is_not_continued(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        analyze(clip, restless, VideoOutput(out), listener=stop_at(50, KeyboardInterrupt()))
    os.truncate(out / "rows.csv", 100)
    with pytest.raises(ConfigError, match=r"rows\.csv: has 100 bytes where"):
        analyze(clip, restless, VideoOutput(out, resume=True))
    (out / "state.json").write_text("{")
    with pytest.raises(ConfigError, match=r"state\.json: is damaged"):
        analyze(clip, restless, VideoOutput(out, resume=True))


def test_a_frame_that_cannot_be_read_keeps_a_row_with_its_error(clip: Path, tmp_path: Path) -> None:
    def read(rgb: np.ndarray) -> list[FaceReading]:
        if shown_number(rgb) in (3, 4, 60):
            raise ImageError("strange\nframe")
        return restless(rgb)

    summary = analyze(clip, read, VideoOutput(tmp_path / "out"))
    failed = [row for row in rows_of(tmp_path / "out") if row["error"]]
    assert [(row["frame"], row["face"], row["error"]) for row in failed] == [
        (number, "", "strange frame") for number in ("3", "4", "60")
    ]
    assert (summary["frames"], summary["failed"]) == (COUNT, 3)
    assert summary["seconds_failed"] == pytest.approx(3 / 25)


def test_a_server_that_denies_access_ends_the_run_at_once(clip: Path, tmp_path: Path) -> None:
    def read(rgb: np.ndarray) -> list[FaceReading]:
        if shown_number(rgb) == 20:
            raise AccessDeniedError("status 403")
        return restless(rgb)

    with pytest.raises(AccessDeniedError):
        analyze(clip, read, VideoOutput(tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert {int(row["frame"]) for row in rows} == set(range(20))
    assert not any(row["error"] for row in rows)
    assert analyze(clip, restless, VideoOutput(tmp_path / "out", resume=True))["frames"] == COUNT


def test_frames_that_all_fail_end_the_run_with_complete_files(clip: Path, tmp_path: Path) -> None:
    def read(rgb: np.ndarray) -> list[FaceReading]:
        raise ImageError("strange frame")

    with pytest.raises(ImageError):
        analyze(clip, read, VideoOutput(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is False


def test_parquet_has_the_same_cells(clip: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    analyze(clip, restless, VideoOutput(out, table="parquet"))
    assert not (out / "rows.csv").exists()
    found = parquet.read_table(out / "rows.parquet").to_pylist()
    rows = rows_of(whole)
    assert len(found) == len(rows)
    for row, cells in zip(found, rows, strict=True):
        assert list(row) == list(cells)
        for name, cell in cells.items():
            assert row[name] is None if cell == "" else str(row[name]) == cell, name


def test_pixels_are_kept_only_when_asked(
    clip: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        analyze(clip, restless, VideoOutput(out, thumbnails=True), listener=stop_at(50, KeyboardInterrupt()))
    assert json.loads((out / "state.json").read_text())["thumbnails"]
    analyze(clip, restless, VideoOutput(out, thumbnails=True, resume=True))
    assert "thumbnails" not in json.loads((out / "state.json").read_text())
    pictures = [pixels(run / "timeline.png") for run in (out, whole)]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any(), "the faces"
    assert same_results(out, whole)


def test_the_clip_has_each_frame_once_after_an_interruption(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.1)
    out, options = tmp_path / "out", VideoOptions(limit=40)
    with pytest.raises(KeyboardInterrupt):
        analyze(clip, restless, VideoOutput(out, clip=True), options, stop_at(25, KeyboardInterrupt()))
    assert frames_of(out / "annotated.mp4") == 26
    analyze(clip, restless, VideoOutput(out, clip=True, resume=True), options)
    assert frames_of(out / "annotated.mp4") == 40
    assert [path.name for path in out.iterdir() if "annotated" in path.name] == ["annotated.mp4"]


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


class Camera:
    """A live source that never ends."""

    name, live, fps, frames, dropped, broken = "camera 0", True, 25.0, None, 7, 0

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while True:
            yield Frame(number, number / 25 + (60 if number > 20 else 0), np.zeros((32, 32, 3), np.uint8))
            number += 1


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Camera]:
    def opened(*_: object, **__: object) -> Camera:
        return Camera()

    monkeypatch.setattr(analysis, "open_source", opened)
    return opened


@pytest.mark.usefixtures("camera")
def test_ctrl_c_is_the_end_of_a_live_source(tmp_path: Path) -> None:
    listener = stop_at(40, KeyboardInterrupt())
    summary = analyze("0", lambda rgb: [], VideoOutput(tmp_path / "out"), listener=listener)
    assert summary["complete"] is True
    assert (summary["frames"], summary["dropped"]) == (41, 7)
    assert summary["seconds"] == pytest.approx(40 / 25 + 1), "the standstill counts for a second"


def test_events_are_reported_as_they_begin_and_end(clip: Path, tmp_path: Path) -> None:
    changes: list[EventChanges] = []
    analyze(clip, restless, VideoOutput(tmp_path / "out"), listener=VideoListener(on_events=changes.append))
    events = json.loads((tmp_path / "out" / "events.json").read_text())
    began = {event.key for change in changes for event in change.began}
    assert len(began) == len(events)
    assert began == {event.key for change in changes for event in change.ended}


def test_results_are_complete_although_nobody_listens_any_more(clip: Path, tmp_path: Path) -> None:
    def leave(_: EventChanges) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        analyze(clip, restless, VideoOutput(tmp_path / "out"), listener=VideoListener(on_events=leave))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is False


def test_a_source_that_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError):
        analyze(tmp_path / "text.mp4", restless, VideoOutput(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_odd_names_stay_as_they_are(clip: Path, tmp_path: Path) -> None:
    odd = tmp_path / '=cmd, "x" $y$ \u202e été.mp4'
    odd.write_bytes(clip.read_bytes())
    analyze(odd, restless, VideoOutput(tmp_path / "out", table="parquet"), VideoOptions(limit=3))
    (name,) = set(parquet.read_table(tmp_path / "out" / "rows.parquet")["source"].to_pylist())
    assert name == str(odd)
