"""Files are written completely or not at all."""

import errno
import os
from pathlib import Path

import pytest

from emotion_ai.errors import ConfigError
from emotion_ai.files import atomic_path, locked_folder, write_json, write_text


def test_json_keeps_the_order_of_its_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": [\n    0.1\n  ]\n}\n'


@pytest.mark.parametrize("sync", [True, False])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old", sync=sync)

    def fail() -> None:
        with atomic_path(path, sync=sync) as partial:
            partial.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    def full(partial: Path) -> None:
        partial.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as write(2) fails: without a name

    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="No space left") as raised, atomic_path(path) as partial:
        full(partial)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))
    assert not list(tmp_path.iterdir())
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as is_folder:
        write_text(tmp_path / "folder", "text")
    assert is_folder.value.filename == str(tmp_path / "folder")
    with pytest.raises(FileNotFoundError) as missing:
        write_text(tmp_path / "none" / "a.txt", "text")
    assert missing.value.filename == str(tmp_path / "none" / "a.txt")


@pytest.mark.parametrize("name", ["a" * 255, "\N{GRINNING FACE}" * 63, os.fsdecode(b"\xff" * 255)])
def test_a_name_as_long_as_a_file_system_allows(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_folder_on_a_file_system_without_locks_is_used_without(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    if number == errno.EIO:  # a failing disk is none without locks
        with pytest.raises(OSError, match="Input/output error"), locked_folder(tmp_path / "run"):
            pass
        return
    with locked_folder(tmp_path / "run"):
        write_text(tmp_path / "run" / "a.txt", "text")
    assert (tmp_path / "run" / "a.txt").read_text() == "text"


@pytest.mark.parametrize("made", ["link", "dead link", "folder"])
def test_a_lock_that_is_no_file_is_one_clear_error(made: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("kept")
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    if made == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(tmp_path / ("other" if made == "link" else "gone"))
    with pytest.raises(ConfigError, match=r"run/\.lock: not a regular file; remove it"), locked_folder(lock.parent):
        pass
    assert (tmp_path / "other").read_text() == "kept"
    assert not (tmp_path / "gone").exists()


def test_unfinished_files_of_other_programs_stay(tmp_path: Path) -> None:
    for name in (".film.partial", ".run.json.0123abcd.partial"):
        (tmp_path / name).write_text("text")
    with locked_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".film.partial"]
