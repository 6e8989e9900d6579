"""Tables of faces as CSV: one row per face."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from emotion_ai.contract import EMOTIONS, KEYPOINTS
from emotion_ai.inference.results import FaceReading, columns


def photo_columns(classes: Sequence[str] = EMOTIONS) -> tuple[str, ...]:
    """Columns of a table of several photos: photo, number of the face from 1, those of a face, and why it failed."""
    return ("photo", "face", *columns(classes), "error")


PHOTO_COLUMNS = photo_columns()
"""`photo_columns` of the five emotions."""

DEVIATION_COLUMNS = tuple(f"{name}_{axis}_deviation" for name in KEYPOINTS for axis in "xy")

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001 - full-width signs, which spreadsheets take for the plain ones

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


def text_cell(text: str) -> str:
    r"""A text as a cell of a CSV table, which no spreadsheet takes for a formula.

    Text that begins with =, +, -, @, a tab or a line break gets an apostrophe before it; so does such text after
    apostrophes, so that taking one away gives the text back. A byte of a file name that is not UTF-8 becomes `\udcXX`.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def cell_text(cell: str) -> str:
    """The text that `text_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def csv_text(rows: Iterable[Row], columns: Sequence[str], header: bool = True) -> str:
    """Rows as CSV; missing values are empty cells."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if header:
        writer.writerow([text_cell(name) for name in columns])
    for row in rows:
        cells = (row.get(name, "") for name in columns)
        writer.writerow([text_cell(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()
