"""Tables of faces: written whole, or appended to a table with the same columns."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.contract import MEAN_FACE
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import COLUMNS, FaceReading
from emotion_ai.inference.tables import (
    DEVIATION_COLUMNS,
    PHOTO_COLUMNS,
    append_csv,
    csv_text,
    deviation_row,
    face_rows,
    write_csv,
)
from emotion_ai.vision.crops import Box

MEAN = np.array(MEAN_FACE, np.float32)
FACE = FaceReading(MEAN, np.full(5, 0.2, np.float32), Box(0, 0, 96), MEAN, 0.9)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_number_the_faces_of_a_photo() -> None:
    rows = face_rows([FACE, FACE], Path("a,b.jpg"))
    assert [(row["photo"], row["face"]) for row in rows] == [("a,b.jpg", 1), ("a,b.jpg", 2)]
    assert tuple(rows[0]) == PHOTO_COLUMNS
    assert tuple(face_rows([FACE])[0]) == ("face", *COLUMNS)
    assert csv_text(rows, PHOTO_COLUMNS).splitlines()[1].startswith('"a,b.jpg",1,Angry,')


def test_deviations_have_columns_of_their_own() -> None:
    assert deviation_row(FACE) == {}
    row = deviation_row(replace(FACE, deviations=np.arange(30, dtype=np.float32).reshape(15, 2)))
    assert tuple(row) == DEVIATION_COLUMNS
    assert (row["nose_tip_x_deviation"], row["nose_tip_y_deviation"]) == (20.0, 21.0)


def test_a_table_is_replaced_as_a_whole(tmp_path: Path) -> None:
    table = tmp_path / "faces.csv"
    write_csv(table, face_rows([FACE] * 3, Path("a.jpg")), PHOTO_COLUMNS)
    write_csv(table, face_rows([FACE], Path("b.jpg")), PHOTO_COLUMNS)
    assert [row["photo"] for row in read(table)] == ["b.jpg"]
    assert list(tmp_path.iterdir()) == [table]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_csv(tmp_path / "nowhere" / "faces.csv", [], PHOTO_COLUMNS)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_csv(tmp_path, [], PHOTO_COLUMNS)


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_csv(pipe, face_rows([FACE], Path("a.jpg")), PHOTO_COLUMNS)
    assert os.read(reader, 100).startswith(b"photo,face,emotion")
    os.close(reader)
    assert pipe.is_fifo()


def test_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    table = tmp_path / "faces.csv"
    for name in ("a.jpg", "b.jpg"):
        append_csv(table, face_rows([FACE], Path(name)), PHOTO_COLUMNS)
    assert [row["photo"] for row in read(table)] == ["a.jpg", "b.jpg"]
    assert table.read_text().count("photo,face") == 1
    with pytest.raises(ConfigError, match="its columns differ"):
        append_csv(table, face_rows([FACE]), ["face", *COLUMNS])
    assert len(read(table)) == 2
