"""Reading CSV files, with errors that name the file, row and column."""

import csv
import gzip
import itertools
import lzma
import math
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from emotion_ai.data.text_files import open_text
from emotion_ai.errors import DataError
from emotion_ai.terminal import printable

Table = tuple[list[str], Iterator[tuple[int, list[str]]]]
"""The header, and (row number in the file, cells) of each further row."""

MAX_CELL = 1 << 23
"""Characters that a cell or a line may have: enough for a picture of 1,448x1,448 pixels."""

MAX_BLANK_LINES = 1_000_000
"""Blank lines that a file may have: a small archive can hold minutes of them."""

MIN_SIDE = 16
"""Pixels of the side of the smallest face in a cell."""

_STATED_SEPARATOR = re.compile(r"sep=([,;\t])\s*", re.IGNORECASE)  # a first line for Excel
_SEPARATORS = str.maketrans("[](),;", " " * 6)  # in cells that Python or NumPy printed


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """The header and rows of a CSV file, opened for reading. Cells are separated by commas, semicolons or tabs.

    Raises:
        DataError: the file is missing, empty, damaged, not a CSV file, or has a line that is far too long.
    """
    try:
        with open_text(path) as text:
            lines = _lines(path, text)
            first = next((line for line in lines if line.strip()), "")
            if not first.strip(" \t\r\n,;"):
                raise DataError(f"{path}: is empty; give a CSV file with a header")
            csv.field_size_limit(MAX_CELL)  # of the process; `score` sets its own
            separator, is_stated = separator_of(first)
            if is_stated:
                first = next(lines, "")
            reader = _Reader(itertools.chain([first], lines), separator)
            header = next(reader, [])
            _check_header(path, header)
            yield header, _rows(path, reader, len(header))
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, tarfile.TarError) as error:
        raise DataError(f"{path}: is a truncated or damaged archive ({error}); download it again") from error
    except (UnicodeError, csv.Error) as error:
        raise DataError(
            f"{path}: is not a CSV text file ({error}); give the CSV or its .zip, .gz, .xz or .bz2"
        ) from error
    except NotImplementedError as error:
        raise DataError(f"{path}: {error}; unpack it and give the CSV") from error
    except OSError as error:
        if "Invalid data stream" in str(error):  # bz2
            raise DataError(f"{path}: is a truncated or damaged archive ({error}); download it again") from error
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and permissions"
        ) from error


def separator_of(line: str) -> tuple[str, bool]:
    """What separates the cells of a CSV file, by its first line, and whether the line only states it: `sep=;`."""
    if stated := _STATED_SEPARATOR.fullmatch(line):
        return stated[1], True
    return max(",;\t", key=line.count), False


def parse_integer(path: Path, row: int, column: str, text: str) -> int:
    """The cell's value, an int64; `3.0` is 3.

    Raises:
        DataError: not an integer.
    """
    try:
        return int(np.int64(int(re.sub(r"\.0*\s*$", "", text))))
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
        value = float(text if "." in text else text.replace(",", "."))  # as spreadsheets write beside semicolons
    except ValueError:
        value = np.inf
    if np.isinf(value):
        raise DataError(
            f"{path}, row {row}, column {column}: {text[:20]!r} is not a number; correct it, or leave it empty"
        )
    return value


def parse_pixels(path: Path, row: int, column: str, text: str, side: int, any_size: bool = False) -> NDArray[np.uint8]:
    """The cell's gray levels as an image uint8 (side, side).

    Levels are separated by blanks, or written as a list of Python or NumPy: `[70, 71.0, ...]`.

    Args:
        side: pixels of the expected image's side.
        any_size: accepts other square images, from `MIN_SIDE` on, too.

    Raises:
        DataError: another number of pixels, or values that are not integers from 0 to 255.
    """
    where = f"{path}, row {row}, column {column}"
    plain = _plain_levels(text)  # the usual file: ten times as fast as `_levels`
    if plain is not None and len(plain) == side * side:
        return plain.reshape(side, side)
    values = _levels(tokens := text.split())
    if values is None:
        values = _levels(tokens := text.translate(_SEPARATORS).split())
    if "..." in tokens:
        raise DataError(f"{where}: NumPy left out the pixels at '...'; write all of them")
    found = math.isqrt(len(tokens))
    if found**2 != len(tokens) or (found != side and not (any_size and found >= MIN_SIDE)):
        raise DataError(
            f"{where}: expected {side * side} pixels ({side}x{side}), got {_size(len(tokens))}; correct or "
            "remove the row"
        )
    if values is None:
        for token in tokens:
            _check_level(where, token)
        raise DataError(f"{where}: the pixels are not integers from 0 to 255; correct or remove the row")
    if values.min() < 0 or values.max() > 255:
        bad_value = values[(values < 0) | (values > 255)][0]
        raise DataError(f"{where}: the pixel {bad_value} is outside 0-255; correct or remove the row")
    return values.astype(np.uint8).reshape(found, found)


