"""What a source has: its pictures in parts, and what tells it from another one."""

import csv
import hashlib
import json
import math
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from emotion_ai.client.address import without_login
from emotion_ai.data.csv_files import separator_of
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.extras import optional_imports
from emotion_ai.inference.photo_files import is_photo_name
from emotion_ai.scoring.folder import is_result
from emotion_ai.scoring.parts import (
    CsvForm,
    CsvPart,
    FilesPart,
    ParquetPart,
    Part,
    TableFile,
    TarPart,
    allow_long_cells,
    readable,
)
from emotion_ai.scoring.stores import Entry, Store
from emotion_ai.scoring.tars import tar_samples
from emotion_ai.scoring.text_lines import CountedLines, line_encoding

with optional_imports("score"):
    import pyarrow as pa
    from pyarrow import parquet

Kind = Literal["pictures", "tar", "parquet", "csv"]

_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "tar": (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"),
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".tsv"),
}
_COLUMNS = (
    *("image", "picture", "photo", "bytes", "image_bytes", "path", "file", "filename", "file_name", "filepath"),
    *("file_path", "image_path", "picture_path", "photo_path", "source", "uri", "url"),
)
_SMALLEST, _LARGEST = 16, 512  # pictures of a part
_CUT = 2**20  # bytes of a row group, unpacked, for each row of the parts that it is cut into
_RULES: dict[Kind, int] = {"tar": 2, "parquet": 2, "csv": 2}  # of kinds that were once read in another way
_PARTS = 64  # of a small source, so that several workers end at about the same time


@dataclass(frozen=True)
class PictureSource:
    """The pictures of a source.

    Attributes:
        kind: what its files are.
        parts: of it, in order; the same for the same source.
        identity: what tells it from another one: names, sizes and times of change of its files.
        rules: versions of how it is cut into parts and read; no run goes on with others.
        passed_over: suffixes of files that are none of these, and how many have them.
    """

    kind: Kind
    parts: list[Part]
    identity: dict[str, Any]
    rules: dict[str, int] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        """Its pictures; None if only reading them tells."""
        counts = [part.count for part in self.parts]
        return None if None in counts else sum(count for count in counts if count is not None)


def open_source(specs: Sequence[str], column: str | None = None, dest: Path | None = None) -> PictureSource:
    """Lists a source; only headers of tar shards and tables are opened.

    Args:
        specs: folders, glob patterns, pictures, tar shards, Parquet or CSV files; as paths or addresses.
        column: of a table: the one with the pictures' paths or contents; by default one with a usual name.
        dest: the folder for the results, which are left out.

    Raises:
        ConfigError: nothing is found, kinds are mixed, a table has no such column, or `dest` holds a source file.
        DataError: a table cannot be read.
    """
    found: dict[Kind, list[tuple[Store, Entry]]] = {}
    passed_over: Counter[str] = Counter()
    in_dest = _in_folder(dest)
    for spec in specs:
        store, path = Store.of(spec)
        for entry in store.files(path, without_login(spec) if "://" in spec else os.path.normpath(spec)):
            if is_result(posixpath.basename(entry.path)) and in_dest(store, entry):
                continue
            kind = _kind(entry.path)
            if kind is None and entry.path == path:  # named itself, not in a folder
                kind = "pictures"
            if kind is None:
                passed_over[posixpath.splitext(entry.path)[1].lower()] += 1
            else:
                found.setdefault(kind, []).append((store, entry))
    kind = _only_kind(found, specs, passed_over)
    files = list({(bool(store.uri), entry.name, entry.path): (store, entry) for store, entry in found[kind]}.values())
    if held := next((entry.name for store, entry in files if in_dest(store, entry)), None):
        raise ConfigError(f"{dest}: holds {held}, a file of the source; choose another DEST")
    if column is not None and kind not in ("parquet", "csv"):
        raise ConfigError(f"--column names a column of a Parquet or CSV file; the source has {kind}")
    for other, entries in found.items():
        if other != kind:
            passed_over[_SUFFIXES[other][0]] += len(entries)
    parts = _PARTS_OF[kind](files, column)
    if not parts:
        raise ConfigError(f"{without_login(', '.join(specs[:3]))}: has no pictures; give another source")
    digest = hashlib.sha256()
    for _, entry in files:
        digest.update(json.dumps([readable(entry.name), entry.size, entry.changed]).encode())
    identity = {"kind": kind, "files": len(files), "sha256": digest.hexdigest(), "column": column}
    rules = {f"version of {kind} reading": _RULES[kind]} if kind in _RULES else {}
    return PictureSource(kind, parts, identity, rules, dict(passed_over))


