"""The annotated clip: every frame at its time, its sound kept, whole after any kill."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_ai.errors import VideoError
from emotion_ai.inference import canvas
from emotion_ai.video.clip import ClipWriter, draw
from emotion_ai.video.frames import FrameReading, TrackedFace
from emotion_ai.video.sources import open_source
from tests.video.clips import FPS, is_red, marked, number_of, write_clip
from tests.video.fakes import face, probabilities


def write(writer: ClipWriter, numbers: range) -> None:
    for number in numbers:
        writer.write(marked(number), number / FPS)


def shown(path: Path) -> tuple[list[int], list[float]]:
    """The numbers that the frames of a clip bear, and their times."""
    with open_source(path) as source:
        frames = list(source)
    return [number_of(frame.rgb) for frame in frames], [frame.seconds for frame in frames]


def streams_of(path: Path) -> dict[str, Any]:
    """Kind and codec, and of each the first and last time."""
    with av.open(str(path)) as container:
        found = {stream.type: stream.codec_context.name for stream in container.streams}
        spans: dict[str, list[float]] = {kind: [] for kind in found}
        for packet in container.demux():
            if packet.pts is not None:
                spans[packet.stream.type].append(float(packet.pts * packet.time_base))
    return {kind: (codec, min(spans[kind]), max(spans[kind])) for kind, codec in found.items()}


def test_a_clip_that_any_browser_plays(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path)
    write(writer, range(30))
    path = writer.finish()
    assert path == tmp_path / "annotated.mp4"
    numbers, seconds = shown(path)
    assert numbers == list(range(30))
    assert seconds == pytest.approx(np.arange(30) / FPS)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 128, 64)
        assert container.duration == 1_200_000
    with open_source(path) as source:
        assert is_red(next(iter(source)).rgb, 0.1, 0.1)
    assert [file.name for file in tmp_path.iterdir()] == ["annotated.mp4"]


def test_no_frame_makes_no_clip(tmp_path: Path) -> None:
    assert ClipWriter(tmp_path).finish() is None
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_and_frames_of_another_size(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path)
    writer.write(np.full((63, 127, 3), 200, np.uint8), 0.0)
    writer.write(np.full((64, 32, 3), 200, np.uint8), 0.04)
    writer.write(np.full((1000, 2000, 3), 200, np.uint8), 0.08)
    path = writer.finish()
    assert path is not None
    with open_source(path) as source:
        first, tall, wide = (frame.rgb.astype(int) for frame in source)
    assert first.shape == (64, 128, 3)
    assert first.min() > 180
    assert (tall[32, 64].min() > 180, tall[32, 10].max() < 30) == (True, True)
    assert wide.min() > 180


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.mkv", "libmp3lame", "mp3float"),
        ("a.webm", "libopus", "aac"),
        ("a.ts", "aac", "aac"),
        ("a.mov", "pcm_s16le", "aac"),
    ],
)
def test_sound_is_kept(name: str, codec: str, kept: str, tmp_path: Path) -> None:
    source = write_clip(tmp_path / name, "libvpx" if name == "a.webm" else "libx264", 50, sound=codec)
    writer = ClipWriter(tmp_path, source)
    write(writer, range(50))
    path = writer.finish()
    assert path is not None
    found = streams_of(path)
    assert found["audio"][0] == kept
    assert found["audio"][1] == pytest.approx(0, abs=0.06)
    assert found["audio"][2] == pytest.approx(1.96, abs=0.1)
    with av.open(str(path)) as container:
        levels = [np.abs(frame.to_ndarray()).max() for frame in container.decode(audio=0)]
    assert max(levels) > 0.1


def test_sound_of_a_part_of_the_source(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", count=50, sound="aac")
    writer = ClipWriter(tmp_path, source)
    write(writer, range(20, 40))
    path = writer.finish()
    assert path is not None
    assert shown(path)[0] == list(range(20, 40))
    found = streams_of(path)
    assert found["video"][1:] == pytest.approx((0, 0.76), abs=0.001)
    assert found["audio"][1:] == pytest.approx((0, 0.76), abs=0.05)


def test_a_source_whose_sound_is_gone_gives_a_silent_clip(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path, tmp_path / "gone.mp4")
    write(writer, range(3))
    path = writer.finish()
    assert path is not None
    assert set(streams_of(path)) == {"video"}


def test_a_resumed_clip_has_each_frame_once(tmp_path: Path) -> None:
    """As after kills: a writer is left as it is, some frames after its state was saved."""
    state: dict[str, Any] | None = None
    abandoned = []
    for start, saved, written in ((0, 7, 12), (7, 7, 9), (7, 23, 23), (23, 24, 40)):
        writer = ClipWriter(tmp_path, state=state)
        write(writer, range(start, saved))
        state = json.loads(json.dumps(writer.state()))
        write(writer, range(saved, written))
        abandoned.append(writer)
    writer = ClipWriter(tmp_path, state=state)
    write(writer, range(24, 30))
    path = writer.finish()
    assert path is not None
    numbers, seconds = shown(path)
    assert numbers == list(range(30))
    assert seconds == pytest.approx(np.arange(30) / FPS, abs=0.001)


def test_parts_stay_few_and_join_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_ai.video.clip._JOINED", 3)
    writer, before, most = ClipWriter(tmp_path), None, 0
    for number in range(60):
        write(writer, range(number, number + 1))
        state = json.loads(json.dumps(writer.state()))
        most = max(most, len(list((tmp_path / "annotated.parts").iterdir())))
        if number % 7 == 5:  # killed after the state was saved
            writer, before = ClipWriter(tmp_path, state=state), None
        elif number % 7 == 3 and before is not None:  # and before
            writer = ClipWriter(tmp_path, state=before)
            write(writer, range(number, number + 1))
            state = writer.state()
        before = state
    assert most <= 3 * 4 + 3
    path = writer.finish()
    assert path is not None
    numbers, seconds = shown(path)
    assert numbers == list(range(60))
    assert seconds == pytest.approx(np.arange(60) / FPS, abs=0.001)


def test_a_new_clip_replaces_what_another_run_left(tmp_path: Path) -> None:
    left = ClipWriter(tmp_path)
    write(left, range(5))
    left.state()
    writer = ClipWriter(tmp_path)
    write(writer, range(3))
    path = writer.finish()
    assert path is not None
    assert shown(path)[0] == [0, 1, 2]


def test_a_part_that_is_gone(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path)
    write(writer, range(5))
    state = writer.state()
    shutil.rmtree(tmp_path / "annotated.parts")
    with pytest.raises(VideoError, match=r"000000-0\.mkv: this part of the clip is gone; start a new run"):
        ClipWriter(tmp_path, state=state)


def test_times_closer_than_a_millisecond(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path)
    for number in range(4):
        writer.write(marked(number), number * 0.0001)
    path = writer.finish()
    assert path is not None
    assert shown(path)[0] == [0, 1, 2, 3]


def frame_with(*tracks: int) -> FrameReading:
    happy = face(probabilities("Happy"))
    faces = []
    for place, track in enumerate(tracks):
        box = replace(happy.box, left=20.0 + 150 * place, top=100.0)
        moved = replace(happy, box=box, points=box.to_photo(happy.keypoints))
        faces.append(TrackedFace(track, moved, moved))
    return FrameReading(0, 0.0, tuple(faces), np.full((480, 640, 3), 90, np.uint8))


def test_faces_are_drawn_with_their_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    original = canvas.Layer.text

    def text(self: canvas.Layer, x: float, y: float, words: str, *more: Any) -> None:
        texts.append(words)
        original(self, x, y, words, *more)

    monkeypatch.setattr(canvas.Layer, "text", text)
    drawn: NDArray[np.uint8] = draw(frame_with(3, 12))
    assert drawn.shape == (480, 640, 3)
    assert texts == ["#3 Happy 90%", "#12 Happy 90%"]
    assert (drawn != 90).any()
    assert (draw(frame_with()) == 90).all()
