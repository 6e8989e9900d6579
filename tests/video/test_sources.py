"""Frames of files and folders: all of them, in order, upright, with their numbers and times."""

import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from emotion_ai.errors import ConfigError, VideoError
from emotion_ai.video import sources
from emotion_ai.video.buffer import MAX_FRAMES
from emotion_ai.video.frames import Frame
from emotion_ai.video.sources import open_source
from tests.video.clips import FPS, HEIGHT, WIDTH, is_red, marked, number_of, write_clip


def frames_of(path: Path | str, **options: object) -> list[Frame]:
    with open_source(path, **options) as source:  # type: ignore[arg-type]
        return list(source)


def numbers_of(path: Path | str, **options: object) -> list[int]:
    """The numbers of the frames, which their pixels confirm."""
    frames = frames_of(path, **options)
    assert [number_of(frame.rgb) for frame in frames] == [frame.number for frame in frames]
    return [frame.number for frame in frames]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 frames, two seconds."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", count=50, options={"g": "10"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames, named without leading zeros."""
    made = tmp_path_factory.mktemp("frames")
    for number in range(12):
        Image.fromarray(marked(number)).save(made / f"frame {number}.png")
    (made / "notes.txt").write_text("not a frame")
    (made / ".hidden.png").write_bytes(b"")
    return made


@pytest.mark.parametrize(
    ("name", "codec", "format"),
    [
        ("h264.mp4", "libx264", "yuv420p"),
        ("h264.mov", "libx264", "yuv444p"),
        ("h264.ts", "libx264", "yuv420p"),
        ("full range.mkv", "mjpeg", "yuvj420p"),
        ("hevc.mp4", "libx265", "yuv420p"),
        ("ten bits.mkv", "libx265", "yuv420p10le"),
        ("vp8.webm", "libvpx", "yuv420p"),
        ("vp9.webm", "libvpx-vp9", "yuv420p"),
        ("av1.mp4", "libsvtav1", "yuv420p"),
        ("mpeg4.avi", "mpeg4", "yuv420p"),
        ("gray.mkv", "ffv1", "gray"),
        ("animated.gif", "gif", "rgb8"),
    ],
)
def test_codecs(name: str, codec: str, format: str, tmp_path: Path) -> None:
    frames = frames_of(write_clip(tmp_path / name, codec, 12, format=format))
    assert [number_of(frame.rgb) for frame in frames] == list(range(12))
    assert [frame.number for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(12) / FPS, atol=0.011)
    assert all(frame.rgb.shape == (HEIGHT, WIDTH, 3) and frame.rgb.dtype == np.uint8 for frame in frames)
    assert format == "gray" or is_red(frames[0].rgb, 0.1, 0.1)


def test_what_a_source_says_of_itself(clip: Path) -> None:
    with open_source(clip, every="10") as source:
        assert (source.name, source.live, source.fps, source.frames) == (str(clip), False, 2.5, 5)
        assert len(list(source)) == 5
        assert (source.dropped, source.broken) == (0, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, range(50)),
        ({"every": "7"}, range(0, 50, 7)),
        ({"every": "0.2s"}, range(0, 50, 5)),
        ({"every": "0.3 s"}, [0, 8, 15, 23, 30, 38, 45]),
        ({"start": 0.4}, range(10, 50)),
        ({"end": 0.4}, range(10)),
        ({"start": 0.4, "end": 1.2, "every": "4"}, range(10, 30, 4)),
        ({"start": 0.4, "every": "0.4s", "limit": 3}, [10, 20, 30]),
        ({"limit": 1}, [0]),
        ({"limit": 1000}, range(50)),
        ({"every": "1000"}, [0]),
        ({"every": "1000s"}, [0]),
    ],
)
def test_selection(options: dict[str, object], expected: range | list[int], clip: Path) -> None:
    assert numbers_of(clip, **options) == list(expected)
    with open_source(clip, **options) as source:  # type: ignore[arg-type]
        assert source.frames == len(list(source)) == len(expected)


@pytest.mark.parametrize("options", [{}, {"every": "7"}, {"every": "0.3s"}, {"start": 0.5, "limit": 20}])
@pytest.mark.parametrize("cut", [0, 1, 13, 49, 50])
def test_a_resumed_run_reads_the_other_frames(options: dict[str, object], cut: int, clip: Path) -> None:
    whole = frames_of(clip, **options)
    rest = frames_of(clip, resume_at=cut, **options)
    expected = [frame for frame in whole if frame.number >= cut]
    assert [(frame.number, frame.seconds) for frame in rest] == [(frame.number, frame.seconds) for frame in expected]
    for frame, same in zip(rest, expected, strict=True):
        np.testing.assert_array_equal(frame.rgb, same.rgb)


@pytest.mark.parametrize(
    "options",
    [
        {"every": "0"},
        {"every": "-1s"},
        {"every": "0s"},
        {"every": "1.5"},
        {"every": "often"},
        {"every": ""},
        {"start": -1.0},
        {"start": float("nan")},
        {"start": float("inf")},
        {"start": 2.0, "end": 2.0},
        {"end": float("nan")},
        {"limit": 0},
        {"resume_at": -1},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"timeout": 0.0},
    ],
)
def test_options_that_are_not_valid(options: dict[str, object], clip: Path) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(reversed(options)))}` must be"):
        open_source(clip, **options)  # type: ignore[arg-type]


def test_a_start_after_the_end(clip: Path) -> None:
    with pytest.raises(VideoError, match=r"clip\.mp4: has no frame from 2 s on; use an earlier start"):
        frames_of(clip, start=2.0)


def test_variable_frame_rates(tmp_path: Path) -> None:
    times = [0, 0.04, 0.05, 0.5, 0.9, 0.91, 2.0, 2.001]
    path = write_clip(tmp_path / "vfr.mkv", count=len(times), times=times)
    assert [frame.seconds for frame in frames_of(path)] == pytest.approx(times, abs=0.0011)
    assert numbers_of(path, every="0.5s") == [0, 3, 6]
    assert numbers_of(path, start=0.5, end=2.0) == [3, 4, 5]


@pytest.mark.parametrize("first", [200, 2**33 / 90_000 - 1])
def test_a_clock_that_jumps_back_goes_on(first: float, tmp_path: Path) -> None:
    """Of transport streams that are joined, or older than the 26.5 hours after which their clock starts anew."""
    muxing = {"mpegts_copyts": "1", "avoid_negative_ts": "disabled"}
    times = [first + number / FPS for number in range(50)]
    late = write_clip(tmp_path / "late.ts", "libx264", 50, times=times, muxing=muxing).read_bytes()
    early = write_clip(tmp_path / "early.ts", "libx264", 50, muxing=muxing).read_bytes()
    (tmp_path / "joined.ts").write_bytes(late + early)
    seconds = [frame.seconds for frame in frames_of(tmp_path / "joined.ts")]
    assert len(seconds) == 100
    np.testing.assert_allclose(seconds, np.arange(100) / FPS, atol=0.011)


@pytest.mark.parametrize("options", [{"start": 1.2}, {"resume_at": 40}])
def test_a_long_way_to_the_first_frame_is_explained(
    options: dict[str, float], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    assert frames_of(clip, notify=notes.append, **options)
    assert notes == []
    monkeypatch.setattr(sources, "_SILENCE", 0.0)
    assert frames_of(clip, notify=notes.append, **options)
    assert notes == [f"{clip}: passes over what is not read, about 0 s more"]
    assert frames_of(clip, notify=notes.append)
    assert len(notes) == 1


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mkv", count=3, times=[7, 7.04, 7.08])
    assert [frame.seconds for frame in frames_of(path)] == pytest.approx([0, 0.04, 0.08])


@pytest.mark.parametrize(
    ("rotation", "mirrored", "corner"),
    [(0, False, (0, 0)), (90, False, (1, 0)), (180, False, (1, 1)), (-90, False, (0, 1)), (0, True, (0, 1))],
)
@pytest.mark.parametrize("name", ["turned.mp4", "turned.mkv"])
def test_rotation(name: str, rotation: float, mirrored: bool, corner: tuple[int, int], tmp_path: Path) -> None:
    """The red corner is where a player shows it; 90 is counter-clockwise."""
    frame = frames_of(write_clip(tmp_path / name, count=2, rotation=rotation, mirrored=mirrored))[0]
    assert frame.rgb.shape[:2] == ((HEIGHT, WIDTH) if rotation % 180 == 0 else (WIDTH, HEIGHT))
    assert [
        place for place in ((0, 0), (0, 1), (1, 0), (1, 1)) if is_red(frame.rgb, *np.abs(np.array(place) - 0.1))
    ] == [corner]
    assert frame.rgb.flags.c_contiguous


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "wide.mp4", count=2, aspect=Fraction(3, 2))
    assert frames_of(path)[1].rgb.shape == (HEIGHT, WIDTH * 3 // 2, 3)
    path = write_clip(tmp_path / "absurd.mp4", count=2, aspect=Fraction(1000, 1))
    assert frames_of(path)[1].rgb.shape == (HEIGHT, WIDTH, 3)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    frame = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    frame.paste((200, 0, 0, 255), (0, 0, 32, 64))
    frame.save(tmp_path / "clear.gif", save_all=True, append_images=[frame.rotate(90)], duration=100, disposal=2)
    rgb = frames_of(tmp_path / "clear.gif")[0].rgb
    assert rgb[32, 48].tolist() == [255, 255, 255]
    assert rgb[32, 16].tolist() == [200, 0, 0]


def test_4k(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "4k.mp4", count=2, size=(3840, 2160), options={"preset": "ultrafast"})
    assert [number_of(frame.rgb) for frame in frames_of(path)] == [0, 1]


def test_odd_sizes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "odd.mov", "png", 2, size=(136, 67), format="rgb24")
    assert frames_of(path)[1].rgb.shape == (67, 136, 3)
    np.testing.assert_array_equal(frames_of(path)[1].rgb, marked(1, 136, 67))


def test_one_frame(tmp_path: Path) -> None:
    assert numbers_of(write_clip(tmp_path / "one.mp4", count=1)) == [0]


def test_a_folder_is_read_in_natural_order(folder: Path) -> None:
    assert numbers_of(folder) == list(range(12))
    assert numbers_of(folder, every="5", start=0.04) == [1, 6, 11]
    assert numbers_of(folder, resume_at=9) == [9, 10, 11]
    assert [frame.seconds for frame in frames_of(folder, fps=10)] == pytest.approx(np.arange(12) / 10)
    with open_source(folder, fps=10) as source:
        assert (source.fps, source.frames, source.live) == (10, 12, False)


def test_a_damaged_frame_in_a_folder_is_passed_over(folder: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    for path in folder.glob("frame*"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[: 100 if path.name == "frame 3.png" else None])
    with open_source(tmp_path, notify=notes.append) as source:
        assert [frame.number for frame in source] == [0, 1, 2, *range(4, 12)]
        assert source.broken == 1
    assert len(notes) == 1
    assert "frame 3.png" in notes[0]


def test_a_folder_of_damaged_frames(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(Exception, match=r"a\.png: is not a readable picture"):
        frames_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "concat:x.mp4", "%03d.mp4", "né ü.mp4", "-x.mp4", "a?b#c.mp4", "pipe:0.mp4"]
)
def test_odd_names(name: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(frames_of(name, limit=3)) == len(frames_of(tmp_path / name, limit=3)) == 3


def test_a_name_that_is_not_utf8(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"clip\xff.mp4")
    path.write_bytes(clip.read_bytes())
    assert len(frames_of(path, limit=3)) == 3


def test_a_source_opens_once_and_only_in_a_with_block(clip: Path) -> None:
    source = open_source(clip)
    with pytest.raises(ConfigError, match="is not open; use it in a with block"):
        next(iter(source))
    with source:
        next(iter(source))
    with pytest.raises(ConfigError, match="was opened before"), source:
        pass


def test_a_slow_reader_does_not_make_memory_grow(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mkv", "mjpeg", 60, size=(640, 480), format="yuvj420p")
    tracemalloc.start()
    try:
        with open_source(path) as source:
            frames = iter(source)
            first = next(frames)
            time.sleep(0.5)  # far longer than decoding all of them would take
            held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < (MAX_FRAMES + 4) * first.rgb.nbytes


def test_leaving_early_ends_the_thread(clip: Path) -> None:
    with open_source(clip) as source:
        next(iter(source))
    assert not decoding()


def decoding() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("frames of")]


def test_an_error_of_the_reader_passes_through(clip: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_source(clip):
        raise KeyboardInterrupt
    assert not decoding()


def test_the_frames_are_those_of_the_decoder(clip: Path) -> None:
    with av.open(str(clip)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frame, rgb in zip(frames_of(clip), expected, strict=True):
        np.testing.assert_array_equal(frame.rgb, rgb)


def test_nothing_of_pyav_is_imported_before_a_source_is_opened() -> None:
    command = "import sys, emotion_ai.video.sources; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads of Linux")
def test_frames_leave_no_threads_or_memory_to_the_garbage_collector(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", count=100)
    gc.collect()
    before = len(os.listdir("/proc/self/task"))
    gc.disable()
    try:
        with open_source(path) as source:
            most = max(len(os.listdir("/proc/self/task")) for _ in source)
            left = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert most < before + 20
    assert left < 20