def _in_folder(folder: Path | None) -> Callable[[Store, Entry], bool]:
    """Tells whether a file lies in a folder of this machine, at any depth."""
    if folder is None:
        return lambda *_: False
    real = folder.resolve()
    inside = cache(lambda parent: Path(parent).resolve().is_relative_to(real))
    return lambda store, entry: not store.uri and inside(posixpath.dirname(entry.path))


def _kind(path: str) -> Kind | None:
    name = posixpath.basename(path)
    for kind, suffixes in _SUFFIXES.items():
        if name.lower().endswith(suffixes):
            return kind
    return "pictures" if is_photo_name(name) else None


def _only_kind(found: dict[Kind, list[tuple[Store, Entry]]], specs: Sequence[str], passed_over: Counter[str]) -> Kind:
    shown = without_login(", ".join(specs[:3]))
    if not found:
        kinds = ", ".join(sorted(suffix or "no suffix" for suffix in passed_over)) or "the results in DEST"
        raise ConfigError(f"{shown}: no pictures, tar shards, Parquet or CSV files, only {kinds}; give another source")
    if "pictures" in found or len(found) == 1:
        return "pictures" if "pictures" in found else next(iter(found))
    kinds = " and ".join(sorted(found))
    raise ConfigError(f"{shown}: has {kinds} files; name one kind, as in 'folder/*.{sorted(found)[0]}'")


def _size(count: int) -> int:
    """Pictures of a part, for a source of so many."""
    return min(max(math.ceil(count / _PARTS), _SMALLEST), _LARGEST)


def _file_parts(files: Sequence[tuple[Store, Entry]], column: str | None) -> list[Part]:
    size = _size(len(files))
    parts: list[Part] = []
    by_store: dict[Store, list[tuple[str, str]]] = {}
    for store, entry in files:
        by_store.setdefault(store, []).append((entry.path, entry.name))
    for store, pairs in by_store.items():
        parts += [FilesPart(store, tuple(pairs[i : i + size])) for i in range(0, len(pairs), size)]
    return parts


def _tar_parts(files: Sequence[tuple[Store, Entry]], column: str | None) -> list[Part]:
    indexes = [_tar_index(store, entry) for store, entry in files]
    size = _size(sum(count for index in indexes for _, count in index or ()))
    parts: list[Part] = []
    for (store, entry), index in zip(files, indexes, strict=True):
        if index is None:
            parts.append(TarPart(store, entry.path, entry.name))
        else:
            parts += _tar_ranges(store, entry, index, size)
    return parts


def _tar_index(store: Store, entry: Entry) -> list[tuple[int, int]] | None:
    """Offset and number of pictures of each sample; None for a file that is read as one part.

    Samples behind damage are missing; what reads the last ones finds it.
    """
    if store.uri or not entry.path.lower().endswith(".tar"):
        return None
    with store.open(entry.path) as file:
        samples = list(tar_samples(file, entry.name, contents=False))
    return (
        [(s.offset, len(s.pictures)) for s in samples if not s.damage] if not any(s.damage for s in samples) else None
    )


def _tar_ranges(store: Store, entry: Entry, index: list[tuple[int, int]], size: int) -> Iterator[Part]:
    start, pictures = 0, 0
    for i, (_, count) in enumerate(index, 1):
        pictures += count
        if pictures >= size or i == len(index):
            yield TarPart(store, entry.path, entry.name, index[start][0], i - start, pictures)
            start, pictures = i, 0