def _check_header(path: Path, header: list[str]) -> None:
    counts = Counter(name.strip().lower() for name in header)
    if twice := [name for name, count in counts.items() if name and count > 1]:
        raise DataError(f"{path}, row 1: has the column {printable(twice[0])[:40]} twice; remove or rename one")


def _plain_levels(text: str) -> NDArray[np.uint8] | None:
    """The levels of a cell that has only integers from 0 to 255 between single or several blanks; None for others.

    All characters are read at once: the value at each digit is that of the number up to there.
    """
    if not text.isascii():
        return None
    codes = np.full(len(text) + 4, ord(" "), np.uint8)  # three blanks before, one behind
    codes[3:-1] = np.frombuffer(text.encode("ascii"), np.uint8)
    digits = codes - np.uint8(ord("0"))
    is_digit = digits < 10
    if np.count_nonzero(is_digit) + np.count_nonzero(codes == ord(" ")) != len(codes):
        return None
    digits *= is_digit
    hundreds = digits[1:-3] * is_digit[2:-2]
    rest = digits[2:-2] * np.uint8(10)
    rest += digits[3:-1]
    too_large = (hundreds > 2) | ((hundreds == 2) & (rest > 55)) | (digits[:-4] * is_digit[1:-3] * is_digit[2:-2] > 0)
    if (too_large & is_digit[3:-1]).any():
        return None
    hundreds *= np.uint8(100)
    return (hundreds + rest).compress(is_digit[3:-1] > is_digit[4:])


def _levels(tokens: list[str]) -> NDArray[np.int64] | None:
    """The tokens as integers; None if one is not."""
    try:
        return np.array(tokens, np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        values = np.array(tokens, np.float64)
    except ValueError:
        return None
    whole = (values == np.rint(values)) & (np.abs(values) < 2**31)
    return values.astype(np.int64) if whole.all() else None


def _check_level(where: str, token: str) -> None:
    try:
        value = float(token)
    except ValueError:
        value = math.inf
    if not value.is_integer() or abs(value) >= 2**31:
        hint = "multiply pixels from 0 to 1 by 255 and round" if 0 < value < 1 else "correct or remove the row"
        raise DataError(f"{where}: {token[:20]!r} is not an integer; {hint}")


def _size(count: int) -> str:
    side = math.isqrt(count)
    if side**2 == count:
        return f"{count} ({side}x{side})"
    side = math.isqrt(count // 3)
    return f"{count} ({side}x{side} in colour; gray is needed)" if 3 * side**2 == count else str(count)


def _lines(path: Path, text: IO[str]) -> Iterator[str]:
    blank = 0
    for number in itertools.count(1):
        line = text.readline(MAX_CELL + 1)
        if len(line) > MAX_CELL:
            raise DataError(f"{path}, row {number}: is longer than {MAX_CELL:,} characters; is this a CSV file?")
        if "\0" in line:
            raise DataError(f"{path}, row {number}: holds NUL characters, so it is damaged; download it again")
        if not line:
            return
        blank += line.isspace()
        if blank > MAX_BLANK_LINES:
            raise DataError(f"{path}, row {number}: more than {MAX_BLANK_LINES:,} lines are blank; is this a CSV file?")
        yield line


class _Reader:
    """Reads rows like `csv.reader`, and those without quotes in a quarter of its time."""

    def __init__(self, lines: Iterator[str], delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter
        self._first: str | None = None  # line of the row that `csv.reader` reads
        self._quoted = csv.reader(self._rest(), delimiter=delimiter)
        self.line_num = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[str]:
        line = next(self._lines)
        self.line_num += 1
        if '"' not in line:
            text = line.rstrip("\r\n")
            return text.split(self._delimiter) if text else []
        self._first = line
        before = self._quoted.line_num
        try:
            return next(self._quoted)
        finally:
            self.line_num += self._quoted.line_num - before - 1

    def _rest(self) -> Iterator[str]:
        while True:
            line, self._first = self._first, None
            if line is None and (line := next(self._lines, None)) is None:
                return
            yield line


def _rows(path: Path, reader: _Reader, width: int) -> Iterator[tuple[int, list[str]]]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "limit" not in str(error):
                raise
            raise DataError(
                f"{path}, row {reader.line_num}: a cell is longer than {MAX_CELL:,} characters; is a quote left open?"
            ) from error
        if not cells:
            continue
        if len(cells) != width:
            hint = "; quote cells that contain the separator" if len(cells) > width else ""
            raise DataError(
                f"{path}, row {reader.line_num}: has {len(cells)} columns, the header {width}; "
                f"correct or remove the row{hint}"
            )
        yield reader.line_num, cells
