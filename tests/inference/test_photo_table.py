"""A table of photos: appended to, completed by a later run, never torn, never another's file overwritten."""

import csv
import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.contract import MEAN_FACE
from emotion_ai.errors import ConfigError
from emotion_ai.inference.photo_table import PhotoTable
from emotion_ai.inference.results import FaceReading
from emotion_ai.inference.tables import PHOTO_COLUMNS, text_cell
from emotion_ai.vision.crops import Box

MEAN = np.array(MEAN_FACE, np.float32)
FACE = FaceReading(MEAN, np.full(5, 0.2, np.float32), Box(-3, 0, 96), MEAN, 0.9)
A, B, C = Path("a.jpg"), Path("b.jpg"), Path("c.jpg")


def rows(table: Path) -> list[tuple[str, str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return [(row["photo"], row["face"], row["error"]) for row in csv.DictReader(file)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "faces.csv"
    with PhotoTable(path) as table:
        table.append(A, [FACE, FACE])
        table.append(B, [])
        table.append(C, "c.jpg: is\ndamaged")
    return path


def test_rows_of_faces_without_a_face_and_with_an_error(table: Path) -> None:
    assert rows(table) == [
        *(("a.jpg", "1", ""), ("a.jpg", "2", ""), ("b.jpg", "", "")),
        ("c.jpg", "", "c.jpg: is damaged"),
    ]
    assert table.read_text().splitlines()[0] == ",".join(PHOTO_COLUMNS)
    assert list(table.parent.iterdir()) == [table]


def test_a_later_run_knows_what_is_read_and_replaces_what_failed(table: Path) -> None:
    with PhotoTable(table) as again:
        assert [again.outcome(photo) for photo in (A, B, C, Path("d.jpg"))] == ["faces", "no face", "failed", None]
        again.drop([C])
        again.append(C, [FACE])
    assert rows(table) == [("a.jpg", "1", ""), ("a.jpg", "2", ""), ("b.jpg", "", ""), ("c.jpg", "1", "")]
    assert list(table.parent.iterdir()) == [table]


def test_a_kill_at_any_byte_is_repaired(table: Path) -> None:
    """Wherever the file ends, the next run drops the torn row, and the other rows of its photo."""
    with PhotoTable(table) as grown:
        grown.append(Path("an odd\n'name.jpg"), [FACE, FACE, FACE])
    content = table.read_bytes()
    header = content.index(b"\n") + 1
    for end in [*range(1, header + 1, 9), *range(header, len(content), 61), len(content) - 1, len(content) - 2]:
        table.write_bytes(content[:end])
        with PhotoTable(table) as again:
            pending = [p for p in (A, B, Path("an odd\n'name.jpg")) if again.outcome(p) in (None, "failed")]
            again.drop([*pending, C])
            for photo in pending:
                again.append(photo, [] if photo == B else [FACE] * (2 if photo == A else 3))
        found = [row[:2] for row in rows(table)]
        assert sorted(found) == sorted(
            [("a.jpg", "1"), ("a.jpg", "2"), ("b.jpg", ""), *(("an odd\n'name.jpg", str(n)) for n in (1, 2, 3))]
        ), end


def test_a_photo_that_was_replaced_is_not_in_the_table(table: Path, tmp_path: Path) -> None:
    photo = tmp_path / "new.jpg"
    photo.write_bytes(b"1")
    time.sleep(0.02)
    with PhotoTable(table) as first:
        first.append(photo, [FACE])
    with PhotoTable(table) as second:
        assert second.outcome(photo) == "faces"
    time.sleep(0.02)
    photo.write_bytes(b"2")
    os.utime(photo, (0, 0))  # copied with its old time
    with PhotoTable(table) as third:
        assert third.outcome(photo) is None
        third.drop([photo])
    assert [name for name, *_ in rows(table)] == ["a.jpg", "a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    "content",
    [
        b"name,salary\nme,1\n",
        b"photo,face,emotion\n",
        b"\x89PNG\r\n\x1a\n" + bytes(5000),
        (",".join(PHOTO_COLUMNS) + "\r\na.jpg,1\r\nb.jpg" + "," * (len(PHOTO_COLUMNS) - 1) + "\r\n").encode(),
        (",".join(PHOTO_COLUMNS) + '\r\n"' + "a" * 200_000).encode(),
    ],
)
def test_a_file_that_is_no_such_table_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine.csv.*(its first line differs|columns; correct|damaged)"):
        PhotoTable(path)
    assert path.read_bytes() == content


def test_two_runs_do_not_write_one_table(table: Path) -> None:
    with PhotoTable(table) as first:
        first.drop([A])  # replaces the file; the lock stays
        with pytest.raises(ConfigError, match="another run writes this table"):
            PhotoTable(table)
    with PhotoTable(table):
        pass


def test_a_full_disk_leaves_whole_rows(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = table.read_bytes()
    write = os.write

    def full(file: int, content: bytes) -> int:
        if len(content) > 100:
            return write(file, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with PhotoTable(table) as again:
        monkeypatch.setattr(os, "write", lambda file, content: full(file, content[:150]))
        with pytest.raises(ConfigError, match="No space left on device"):
            again.append(Path("d.jpg"), [FACE])
        monkeypatch.undo()
    assert table.read_bytes() == before


def test_a_run_that_reads_nothing_leaves_no_file(tmp_path: Path) -> None:
    with PhotoTable(tmp_path / "faces.csv"):
        pass
    assert not list(tmp_path.iterdir())
    for path in (tmp_path, tmp_path / "nowhere" / "faces.csv"):
        with pytest.raises(ConfigError, match="cannot be written"):
            PhotoTable(path)


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with PhotoTable(pipe) as table:
        table.append(A, [FACE])
        table.append(B, [FACE])
    content = os.read(reader, 10_000)
    assert content.startswith(b"photo,face,emotion")
    assert content.count(b"photo,face") == 1
    os.close(reader)
    assert pipe.is_fifo()


def test_a_linked_table_is_completed_where_it_lies(table: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.csv"
    link.symlink_to(table)
    table.chmod(0o640)
    with PhotoTable(link) as again:
        again.drop([C])
    assert link.is_symlink()
    assert [name for name, *_ in rows(table)] == ["a.jpg", "a.jpg", "b.jpg"]
    assert table.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ('=HYPERLINK("x","y").jpg', '\'=HYPERLINK("x","y").jpg'),
        *((f"{sign}1.jpg", f"'{sign}1.jpg") for sign in "+-@\t\r\n"),
        ("'=1.jpg", "''=1.jpg"),
        ("'quoted'.jpg", "'quoted'.jpg"),
        (":smile:.jpg", ":smile:.jpg"),
        (os.fsdecode(b"\xff\xfe.jpg"), r"\udcff\udcfe.jpg"),
    ],
)
def test_names_are_cells_that_no_spreadsheet_runs_and_that_a_later_run_finds(
    name: str, cell: str, tmp_path: Path
) -> None:
    assert text_cell(name) == cell
    for _ in range(2):
        with PhotoTable(tmp_path / "faces.csv") as table:
            if table.outcome(Path(name)) is None:
                table.append(Path(name), [FACE])
    ((photo, _, _),) = rows(tmp_path / "faces.csv")
    assert photo == cell
    with (tmp_path / "faces.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["box_left"] == "-3.0", "numbers stay numbers"


def test_a_table_that_is_removed_while_it_is_written_is_an_error(table: Path) -> None:
    with PhotoTable(table) as opened:
        table.unlink()
        with pytest.raises(ConfigError, match=r"faces\.csv: was removed while it was written; run the same command"):
            opened.append(Path("d.jpg"), [FACE])


def test_spaces_of_a_name_stay_in_the_error(tmp_path: Path) -> None:
    with PhotoTable(tmp_path / "faces.csv") as table:
        table.append(Path("two  spaces.jpg"), "two  spaces.jpg: is\n  damaged")
    assert rows(tmp_path / "faces.csv") == [("two  spaces.jpg", "", "two  spaces.jpg: is damaged")]


@pytest.mark.parametrize(("old", "new"), [(b"\r\n", b"\n"), (b"photo,", b"\xef\xbb\xbfphoto,")])
def test_a_table_that_another_program_saved_is_refused_with_the_reason(old: bytes, new: bytes, table: Path) -> None:
    table.write_bytes(saved := table.read_bytes().replace(old, new))
    with pytest.raises(ConfigError, match="in its columns, line ends or encoding"):
        PhotoTable(table)
    assert table.read_bytes() == saved
