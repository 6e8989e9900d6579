"""Cameras and streams: cut off, stalled or unplugged, they are connected again; what comes too fast is dropped."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from tenacity.wait import wait_exponential

from emotion_ai.errors import ConfigError, VideoError
from emotion_ai.video import streams
from emotion_ai.video.containers import Decoded
from emotion_ai.video.frames import Frame
from emotion_ai.video.saving import source_identity
from emotion_ai.video.sources import open_source
from tests.video.clips import marked, number_of, write_clip
from tests.video.stream_servers import http_server, rtsp_server, send, silent_server

BROKE = "the connection broke, or there is none"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connects again without a long wait."""
    monkeypatch.setattr(streams, "_BACKOFF", wait_exponential(multiplier=0.02, max=0.1))


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, count=50, options={"bf": "0"}, muxing={"movflags": "faststart"}).read_bytes()


@pytest.fixture(scope="module")
def ts(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.ts", count=50, options={"bf": "0"}).read_bytes()


def check(frames: list[Frame]) -> None:
    """Numbers count up, times increase."""
    assert [frame.number for frame in frames] == list(range(len(frames)))
    assert (np.diff([frame.seconds for frame in frames]) > 0).all()


def test_a_file_on_a_server_is_no_live_stream(mp4: bytes) -> None:
    with http_server(lambda request, _: send(request, mp4, len(mp4))) as url, open_source(url, every="7") as source:
        assert (source.live, source.frames) == (False, 8)
        assert source.fps == pytest.approx(25 / 7)
        assert [number_of(frame.rgb) for frame in source] == list(range(0, 50, 7))


@pytest.mark.parametrize("stall", [0.0, 2.0])
def test_a_file_that_is_cut_off_goes_on_where_it_was(stall: float, mp4: bytes) -> None:
    notes: list[str] = []

    def serve(request: BaseHTTPRequestHandler, number: int) -> None:
        send(request, mp4[: len(mp4) * (3 if number == 0 else 5) // 5], len(mp4))
        time.sleep(stall if number == 0 else 0)

    with http_server(serve) as url, open_source(url, timeout=0.5, notify=notes.append) as source:
        frames = list(source)
    assert [number_of(frame.rgb) for frame in frames] == [frame.number for frame in frames] == list(range(50))
    assert [frame.seconds for frame in frames] == pytest.approx(np.arange(50) / 25)
    assert notes[0] == f"{url}: {'no data for 0.5 s' if stall else BROKE}; connecting again"
    assert notes[1] == f"{url}: connected again"


def test_a_file_that_is_always_cut_off(mp4: bytes) -> None:
    notes: list[str] = []
    frames: list[Frame] = []
    with http_server(lambda request, _: send(request, mp4[: len(mp4) * 9 // 10], len(mp4))) as url:
        source = open_source(url, notify=notes.append)
        with source, pytest.raises(VideoError, match="the connection broke.*; check the "):
            frames.extend(iter(source))
    assert 5 < len(frames) < 50
    check(frames)
    assert len(notes) == streams.ATTEMPTS


def test_a_live_stream_that_is_cut_off_or_stalls(ts: bytes) -> None:
    notes: list[str] = []

    def serve(request: BaseHTTPRequestHandler, number: int) -> None:
        send(request, ts, None, pace=0.005)
        time.sleep(2.0 if number == 1 else 0)

    with http_server(serve) as url, open_source(url, timeout=0.5, limit=120, notify=notes.append) as source:
        assert source.live
        frames = list(source)
    assert len(frames) == 120
    assert (np.diff([frame.seconds for frame in frames]) > 0).all()
    assert frames[-1].number + 1 == len(frames) + source.dropped
    lost = [note for note in notes if note.endswith("connecting again")]
    assert lost[:2] == [
        f"{url}: {BROKE}; connecting again",
        f"{url}: no data for 0.5 s; connecting again",
    ]
    assert f"{url}: connected again" in notes


def test_rtsp(ts: bytes) -> None:
    notes: list[str] = []
    with rtsp_server(ts) as url, open_source(url, timeout=1.0, limit=110, notify=notes.append) as source:
        assert source.live
        frames = list(source)
    assert len(frames) == 110
    assert {number_of(frame.rgb) for frame in frames} <= set(range(50))
    assert (np.diff([frame.seconds for frame in frames]) > 0).all()
    assert len([note for note in notes if note.endswith("connecting again")]) >= 2


def test_a_live_stream_drops_frames_rather_than_lag(ts: bytes) -> None:
    numbers = []
    with http_server(lambda request, _: send(request, ts, None, pace=0.01)) as url, open_source(url, limit=5) as source:
        for frame in source:
            numbers.append(frame.number)
            time.sleep(0.1)
        assert source.dropped > 0
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] > 8


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "404 Not Found"), (401, "give user and password"), (403, "give user and password"), (500, "5XX")],
)
def test_errors_of_a_server(status: int, words: str) -> None:
    with http_server(lambda request, _: request.send_error(status)) as url:
        secret = url.replace("://", "://user:hidden@") + "?token=hidden"
        with pytest.raises(VideoError) as caught, open_source(secret):
            pass
    assert str(caught.value).startswith(f"{url}: ")
    assert words.lower() in str(caught.value).lower()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_is_silent_or_away(scheme: str) -> None:
    with silent_server() as port:
        started = time.monotonic()
        with pytest.raises(VideoError, match="no data for 0.5 s; check the address"):
            open_source(f"{scheme}://127.0.0.1:{port}/clip", timeout=0.5).__enter__()
        assert time.monotonic() - started < 3
    with pytest.raises(VideoError, match=r"cannot be read \(connection refused\); check that it is there"):
        open_source(f"{scheme}://127.0.0.1:{port}/clip").__enter__()


@pytest.mark.parametrize("url", ["ftp://host/a.mp4", "file:///etc/passwd", "concat://a|b", "ftp://me:hidden@host/a"])
def test_other_schemes(url: str) -> None:
    with pytest.raises(VideoError, match=r":// is not supported; use http, ") as caught:
        open_source(url)
    assert "hidden" not in str(caught.value)


def test_a_live_stream_cannot_be_resumed(ts: bytes) -> None:
    words = "is live and cannot be resumed; start a new run"
    with http_server(lambda request, _: send(request, ts, None)) as url, pytest.raises(ConfigError, match=words):
        open_source(url, resume_at=5).__enter__()


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(VideoError, match=r"camera 77: .*check that it is plugged in") as caught:
        open_source("77")
    with pytest.raises(VideoError, match=r"camera 77: .*check that it is plugged in"):
        open_source(77)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EBUSY, "cannot be read (device or resource busy); close the program that uses it"),
        (errno.EACCES, "cannot be read (permission denied); add your user to its group, often `video`"),
        (errno.ENODEV, "cannot be read (no such device); check that it is a camera, and plugged in"),
        (errno.ENOTTY, "cannot be read (inappropriate ioctl for device); check that it is a camera, and plugged in"),
        (errno.EINVAL, "cannot be read (invalid argument); check that it is a camera, and plugged in"),
        (errno.EIO, "cannot be read (input/output error); check that it is a camera, and plugged in"),
    ],
)
def test_a_camera_that_cannot_be_opened(number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "open", lambda *_, **__: av.error.err_check(-number))
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    with pytest.raises(VideoError) as caught:
        open_source(0).__enter__()
    assert str(caught.value) == f"camera 0: {words}"


