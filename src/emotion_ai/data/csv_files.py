"""Reading CSV files, plain or as .zip, .gz or .xz, with errors that name the file, row and column."""

import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import rich.progress
from numpy.typing import NDArray
from rich.markup import escape

from emotion_ai.errors import DataError
from emotion_ai.terminal import Console, printable

if TYPE_CHECKING:
    from _csv import Reader

Table = tuple[list[str], Iterator[tuple[int, list[str]]]]
"""The header, and (row number in the file, cells) of each further row."""


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """The header and rows of a CSV file, opened for reading.

    Raises:
        DataError: the file is missing, empty, damaged or not a CSV file.
    """
    try:
        with _open_text(path) as text:
            reader = csv.reader(text)
            header = next(reader, None)
            if not header or not any(name.strip() for name in header):
                raise DataError(f"{path}: is empty; give a CSV file with a header")
            yield header, _rows(path, reader, len(header))
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is a truncated or damaged archive ({error}); download it again") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV text file ({error}); give the CSV or its .zip, .gz or .xz") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and permissions"
        ) from error


def parse_integer(path: Path, row: int, column: str, text: str) -> int:
    """The cell's value, an int64.

    Raises:
        DataError: not an integer.
    """
    try:
        return int(np.int64(int(text)))
    except (ValueError, OverflowError):
        raise DataError(
            f"{path}, row {row}, column {column}: {text[:20]!r} is not an integer; correct or remove the row"
        ) from None


def parse_coordinate(path: Path, row: int, column: str, text: str) -> float:
    """The cell's value in pixels; NaN if the cell is empty.

    Raises:
        DataError: not a finite number.
    """
    if not text.strip():
        return np.nan
    try:
        value = float(text)
    except ValueError:
        value = np.inf
    if np.isinf(value):
        raise DataError(
            f"{path}, row {row}, column {column}: {text[:20]!r} is not a number; correct it, or leave it empty"
        )
    return value


def parse_pixels(path: Path, row: int, column: str, text: str, side: int) -> NDArray[np.uint8]:
    """The cell's gray levels, separated by blanks, as an image uint8 (side, side).

    Raises:
        DataError: another number of pixels, or values that are not integers from 0 to 255.
    """
    tokens = text.split()
    where = f"{path}, row {row}, column {column}"
    if len(tokens) != side * side:
        raise DataError(
            f"{where}: expected {side * side} pixels ({side}x{side}), got {len(tokens)}; correct or remove the row"
        )
    try:
        values = np.array(tokens, np.int64)
    except (ValueError, OverflowError):
        for token in tokens:
            parse_integer(path, row, column, token)
        raise
    if values.min() < 0 or values.max() > 255:
        bad_value = values[(values < 0) | (values > 255)][0]
        raise DataError(f"{where}: the pixel {bad_value} is outside 0-255; correct or remove the row")
    return values.astype(np.uint8).reshape(side, side)


def _rows(path: Path, reader: "Reader", width: int) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        if not cells:
            continue
        if len(cells) != width:
            raise DataError(
                f"{path}, row {reader.line_num}: has {len(cells)} columns, the header {width}; "
                "correct or remove the row"
            )
        yield reader.line_num, cells


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    console = Console(stderr=True)
    with rich.progress.open(
        path,
        "rb",
        description=escape(f"reading {printable(path.name)}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as raw:
        if path.suffix == ".zip":
            with zipfile.ZipFile(raw) as archive, archive.open(_only_csv(path, archive)) as stream:
                yield io.TextIOWrapper(stream, "utf-8-sig", newline="")
        elif path.suffix == ".gz":
            with gzip.open(raw) as stream:
                yield io.TextIOWrapper(stream, "utf-8-sig", newline="")
        elif path.suffix == ".xz":
            with lzma.open(raw) as stream:
                yield io.TextIOWrapper(stream, "utf-8-sig", newline="")
        else:
            yield io.TextIOWrapper(raw, "utf-8-sig", newline="")


def _only_csv(path: Path, archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if name.lower().endswith(".csv") and "__MACOSX" not in name]
    if len(names) != 1:
        raise DataError(f"{path}: must hold one CSV file, got {len(names)}; unpack it and give the CSV")
    return names[0]
