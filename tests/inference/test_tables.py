"""Rows of faces."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from emotion_ai.contract import MEAN_FACE
from emotion_ai.inference.results import COLUMNS, FaceReading
from emotion_ai.inference.tables import (
    DEVIATION_COLUMNS,
    PHOTO_COLUMNS,
    csv_text,
    deviation_row,
    face_rows,
    photo_columns,
)
from emotion_ai.vision.crops import Box

MEAN = np.array(MEAN_FACE, np.float32)
FACE = FaceReading(MEAN, np.full(5, 0.2, np.float32), Box(0, 0, 96), MEAN, 0.9)


def test_rows_number_the_faces_of_a_photo() -> None:
    rows = face_rows([FACE, FACE], Path("a,b.jpg"))
    assert [(row["photo"], row["face"]) for row in rows] == [("a,b.jpg", 1), ("a,b.jpg", 2)]
    assert (*rows[0], "error") == PHOTO_COLUMNS
    assert tuple(face_rows([FACE])[0]) == ("face", *COLUMNS)
    assert csv_text(rows, PHOTO_COLUMNS).splitlines()[1].startswith('"a,b.jpg",1,Angry,')


def test_deviations_have_columns_of_their_own() -> None:
    assert deviation_row(FACE) == {}
    row = deviation_row(replace(FACE, deviations=np.arange(30, dtype=np.float32).reshape(15, 2)))
    assert tuple(row) == DEVIATION_COLUMNS
    assert (row["nose_tip_x_deviation"], row["nose_tip_y_deviation"]) == (20.0, 21.0)


def test_classes_named_like_a_column_or_a_formula_keep_a_column_of_their_own() -> None:
    names = ("roll", "Score", "photo", "=1+1", "bored")
    probabilities = np.arange(5, dtype=np.float32) / np.float32(10)
    row = face_rows([replace(FACE, probabilities=probabilities, classes=names)], Path("a.jpg"))[0]
    assert [row[f"expression_{name}"] for name in names[:3]] == [0, np.float32(0.1), np.float32(0.2)]
    assert (row["photo"], row["score"], row["roll"]) == ("a.jpg", 0.9, 0.0)
    assert (*row, "error") == photo_columns(names)
    assert csv_text([], ("=1+1", "bored")) == "'=1+1,bored\r\n"