def test_a_camera_has_no_content_to_compare() -> None:
    assert source_identity("0") == {"address": "0"}
    assert source_identity(os.devnull) == {"address": os.devnull}, "as /dev/video0 is a device"


def test_a_camera_that_sends_pictures_has_the_time_of_the_wall() -> None:
    """FFmpeg would give bare pictures 25 per second, however many there are."""
    content = BytesIO()
    Image.fromarray(marked(7)).save(content, "JPEG")
    picture = content.getvalue()

    def serve(request: BaseHTTPRequestHandler, number: int) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        for _ in range(100):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            request.wfile.write(head.encode() + picture + b"\r\n")
            time.sleep(0.1)

    with http_server(serve) as url, open_source(url, limit=40) as source:
        frames = list(source)
    assert source.live
    assert number_of(frames[-1].rgb) == 7
    steps = np.diff([frame.seconds for frame in frames])[-10:]
    assert steps.mean() > 0.09


class Camera:
    """What PyAV's device would be: it is unplugged after every third frame, and away for a while."""

    size, seconds, fps, is_playlist, has_clock, broken = None, None, 30.0, False, True, 0
    opened = 0

    def __init__(self, opening: Any) -> None:
        type(self).opened += 1
        if Camera.opened in (2, 3):
            raise VideoError(f"{opening.name}: cannot be read (no such device); check that it is there and reachable")
        self.name = opening.name

    def __iter__(self) -> Iterator[Decoded]:
        for _ in range(3):
            yield Decoded(None, None, None)  # type: ignore[arg-type]
        raise VideoError(f"{self.name}: cannot be read (no such device); check that it is there and reachable")

    def close(self) -> None: ...


def test_a_camera_that_is_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(streams, "VideoContainer", Camera)
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    monkeypatch.setattr(Decoded, "rgb", lambda self: np.zeros((8, 8, 3), np.uint8))
    with open_source(0, limit=7, notify=notes.append) as source:
        assert source.live
        numbers, seconds = zip(*[(frame.number, frame.seconds) for frame in source], strict=True)
    assert len(set(numbers)) == 7
    assert numbers[-1] + 1 == 7 + source.dropped
    assert list(seconds) == sorted(set(seconds))
    assert [note for note in notes if "0.0" in note or "again" in note][:4] == [
        "camera 0: cannot be read (no such device); connecting again",
        "camera 0: cannot be read (no such device); connecting again in 0.02 s",
        "camera 0: cannot be read (no such device); connecting again in 0.04 s",
        "camera 0: connected again",
    ]


READ = """
import sys
from emotion_ai.video.sources import open_source
print("start", flush=True)
with open_source(sys.argv[1], timeout=30) as source:
    for frame in source:
        print(frame.number, flush=True)
"""


@pytest.mark.parametrize("when", ["connecting", "stalled"])
def test_ctrl_c_ends_at_once(when: str, ts: bytes, tmp_path: Path) -> None:
    def serve(request: BaseHTTPRequestHandler, number: int) -> None:
        if number == 0 and when != "connecting":
            send(request, ts, None)
        time.sleep(20)

    with http_server(serve) as url:
        command = [sys.executable, "-c", READ, url]
        reading = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert reading.stdout is not None
            assert reading.stdout.readline() == "start\n"
            if when != "connecting":
                assert reading.stdout.readline() == "0\n"
            time.sleep(0.7)
            asked = time.monotonic()
            os.kill(reading.pid, signal.SIGINT)
            _, errors = reading.communicate(timeout=10)
            assert time.monotonic() - asked < 6
            assert "KeyboardInterrupt" in errors
        finally:
            reading.kill()
