"""What goes wrong with the folder of the results, or the source while it is read: one line, nothing else lost."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.cli.console import explain
from emotion_ai.errors import ConfigError, VideoError
from emotion_ai.inference.results import FaceReading
from emotion_ai.video import folder, saving
from emotion_ai.video.analysis import VideoListener, VideoOptions, VideoProgress, analyze
from emotion_ai.video.folder import VideoOutput
from emotion_ai.video.frames import FrameReading
from tests.video.clips import write_clip, write_sound
from tests.video.fakes import restless
from tests.video.fakes import write_clip as write_numbers


def nobody(rgb: np.ndarray) -> list[FaceReading]:
    return []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbers(tmp_path_factory.mktemp("clips") / "numbers.mp4", 60)


@pytest.mark.parametrize("name", ["rows.csv", "summary.json", "annotated.mp4", "annotated.parts"])
@pytest.mark.parametrize("resume", [True, False])
def test_files_that_no_run_wrote_stay(name: str, resume: bool, clip: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{name}: is not of a run; replace it with --overwrite, or choose another"):
        analyze(clip, nobody, VideoOutput(tmp_path, resume=resume))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_other_files_are_no_obstacle_and_stay(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    analyze(clip, nobody, VideoOutput(tmp_path))
    analyze(clip, nobody, VideoOutput(tmp_path, overwrite=True))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_that_was_killed_at_once_is_resumed(clip: Path, tmp_path: Path) -> None:
    """Before its first saved position."""

    class KilledError(BaseException):
        """Ends the run without writing anything."""

    def killed(rgb: np.ndarray) -> list[FaceReading]:
        raise KilledError

    analyze(clip, nobody, VideoOutput(tmp_path / "out"))
    with pytest.raises(KilledError):
        analyze(clip, killed, VideoOutput(tmp_path / "out", overwrite=True))
    with pytest.raises(ConfigError, match="has the results of a run; continue it with --resume"):
        analyze(clip, nobody, VideoOutput(tmp_path / "out"))
    assert analyze(clip, nobody, VideoOutput(tmp_path / "out", resume=True))["frames"] == 60


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda out: out.write_text("x"), "{out}: File exists; move it away, or give another path"),
        (lambda out: out.symlink_to("nowhere"), "{out}: File exists; move it away, or give another path"),
        (lambda out: (out.mkdir(), (out / "state.json").mkdir()), "{out}/state.json: not a regular file"),
    ],
)
def test_an_output_folder_that_is_none(make: Callable[[Path], object], words: str, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    with pytest.raises(OSError, match=r"exists|regular") as caught:
        analyze(clip, nobody, VideoOutput(out))
    assert explain(caught.value) == words.format(out=out)


def test_an_output_folder_below_a_file(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError) as caught:
        analyze(clip, nobody, VideoOutput(tmp_path / "file" / "out"))
    assert explain(caught.value) == (
        f"{tmp_path / 'file' / 'out'}: Not a directory; a part of this path is a file; give another one"
    )


def test_an_output_folder_that_cannot_be_written(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As user root may write anywhere, the operating system's refusal is made up."""
    made = os.open

    def refuse(path: str | os.PathLike[str], flags: int, *arguments: int, **options: int) -> int:
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return made(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError) as caught:
        analyze(clip, nobody, VideoOutput(tmp_path / "out"))
    monkeypatch.undo()
    assert explain(caught.value) == (
        f"{tmp_path / 'out' / '.lock'}: Permission denied; check the permissions, or use another folder"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("full", [1, 2, 5])
def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_space(
    full: int, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "SAVE_SECONDS", 0.0)
    out, expected, saves = tmp_path / "out", tmp_path / "expected", iter(range(100))
    analyze(clip, restless, VideoOutput(expected))
    flush = saving.GrowingFile.flush

    def refuse(file: saving.GrowingFile) -> None:
        if next(saves) >= full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # write(2) names no file
        flush(file)

    monkeypatch.setattr(saving.GrowingFile, "flush", refuse)
    with pytest.raises(OSError, match="No space left") as caught:
        analyze(clip, restless, VideoOutput(out))
    assert explain(caught.value) == f"{out}: No space left on device; free some space, or write to another disk"
    monkeypatch.setattr(saving.GrowingFile, "flush", flush)
    analyze(clip, restless, VideoOutput(out, resume=True))
    assert (out / "rows.csv").read_bytes() == (expected / "rows.csv").read_bytes()
    assert (out / "events.json").read_bytes() == (expected / "events.json").read_bytes()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_source_without_frames_leaves_the_folder_as_it_was(overwrite: bool, clip: Path, tmp_path: Path) -> None:
    out, broken = tmp_path / "out", tmp_path / "broken.mp4"
    content = write_clip(tmp_path / "whole.mp4", muxing={"movflags": "faststart"}).read_bytes()
    at = content.index(b"mdat") + 4
    broken.write_bytes(content[:at] + bytes(len(content) - at))
    before = {}
    if overwrite:
        analyze(clip, nobody, VideoOutput(out))
        before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(VideoError, match="no frame can be decoded"):
        analyze(broken, nobody, VideoOutput(out, overwrite=overwrite))
    with pytest.raises(VideoError, match="has sound but no video"):
        analyze(write_sound(tmp_path / "tone.mp4"), nobody, VideoOutput(out, overwrite=overwrite))
    with pytest.raises(VideoError, match=r"has no frame from 60 s on; use an earlier start"):
        analyze(clip, nobody, VideoOutput(out, overwrite=overwrite), VideoOptions(start=60))
    assert overwrite == out.exists()
    assert before == ({path.name: path.read_bytes() for path in out.iterdir()} if overwrite else {})


def read_changed(source: Path, out: Path, change: Callable[[], object]) -> tuple[int, list[str]]:
    """Reads a source that changes after the third frame: how many frames there were, and what was said."""
    notes: list[str] = []

    def on_frame(reading: FrameReading, _: VideoProgress) -> None:
        if reading.frame == 2:
            change()

    listener = VideoListener(on_frame, notify=notes.append)
    return analyze(source, nobody, VideoOutput(out), listener=listener)["frames"], notes


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """Longer than FFmpeg and the buffer of frames read ahead."""
    return write_clip(tmp_path / "long.mkv", "ffv1", 120, size=(128, 128), format="yuv444p")


def test_a_source_that_is_cut_off_while_it_is_read(long: Path, tmp_path: Path) -> None:
    size = long.stat().st_size
    frames, notes = read_changed(long, tmp_path / "out", lambda: os.truncate(long, size // 2))
    assert 20 < frames < 100
    assert any("it may be incomplete" in note for note in notes)
    assert notes[-1] == f"{long}: was changed while it was read; read it again once it is complete"


def test_a_source_that_grows_while_it_is_read(long: Path, tmp_path: Path) -> None:
    content = long.read_bytes()
    growing = tmp_path / "growing.mkv"
    growing.write_bytes(content[: len(content) // 2])

    def grow() -> None:
        with growing.open("ab") as file:
            file.write(b"\0")

    _, notes = read_changed(growing, tmp_path / "out", grow)
    assert notes[-1] == f"{growing}: was changed while it was read; read it again once it is complete"
    growing.write_bytes(content)
    with pytest.raises(ConfigError, match="was written from a source of other content; resume with the same one"):
        analyze(growing, nobody, VideoOutput(tmp_path / "out", resume=True))


def test_a_source_that_is_replaced_or_deleted_while_it_is_read(long: Path, clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    moved = tmp_path / "moved.mkv"
    moved.write_bytes(long.read_bytes())
    assert read_changed(moved, tmp_path / "1", moved.unlink) == (120, []), "an open file stays readable"
    moved.write_bytes(long.read_bytes())
    frames, notes = read_changed(moved, tmp_path / "2", lambda: other.replace(moved))
    assert frames == 120
    assert notes == [f"{moved}: was changed while it was read; read it again once it is complete"]


@pytest.mark.parametrize("ended", ["early", "whole"])
def test_a_source_that_is_gone_when_the_run_is_resumed(ended: str, clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip.read_bytes())

    def on_frame(reading: FrameReading, _: VideoProgress) -> None:
        if reading.frame == 20 and ended == "early":
            raise KeyboardInterrupt

    try:
        analyze(source, nobody, VideoOutput(tmp_path / "out"), listener=VideoListener(on_frame))
    except KeyboardInterrupt:
        assert not json.loads((tmp_path / "out" / "summary.json").read_text())["complete"]
    source.unlink()
    with pytest.raises(VideoError, match=r"clip\.mp4: no such file or folder; check the path"):
        analyze(source, nobody, VideoOutput(tmp_path / "out", resume=True))
