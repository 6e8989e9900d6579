"""The command video: what it prints, sends and writes, and what it refuses."""

import errno
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_ai.cli import video_run
from emotion_ai.cli.video_run import VideoCommand, default_folder, video_command
from emotion_ai.contract import EMOTIONS, MEAN_FACE
from emotion_ai.errors import AccessDeniedError, ConfigError, MissingExtraError, ServerUnreachableError, VideoError
from emotion_ai.inference.photo_files import find_photos
from emotion_ai.inference.results import CropReadings, Crops
from emotion_ai.video.analysis import VideoListener, VideoOptions, VideoProgress
from emotion_ai.video.events import Event, EventChanges
from emotion_ai.video.notice import LAW
from emotion_ai.video.webhook import Webhook
from tests.video.fakes import frame, write_clip

SERVER = "http://127.0.0.1:9"  # nothing listens there
EVENT = Event(1, 2.0, 3.5, "Happy", 0.9, 2.5)
SUMMARY = {"frames": 3, "tracks": [{}, {}], "events": 1}


class Happy:
    """Reads every face as the mean face, 70 % happy."""

    def read_crops(self, images: Crops) -> CropReadings:
        probabilities = np.tile(np.array([0.1, 0.05, 0.05, 0.7, 0.1], np.float32), (len(images), 1))
        return CropReadings(np.repeat(np.array(MEAN_FACE, np.float32)[None], len(images), 0), probabilities)

    def class_names(self) -> tuple[str, ...]:
        return EMOTIONS


