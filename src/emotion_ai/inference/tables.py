"""Tables of faces as CSV: one row per face."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from emotion_ai import files
from emotion_ai.contract import KEYPOINTS
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import COLUMNS, FaceReading

PHOTO_COLUMNS = ("photo", "face", *COLUMNS)
"""Columns of a table of several photos: the photo, the face's number from 1 in it, and `COLUMNS`."""

DEVIATION_COLUMNS = tuple(f"{name}_{axis}_deviation" for name in KEYPOINTS for axis in "xy")

Row = dict[str, Any]


def face_rows(faces: Sequence[FaceReading], photo: Path | None = None) -> list[Row]:
    """Rows of the faces of one photo, numbered from 1; with a column for the photo if it is given."""
    source: Row = {} if photo is None else {"photo": str(photo)}
    return [{**source, "face": number, **face.as_row()} for number, face in enumerate(faces, 1)]


def deviation_row(face: FaceReading) -> Row:
    """The columns of `DEVIATION_COLUMNS`; none for a face without deviations."""
    if face.deviations is None:
        return {}
    return dict(zip(DEVIATION_COLUMNS, map(float, face.deviations.ravel()), strict=True))


def csv_text(rows: Iterable[Row], columns: Sequence[str], header: bool = True) -> str:
    """Rows as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Writes a table, whole or not at all.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = csv_text(rows, columns)
    try:
        if path.exists() and not path.is_file():  # a pipe or a terminal cannot be replaced
            path.write_text(text, encoding="utf-8", newline="")
        else:
            files.write_text(path, text)
    except OSError as error:
        raise _not_written(path, error) from error


def append_csv(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Appends rows to a table; a new or empty file gets the header first.

    Raises:
        ConfigError: the file cannot be written, or has other columns.
    """
    try:
        with path.open("a+", newline="", encoding="utf-8", errors="replace") as file:
            file.seek(0)
            header = next(csv.reader(file), None)
            if header not in (None, list(columns)):
                raise ConfigError(f"{path}: its columns differ from those to be written; choose another --csv")
            file.write(csv_text(rows, columns, header is None))
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --csv")
