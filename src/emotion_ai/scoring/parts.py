"""The parts of a source: each is read, and written as one Parquet file, by one worker at a time."""

import base64
import binascii
import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from typing import Any, NoReturn, Protocol

from emotion_ai.errors import ConfigError, ImageError
from emotion_ai.extras import optional_imports
from emotion_ai.scoring.stores import Store
from emotion_ai.scoring.tars import TAR_COLUMNS, tar_samples
from emotion_ai.scoring.text_lines import CountedLines
from emotion_ai.vision.decoding import starts_like_picture

with optional_imports("score"):
    import pyarrow as pa
    from pyarrow import parquet

NO_COLUMNS = pa.schema([])
"""Of a source without columns besides its pictures."""

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}={0,2}\s*")
_LONGEST_PATH = 4096
_DATA_URL = re.compile(r"data:[^,]{0,100};base64,")
_PIECE = 64  # rows of a Parquet file that are decoded at once


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a source.

    Attributes:
        name: for the column `source`, and for messages.
        load: returns the file's content, or raises ImageError.
        extra: the source's other columns, as a table of one row; None if they are lost.
    """

    name: str
    load: Callable[[], bytes]
    extra: Any = None


class Part(Protocol):
    """A part of a source."""

    @property
    def count(self) -> int | None:
        """Its pictures; None if only reading it tells."""
        ...

    @property
    def columns(self) -> Any:
        """The schema of the source's other columns."""
        ...

    def pictures(self) -> Iterator[Picture]:
        """Its pictures, the same in the same order every time; what cannot be read is a picture that does not load."""
        ...


@dataclass(frozen=True)
class FilesPart:
    """Picture files; pairs of a path and a name."""

    store: Store
    files: tuple[tuple[str, str], ...]
    columns: Any = NO_COLUMNS

    @property
    def count(self) -> int:
        return len(self.files)

    def pictures(self) -> Iterator[Picture]:
        for path, name in self.files:
            yield Picture(name, partial(self.store.read, path, name))


@dataclass(frozen=True)
class TarPart:
    """Consecutive samples of a tar shard.

    Attributes:
        offset: of the first sample's header, in bytes.
        samples: how many; None for all that follow.
        count: of the pictures in them.
    """

    store: Store
    path: str
    name: str
    offset: int = 0
    samples: int | None = None
    count: int | None = None
    columns: Any = TAR_COLUMNS

    def pictures(self) -> Iterator[Picture]:
        try:
            file = self.store.open(self.path)
        except OSError as error:
            yield Picture(self.name, _failing(f"{self.name}: cannot be read ({error}); check the path"))
            return
        with file:
            file.seek(self.offset)
            for sample in islice(tar_samples(file, self.name), self.samples):
                if sample.damage:
                    yield Picture(self.name, _failing(f"{self.name}: is damaged ({sample.damage}); the rest is lost"))
                    return
                extra = pa.table({name: [sample.texts.get(name)] for name in TAR_COLUMNS.names}, TAR_COLUMNS)
                for name, content in sample.pictures:
                    load = partial(bytes, content) if isinstance(content, bytes) else _failing(str(content))
                    yield Picture(f"{self.name}/{name}", load, extra)


@dataclass(frozen=True)
class TableFile:
    """A table of pictures.

    Attributes:
        store, path, name: of the file.
        folder: that relative paths start from.
        column: of paths, of contents, or of both as in {bytes, path}.
    """

    store: Store
    path: str
    name: str
    folder: str
    column: str

    def picture(self, row: int, cell: Any, extra: Any) -> Picture:
        """The picture of a row, by its cell."""
        name = f"{self.name}#{row}"
        content, path = cell, None
        if isinstance(cell, Mapping) and not cell.keys().isdisjoint(("bytes", "path")):
            content, path = cell.get("bytes"), cell.get("path")
        if isinstance(content, str):
            content, path = _encoded(content), content or path
        if isinstance(content, bytes):
            return Picture(name, partial(bytes, content), extra)
        if content is None and not path:
            return Picture(name, _failing(f"{name}: has no picture; its cell is empty"), extra)
        if content is not None or not isinstance(path, str):
            kind = type(path if content is None else content).__name__
            reason = f"its cell is a value of type {kind}, neither a path nor a picture; give --column NAME"
            return Picture(name, _failing(f"{name}: has no picture; {reason}"), extra)
        try:
            store, place = self.store.join(self.folder, path)
        except ConfigError as error:
            return Picture(path, _failing(str(error)), extra)
        return Picture(path, partial(store.read, place, path), extra)

    def lost(self, row: int, error: object, extra: Any = None) -> Picture:
        """The picture of a row that cannot be read."""
        name = f"{self.name}#{row}"
        return Picture(name, _failing(f"{name}: cannot be read ({error}); write the table again"), extra)