@pytest.fixture
def analyzed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Replaces the reading: an event begins and ends; its arguments are recorded."""
    calls: list[tuple[Any, ...]] = []

    def analyze(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        listener: VideoListener = arguments[4]
        listener.on_events(EventChanges(began=(EVENT,)))
        listener.on_frame(frame(0, 0.0, {}), VideoProgress(1, 3, 0.0, 25.0, 0))
        listener.on_events(EventChanges(ended=(EVENT,)))
        return SUMMARY

    monkeypatch.setattr(video_run, "analyze", analyze)
    return calls


def test_events_are_lines_of_json_on_stdout(
    analyzed: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = VideoCommand("clip.mp4", tmp_path / "out", server=SERVER, json_lines=True)
    assert video_command(command, VideoOptions()) == 0
    out, err = capsys.readouterr()
    began, ended = map(json.loads, out.splitlines())
    assert began == {
        "event": "began", "id": "1-Happy-2.000", "source": "clip.mp4", "track": 1, "start": 2.0, "end": None,
        "expression": "Happy", "confidence": 0.9, "peak": 2.5,
    }  # fmt: skip
    assert ended == {**began, "event": "ended", "end": 3.5}
    notice, wrote = err.splitlines()
    assert LAW in notice
    assert wrote == f"wrote {tmp_path / 'out'}: 3 frames, 2 tracks, 1 events"


def test_without_json_lines_stdout_is_empty(
    analyzed: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video_command(VideoCommand("clip.mp4", tmp_path / "out", server=SERVER), VideoOptions())
    assert capsys.readouterr().out == ""


def test_a_webhook_that_fails_is_one_line_without_its_secrets(
    analyzed: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Webhook, "_post", lambda *_: "status 404")
    url = "https://ann:pass-word@hooks.example.org/secret?token=secret"
    command = VideoCommand(
        "rtsp://ann:pass-word@camera/1", tmp_path / "out", server=SERVER, json_lines=True, webhook=url
    )
    assert video_command(command, VideoOptions()) == 0
    out, err = capsys.readouterr()
    assert "webhook https://hooks.example.org: events are given up (status 404); they are in events.json" in err
    assert "webhook https://hooks.example.org: sent 0, given up 2" in err
    assert not any(secret in out + err for secret in ("pass-word", "secret", "ann"))


def test_ctrl_c_ends_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> dict[str, Any]:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "summary.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(video_run, "analyze", interrupted)
    assert video_command(VideoCommand("clip.mp4", tmp_path / "out", server=SERVER), VideoOptions()) == 130
    assert "--resume" in capsys.readouterr().err


def closed(*_: Any, **__: Any) -> None:
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_reader_of_events_that_goes_away_is_named_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def analyze(*arguments: Any) -> dict[str, Any]:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "summary.json").write_text("{}")
        arguments[4].on_events(EventChanges(began=(EVENT,)))
        raise AssertionError("not ended")

    monkeypatch.setattr(video_run, "analyze", analyze)
    monkeypatch.setattr(video_run, "print", closed, raising=False)
    with pytest.raises(BrokenPipeError) as caught:  # the exit code is that of a closed pipe
        video_command(VideoCommand("clip.mp4", tmp_path / "out", server=SERVER, json_lines=True), VideoOptions())
    assert caught.value.filename == "standard output"
    (_, line) = capsys.readouterr().err.splitlines()
    assert line.startswith("standard output was closed; ")
    assert line.endswith("the same command with --resume reads the rest")


def test_a_source_that_is_lost_names_the_way_to_read_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: Any) -> dict[str, Any]:
        arguments[4].on_frame(frame(0, 0.0, {}), VideoProgress(1, 3, 0.0, 25.0, 0))
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "summary.json").write_text('{"complete": false}')
        raise VideoError("http://host/a.mp4: the connection broke")

    monkeypatch.setattr(video_run, "analyze", lost)
    with pytest.raises(VideoError, match="the connection broke; .*--resume reads the rest"):
        video_command(VideoCommand("http://host/a.mp4", tmp_path / "out", server=SERVER), VideoOptions())


@pytest.mark.parametrize("complete", [True, False])
def test_a_server_that_denies_access_ends_the_run_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], complete: bool
) -> None:
    def denied(*arguments: Any) -> dict[str, Any]:
        arguments[4].on_frame(frame(0, 0.0, {}), VideoProgress(1, 3, 0.0, 25.0, 0))
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "summary.json").write_text(json.dumps({"complete": complete}))
        raise AccessDeniedError("status 401; give a token")

    monkeypatch.setattr(video_run, "analyze", denied)
    with pytest.raises(AccessDeniedError) as error:
        video_command(VideoCommand("clip.mp4", tmp_path / "out", server=SERVER), VideoOptions())
    assert str(error.value).startswith("status 401; give a token")
    assert ("--resume reads the rest" in str(error.value)) is not complete
    assert len(capsys.readouterr().err.splitlines()) == 1, "the notice"


def test_a_clip_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(VideoCommand, "opened", _reader)
    clip = write_clip(tmp_path / "numbers.mp4", 5)
    assert video_command(VideoCommand(str(clip), tmp_path / "out"), VideoOptions()) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["frames"] == 5
    assert "5 frames, 0 tracks, 0 events" in capsys.readouterr().err


def _reader(*_: Any) -> Any:
    from contextlib import nullcontext

    return nullcontext(Happy())


def test_a_server_that_is_away_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "numbers.mp4", 3)
    with pytest.raises(ServerUnreachableError):
        video_command(VideoCommand(str(clip), tmp_path / "out", server=SERVER), VideoOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (VideoCommand("a.mp4", table="xlsx"), "--table must be csv or parquet"),
        (VideoCommand("a.mp4", server=SERVER, model="emotion"), "--model must be face or keypoints"),
        (VideoCommand("a.mp4", resume=True, overwrite=True), "--resume continues"),
        (VideoCommand("a.mp4", version=3), "give --server as well"),
        (VideoCommand("a.mp4", timeout=-1), "--timeout must be seconds"),
        (VideoCommand("a.mp4", server=SERVER, webhook="nonsense"), "--webhook: not an address"),
    ],
)
def test_options_that_do_not_fit(command: VideoCommand, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        video_command(command, VideoOptions())


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("some/clip.mp4", "clip-video"),
        ("0", "camera-0-video"),
        ("rtsp://ann:pw@camera.example/live/one?key=x", "one-video"),
        ("http://camera.example", "camera.example-video"),
        ("a b$é.mp4", "a-b-é-video"),
    ],
)
def test_results_have_a_folder_named_for_the_source(source: str, folder: str) -> None:
    assert default_folder(source) == folder


def test_predict_points_to_video(tmp_path: Path) -> None:
    found = find_photos([tmp_path / "a clip.MP4", tmp_path / "photo.jpg"])
    assert [photo.path.name for photo in found.photos] == ["photo.jpg"]
    (problem,) = found.problems
    assert (
        problem == f"{tmp_path / 'a clip.MP4'}: is a video; read it with: emotion-ai video '{tmp_path / 'a clip.MP4'}'"
    )


@pytest.mark.parametrize(("package", "module"), [("pyarrow", "rows"), ("matplotlib", "timeline")])
def test_the_extra_to_install_is_video(monkeypatch: pytest.MonkeyPatch, package: str, module: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, f"emotion_ai.video.{module}", raising=False)
    with pytest.raises(MissingExtraError, match=r"emotion-ai\[video\]"):
        importlib.import_module(f"emotion_ai.video.{module}")


def test_a_served_model_needs_neither_pytorch_nor_tensorflow() -> None:
    hidden = ("torch", "torchvision", "tensorflow", "pandas", "sklearn")
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden})); import emotion_ai.cli.video_run"
    subprocess.run([sys.executable, "-c", code], check=True)
