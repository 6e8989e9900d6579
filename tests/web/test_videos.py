"""Videos of visitors: who may read and fetch them, how many, for how long, and what a process cannot do to the page."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from emotion_ai.web import video_process, video_view, videos
from emotion_ai.web.guard import Guard
from emotion_ai.web.limits import RateLimit
from emotion_ai.web.uploads import Uploads
from emotion_ai.web.video_process import Failure, VideoResult, VideoTask
from emotion_ai.web.videos import MAX_WAITING, MAX_WAITING_EACH, Video, Videos, Waiting
from tests.web.test_guard import API, JOIN, echo

TASK = VideoTask("http://127.0.0.1:9", 1, "serving_full", None, None, True, False, None)
COMMAND = (sys.executable, str(Path(__file__).with_name("video_worker.py")))


@pytest.fixture
def uploads(tmp_path: Path) -> Iterator[Uploads]:
    uploads = Uploads(tmp_path)
    uploads.videos.command = COMMAND
    yield uploads
    uploads.videos.close()


@pytest.fixture
def guard(uploads: Uploads) -> Guard:
    return Guard(echo, uploads, {4: ("video", "text")})


@pytest.fixture
def visitor(guard: Guard) -> Callable[..., TestClient]:
    """A browser with cookies and an address of its own."""
    return lambda address="10.0.0.1": TestClient(guard, base_url="http://127.0.0.1:7860", client=(address, 1))


def sent(client: TestClient, content: bytes | str = "read", name: str = "clip.mp4") -> str:
    answer = client.post("/video", params={"name": name}, content=content)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["video"])


def wait(condition: Callable[[], Any], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def started(uploads: Uploads, token: str, window: str = "w") -> Video:
    video = uploads.videos.start(token, window, TASK)
    assert video is not None
    return video


def finished(uploads: Uploads, token: str, window: str = "w") -> Video:
    video = started(uploads, token, window)
    wait(lambda: video.is_finished)
    return video


def test_a_video_is_read_and_its_results_are_its_senders(visitor: Callable[..., TestClient], uploads: Uploads) -> None:
    own, stranger = visitor(), visitor()
    token = sent(own, name="../../etc/my\nclip.MP4")
    sent(stranger)
    video = finished(uploads, token)
    assert isinstance(video.state, VideoResult)
    assert video.name == r"my\nclip.MP4"
    assert not video.file.exists(), "the upload is deleted once it was read"
    clip = own.get(f"/video/{token}/annotated.mp4", headers={"range": "bytes=256-511"})
    assert (clip.status_code, clip.content) == (206, bytes(range(256)))
    assert clip.headers["content-type"] == "video/mp4"
    assert clip.headers["cache-control"] == "no-store"
    table = own.get(f"/video/{token}/rows.csv")
    assert '"signature": "serving_full"' in table.text
    assert table.headers["content-disposition"].startswith("attachment")
    for name in ("annotated.mp4", "rows.csv"):
        assert stranger.get(f"/video/{token}/{name}").status_code == 403
        assert visitor().get(f"/video/{token}/{name}").status_code == 403
    for name in ("secret.txt", "timeline.png", "events.json", "..%2Fvideo.mp4", "rows.csv/", ".", "video.mp4"):
        assert own.get(f"/video/{token}/{name}").status_code in (403, 404), name
    for path in (f"/video/{token}", "/video", f"/video/{token[:-1]}/rows.csv", f"/video/{'x' * 32}/rows.csv"):
        assert own.get(path).status_code in (403, 404), path


def test_only_its_sender_has_a_video_read(visitor: Callable[..., TestClient], uploads: Uploads) -> None:
    own, stranger = visitor(), visitor()
    token = sent(own)
    body = {"data": [token, "newest"], "fn_index": 4, "session_hash": "window1", "trigger_id": None}
    assert own.post(JOIN, json=body).status_code == 200
    assert stranger.post(JOIN, json=body).status_code == 403
    for value in ("x" * 32, "/etc/passwd", {"path": "/etc/passwd"}, [token], 7, True, "\u00e9", "a" * 10_000):
        assert own.post(JOIN, json={**body, "data": [value, "newest"]}).status_code in (400, 403), value
    assert own.post(JOIN, json={**body, "data": ["", "newest"]}).status_code == 200


def test_a_visitors_next_video_ends_the_last_one(visitor: Callable[..., TestClient], uploads: Uploads) -> None:
    own = visitor()
    first = [started(uploads, sent(own, "wait /none"))]
    wait(lambda: not isinstance(first[0].state, Waiting))
    folder = first[0].folder
    finished(uploads, sent(own))
    wait(lambda: first[0].is_finished)
    first.clear()
    wait(lambda: not folder.exists())
    assert len(list(uploads.folder.iterdir())) == 1


def test_a_window_that_closes_takes_its_video_along(visitor: Callable[..., TestClient], uploads: Uploads) -> None:
    tokens = [sent(visitor()), sent(visitor(), "wait /none")]
    finished(uploads, tokens[0], "two")
    running = [started(uploads, tokens[1], "one")]
    uploads.videos.close_window("")
    assert len(list(uploads.folder.iterdir())) == 2
    uploads.videos.close_window("two")
    wait(lambda: len(list(uploads.folder.iterdir())) == 1)
    uploads.videos.close_window("one")
    wait(lambda: running[0].is_finished)
    running.clear()
    wait(lambda: not list(uploads.folder.iterdir()))


def test_videos_expire(
    visitor: Callable[..., TestClient], uploads: Uploads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own, other, third = visitor("1.1.1.1"), visitor("1.1.1.2"), visitor("1.1.1.3")
    never, token = sent(other), sent(own)
    finished(uploads, token)
    running = [started(uploads, sent(third, f"wait {tmp_path / 'go'}"))]
    wait(lambda: isinstance(running[0].state, video_process.Progress) and running[0].state.frames)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + videos.START_SECONDS + 1)
    uploads.drop_expired()
    assert uploads.videos.start(never, "w", TASK) is None, "no window asked for it"
    assert own.get(f"/video/{token}/rows.csv").status_code == 200
    monkeypatch.setattr(time, "monotonic", lambda: now + videos.START_SECONDS + videos.KEPT_SECONDS + 2)
    uploads.drop_expired()
    assert own.get(f"/video/{token}/rows.csv").status_code == 403
    monkeypatch.undo()
    (tmp_path / "go").touch()
    wait(lambda: running[0].is_finished)
    running.clear()
    wait(lambda: not list(uploads.folder.glob("video-*")))


def test_videos_wait_for_their_turn_and_the_queue_is_bounded(
    visitor: Callable[..., TestClient], uploads: Uploads, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    queued = [started(uploads, sent(visitor(f"10.0.0.{n}"), f"wait {go}")) for n in range(MAX_WAITING)]
    late = started(uploads, sent(visitor("10.0.1.1")))
    assert isinstance(late.state, Failure)
    assert "a few minutes" in late.state.text
    assert not late.file.exists()
    ahead = [video.state.ahead for video in queued if isinstance(video.state, Waiting)]
    assert ahead == sorted(ahead)
    assert len(ahead) >= MAX_WAITING - 4
    assert "other video" in video_view.video_state(queued[-1])
    go.touch()
    wait(lambda: all(isinstance(video.state, VideoResult) for video in queued), 60)


def test_an_address_has_a_share_of_the_queue(
    visitor: Callable[..., TestClient], uploads: Uploads, tmp_path: Path
) -> None:
    own = [started(uploads, sent(visitor(), f"wait {tmp_path / 'go'}")) for _ in range(MAX_WAITING_EACH + 1)]
    other = started(uploads, sent(visitor("10.0.0.2")))
    assert [isinstance(video.state, Failure) for video in (*own, other)] == [False] * MAX_WAITING_EACH + [True, False]
    (tmp_path / "go").touch()
    wait(lambda: other.is_finished)


@pytest.mark.parametrize(
    ("content", "text"),
    [("crash", "damaged"), ("garbage", "damaged"), ("endless", "damaged"), ("silent", "stood still")],
)
def test_a_process_that_fails_is_explained(
    visitor: Callable[..., TestClient], uploads: Uploads, monkeypatch: pytest.MonkeyPatch, content: str, text: str
) -> None:
    if content == "silent":
        monkeypatch.setattr(video_process, "SILENT_SECONDS", 1.0)
    video = finished(uploads, sent(visitor(), content))
    assert isinstance(video.state, Failure)
    assert text in video.state.text
    assert not video.file.exists()
    assert "ea-notice" in video_view.video_state(video)


def test_reading_ends_after_a_while(
    visitor: Callable[..., TestClient], uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_process, "MAX_SECONDS", 0.5)
    video = finished(uploads, sent(visitor(), "wait /none"))
    assert isinstance(video.state, Failure)
    assert "took longer" in video.state.text


def test_a_video_that_is_stopped_shows_what_was_read(visitor: Callable[..., TestClient], uploads: Uploads) -> None:
    token = sent(visitor(), "wait /none")
    video = started(uploads, token)
    wait(lambda: isinstance(video.state, video_process.Progress) and video.state.frames)
    uploads.videos.stop("another")
    uploads.videos.stop(token)
    wait(lambda: video.is_finished)
    assert isinstance(video.state, VideoResult)


def test_uploads_are_limited(
    visitor: Callable[..., TestClient], guard: Guard, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.clips = RateLimit(2)
    own = visitor()
    huge = own.post("/video", content=b"x", headers={"content-length": str(videos.MAX_VIDEO_BYTES + 1)})
    assert (huge.status_code, huge.json()["detail"]) == (413, "This video is too large; one may have at most 100 MB.")
    assert own.post("/video", content=iter([b"x"])).status_code == 411
    assert [own.post("/video", content=b"x").status_code for _ in range(3)] == [200, 200, 429]
    assert visitor("10.0.0.9").post("/video", content=b"x", headers={"origin": "http://evil"}).status_code == 403
    monkeypatch.setattr(Videos, "has_room", lambda *_: False)
    full = visitor("10.0.0.8").post("/video", content=b"x")
    assert (full.status_code, "no room" in full.json()["detail"]) == (507, True)
    assert len(list(uploads.folder.iterdir())) == 1, "a visitor has one video at most"


def test_a_broken_upload_leaves_nothing(visitor: Callable[..., TestClient], uploads: Uploads) -> None:
    answer = visitor().post("/video", content=b"longer than it says", headers={"content-length": "3"})
    assert answer.status_code == 400
    wait(lambda: not list(uploads.folder.iterdir()))


def test_all_results_together_are_bounded(
    visitor: Callable[..., TestClient], guard: Guard, uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard.clips = RateLimit(100)
    uploads.videos._kept.max_bytes = 100_000
    own = visitor("10.0.0.7")
    token = sent(own)
    finished(uploads, token)
    for n in range(12):
        finished(uploads, sent(visitor("10.0.0.8")), f"w{n}")
    assert sum(path.stat().st_size for path in uploads.folder.rglob("*") if path.is_file()) < 200_000
    assert own.get(f"/video/{token}/annotated.mp4").status_code == 200, "an address displaces only its own"


def test_closing_ends_the_processes(visitor: Callable[..., TestClient], uploads: Uploads) -> None:
    video = started(uploads, sent(visitor(), "wait /none"))
    wait(lambda: isinstance(video.state, video_process.Progress) and video.state.frames)
    uploads.videos.close()
    wait(lambda: video.is_finished, 5)


def test_what_was_found_is_shown(visitor: Callable[..., TestClient], uploads: Uploads) -> None:
    token = sent(visitor(), name="<b>clip.mp4")
    shown = video_view.video_state(finished(uploads, token))
    assert f'src="video/{token}/annotated.mp4"' in shown
    assert "&lt;b&gt;clip.mp4" in shown
    assert "<b>" not in shown.replace("<b ", "")
    assert 'data-seconds="1.250"' in shown
    assert "Happy 40%, uncertain 60%" in shown or "uncertain 60%, Happy 40%" in shown
    assert 'title="Happy, 0:00.0 to 0:04.0"' in shown
    assert f"{API}" not in shown