@dataclass(frozen=True)
class ParquetPart:
    """Consecutive rows of a Parquet file: the number of the first, and how many."""

    table: TableFile
    first: int
    count: int
    columns: Any

    def pictures(self) -> Iterator[Picture]:
        row, end = self.first, self.first + self.count
        names = list(self.columns.names)
        error: object = "the file has become shorter"
        try:
            with self.table.store.open(self.table.path) as file:
                opened = parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
                for piece in self._pieces(opened, [self.table.column, *names]):
                    extra = piece.select(names)
                    for i, cell in enumerate(piece.column(self.table.column)):
                        yield self._picture(row, cell, extra.slice(i, 1) if names else None)
                        row += 1
        except (OSError, pa.ArrowException) as failure:
            error = failure
        for lost in range(row, end):
            yield self.table.lost(lost, error)

    def _pieces(self, opened: Any, columns: list[str]) -> Iterator[Any]:
        """The rows in small tables; those before them in their row group are decoded and left out."""
        counts = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
        ends = list(accumulate(counts))
        end = self.first + self.count
        groups = [i for i, last in enumerate(ends) if self.first < last and last - counts[i] < end]
        row = ends[groups[0]] - counts[groups[0]] if groups else end
        for batch in opened.iter_batches(_PIECE, row_groups=groups, columns=columns):
            piece = pa.Table.from_batches([batch])
            before = max(self.first - row, 0)
            row += len(piece)
            if row > self.first:
                yield piece.slice(before, len(piece) - before - max(row - end, 0))
            if row >= end:
                return

    def _picture(self, row: int, cell: Any, extra: Any) -> Picture:
        try:
            return self.table.picture(row, cell.as_py(), extra)
        except ValueError as error:  # a text that is not UTF-8, or a time beyond those of Python
            return self.table.lost(row, error, extra)


@dataclass(frozen=True)
class CsvForm:
    """How a CSV file is written: the names of its columns, what separates cells, and the encoding."""

    header: tuple[str, ...]
    separator: str
    encoding: str


@dataclass(frozen=True)
class CsvPart:
    """Consecutive rows of a CSV file.

    Attributes:
        form: how it is written.
        offset: of the first row, in bytes.
        first: its number.
        count: how many.
    """

    table: TableFile
    form: CsvForm
    offset: int
    first: int
    count: int
    columns: Any

    def pictures(self) -> Iterator[Picture]:
        row, end = self.first, self.first + self.count
        allow_long_cells()
        try:
            with self.table.store.open(self.table.path) as file:
                file.seek(self.offset)
                lines = CountedLines(file, self.form.encoding)
                rows = csv.reader(lines, delimiter=self.form.separator, strict=True)
                for cells in islice(filter(None, rows), self.count):
                    yield self._picture(row, cells)
                    row += 1
            error: object = "the file has become shorter"
        except (OSError, UnicodeError, csv.Error) as failure:
            error = failure
        for lost in range(row, end):
            yield self.table.lost(lost, error)

    def _picture(self, row: int, cells: list[str]) -> Picture:
        named = dict(zip(self.form.header, cells, strict=False))
        texts = {name: [readable(named[name]) if name in named else None] for name in self.columns.names}
        extra = pa.table(texts, self.columns) if texts else None
        if len(cells) != len(self.form.header):
            return self.table.lost(row, f"it has {len(cells)} cells, not {len(self.form.header)}", extra)
        return self.table.picture(row, named[self.table.column], extra)


def allow_long_cells() -> None:
    """Lets the csv module read cells with whole pictures."""
    csv.field_size_limit(2**31 - 1)


def readable(text: str) -> str:
    r"""Text that UTF-8 can hold; a byte of a file name that is not UTF-8 becomes `\udcXX`."""
    return text.encode("utf-8", "backslashreplace").decode()


def _encoded(cell: str) -> bytes | None:
    """A picture in base64, as such or in a data: URL; a path without a dot could be base64 as well."""
    start = _DATA_URL.match(cell)
    if start is None and not _BASE64.fullmatch(cell):
        return None
    try:
        content = base64.b64decode(cell[start.end() if start else 0 :])
    except binascii.Error:
        return b"" if start else None
    return content if start or len(cell) > _LONGEST_PATH or starts_like_picture(content) else None


def _failing(message: str) -> Callable[[], bytes]:
    return partial(_fail, message)


def _fail(message: str) -> NoReturn:
    raise ImageError(message)