def _table_file(store: Store, entry: Entry, names: Sequence[str], column: str | None) -> TableFile:
    """The table, with the column of its pictures.

    Raises:
        ConfigError: it has no such column.
        DataError: two columns have the same name.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{entry.name}: has two columns {twice[0]!r}; rename one")
    lower = {name.lower(): name for name in reversed(names)}
    chosen = column if column is not None else next((lower[name] for name in _COLUMNS if name in lower), None)
    if chosen is None or chosen not in names:
        wanted = "a column of paths or pictures" if column is None else f"the column {column!r}"
        raise ConfigError(f"{entry.name}: {wanted} is missing; it has {', '.join(names)}; give --column NAME")
    return TableFile(store, entry.path, entry.name, posixpath.dirname(entry.path), chosen)


def _check_alike(schemas: Sequence[Any], files: Sequence[tuple[Store, Entry]]) -> None:
    for schema, (_, entry) in zip(schemas, files, strict=True):
        if not schema.equals(schemas[0]):
            raise DataError(
                f"{entry.name}: has other columns, or of other types, than {files[0][1].name}; score them one by one"
            )


def _parquet_parts(files: Sequence[tuple[Store, Entry]], column: str | None) -> list[Part]:
    parts: list[Part] = []
    opened = [_parquet_head(store, entry) for store, entry in files]
    _check_alike([schema for schema, _ in opened], files)
    size = _size(sum(count for _, groups in opened for count, _ in groups))
    for (store, entry), (schema, groups) in zip(files, opened, strict=True):
        table = _table_file(store, entry, schema.names, column)
        kept = pa.schema([field for field in schema if field.name != table.column])
        parts += [ParquetPart(table, first, count, kept) for first, count in _row_ranges(groups, size)]
    return parts


def _row_ranges(groups: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each part: small row groups are joined, and large ones cut.

    What begins within a group decodes the group's rows before it, so parts of huge groups have more rows.
    """
    start = end = 0
    for count, content in groups:
        if start < end and end - start + count > size:
            yield start, end - start
            start = end
        end += count
        most = max(size, content // _CUT)
        while end - start > most:
            yield start, most
            start += most
    if start < end:
        yield start, end - start


def _parquet_head(store: Store, entry: Entry) -> tuple[Any, list[tuple[int, int]]]:
    """The schema, and the rows and bytes of the groups."""
    try:
        with store.open(entry.path) as file:
            opened = parquet.ParquetFile(file)
            metadata = opened.metadata
            groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
            return opened.schema_arrow.remove_metadata(), sizes
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{entry.name}: not a readable Parquet file ({error}); write it again") from error


def _csv_parts(files: Sequence[tuple[Store, Entry]], column: str | None) -> list[Part]:
    allow_long_cells()
    tables = [_csv_head(store, entry) for store, entry in files]
    _check_alike([pa.schema([(name, pa.string()) for name in form.header]) for form, _ in tables], files)
    size = _size(sum(len(starts) for _, starts in tables))
    parts: list[Part] = []
    for (store, entry), (form, starts) in zip(files, tables, strict=True):
        table = _table_file(store, entry, form.header, column)
        kept = pa.schema([(name, pa.string()) for name in form.header if name != table.column])
        for first in range(0, len(starts), size):
            count = min(size, len(starts) - first)
            parts.append(CsvPart(table, form, starts[first], first, count, kept))
    return parts


def _csv_head(store: Store, entry: Entry) -> tuple[CsvForm, list[int]]:
    """How the file is written, and the offsets of the rows."""
    try:
        with store.open(entry.path) as file:
            encoding = line_encoding(file.read(64))
            if encoding is None:
                raise DataError(f"{entry.name}: is not a CSV text file (it is binary); write it again")
            file.seek(0)
            lines = CountedLines(file, encoding)
            texts = iter(lines)
            first = next(texts, "")
            separator, is_stated = separator_of(first)
            if entry.path.lower().endswith(".tsv") and not is_stated:
                separator = "\t"
            rows = csv.reader(texts if is_stated else chain([first], texts), delimiter=separator, strict=True)
            header = tuple(readable(name) for name in next(rows, []))
            starts, start, line = [], lines.read, rows.line_num
            try:
                for cells in rows:
                    if cells:
                        starts.append(start)
                    start, line = lines.read, rows.line_num
            except csv.Error as error:
                raise DataError(
                    f"{entry.name}, line {line + 1 + is_stated}: the row that begins there cannot be read ({error}); "
                    'a quote in a cell is written twice, as in "a ""word"""'
                ) from error
            return CsvForm(header, separator, encoding), starts
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{entry.name}: not a readable CSV file ({error}); write it again") from error


_PARTS_OF = {"pictures": _file_parts, "tar": _tar_parts, "parquet": _parquet_parts, "csv": _csv_parts}
