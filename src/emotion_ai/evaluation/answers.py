"""Answers read back from Parquet files: a log, or the reference of a published version. Needs the extra [record]."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import DataError
from emotion_ai.extras import optional_imports
from emotion_ai.inference.answer_rows import SCHEMA
from emotion_ai.published import EXTRA, MODEL_TASKS, REFERENCE_FILE, list_versions

with optional_imports():
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

MEASURES = ("confidence", "brightness", "contrast", "sharpness", "size")
"""Numbers of a face whose distributions are compared."""

DESCRIPTION = b"emotion_ai_reference"
"""Key of a file's metadata that says what the faces of a reference are."""

_REQUIRED = ("face", "emotion", *MEASURES, "version", "error", "source")
_PERIODS = ("minute", "hour", "day")


@dataclass(frozen=True, eq=False)
class AnsweredFaces:
    """N faces that were answered.

    Attributes:
        path: the file or folder.
        description: of a reference, what its faces are.
        emotions: (N,), the most probable class; None from a model without emotions.
        measures: (N,) each, float, NaN where unknown, by the names of `MEASURES`.
        groups: int64 (N,), the number of each face's group; faces of different groups are independent.
        versions: the versions that answered.
        failed: requests that failed.
    """

    path: Path
    description: str
    emotions: NDArray[np.object_]
    measures: dict[str, NDArray[np.float64]]
    groups: NDArray[np.int64]
    versions: tuple[int, ...]
    failed: int

    def __len__(self) -> int:
        return len(self.groups)


def find_reference(path: Path, version: int | None = None, prefer: Sequence[int] = ()) -> Path:
    """The files of a reference: those of a log, or the one inside a version's folder or a models folder.

    Args:
        path: a Parquet file, a folder of them, a version's folder, or a folder that `export` published to.
        version: of the models folder; by default the newest of `prefer` that it has, otherwise its newest.

    Raises:
        DataError: there is nothing of the kind.
    """
    if (path / EXTRA).is_dir():
        if not (path / REFERENCE_FILE).is_file():
            raise DataError(f"{path / REFERENCE_FILE}: is missing; export again, or give a log of answers instead")
        return path / REFERENCE_FILE
    model = next((path / name for name in ("face", *MODEL_TASKS) if list_versions(path / name)), path)
    if published := list_versions(model):
        known = [number for number in prefer if number in published]
        number = version or max(known or published)
        if number not in published:
            raise DataError(f"{model}: has no version {number}; it has {', '.join(map(str, published))}")
        return find_reference(model / str(number))
    return path


def read_answers(path: Path, version: int | None = None, group: str = "source") -> AnsweredFaces:
    """The answered faces of a log's folder, or of one of its files.

    Args:
        path: a Parquet file, or a folder with some.
        version: only faces that this version answered, or that name no version.
        group: what faces of one group share: "source", "folder" (of the source), "minute", "hour", "day", any column of
            the files, or "answer" for faces that are independent. Faces without a source are independent, and so are
            those of a version's reference that say nothing about the groups.

    Raises:
        DataError: no such files, or they hold no answers.
    """
    table = read_rows(path)
    if version is not None:
        versions = table["version"]
        table = table.filter(pc.or_kleene(pc.is_null(versions), pc.equal(versions, version)))
    failed = len(table) - table["error"].null_count
    table = table.filter(pc.is_valid(table["face"]))
    description = (table.schema.metadata or {}).get(DESCRIPTION, b"").decode()
    if description and (group in (*_PERIODS, "folder") or group not in table.column_names):
        group = "source"
    return AnsweredFaces(
        path,
        description,
        table["emotion"].to_numpy(zero_copy_only=False).astype(object),
        {name: table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in MEASURES},
        _groups(table, group, path),
        tuple(sorted(number for number in table["version"].unique().to_pylist() if number is not None)),
        failed,
    )


def read_rows(path: Path) -> pa.Table:
    """All rows of a log's folder, or of one of its files, without the large columns that are not compared.

    Raises:
        DataError: no such files, or they are no logs.
    """
    tables = [_read(file) for file in _files(path)]
    try:
        return pa.concat_tables(tables, promote_options="default") if len(tables) > 1 else tables[0]
    except pa.ArrowException as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path}: the files have different columns ({reason}); give one of them") from error


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        if found := sorted(file for file in path.glob("*.parquet") if not file.name.startswith(".")):
            return found
        raise DataError(f"{path}: holds no *.parquet files; give a log of answers, a reference or a models folder")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    return [path]


def _read(file: Path) -> pa.Table:
    try:
        with file.open("rb") as opened:  # once: a log that grows replaces its file
            parquet = pq.ParquetFile(opened)
            names = parquet.schema_arrow.names
            if missing := [name for name in _REQUIRED if name not in names]:
                raise DataError(f"{file}: has no column {missing[0]}; it is not a log of answers")
            if len({*names}) < len(names):
                raise DataError(f"{file}: has two columns of one name; it is not a log of answers")
            columns = [name for name in names if name not in ("deviations", "crop")]
            table = parquet.read(columns)
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise DataError(f"{file}: not a readable Parquet file ({reason}); remove it, or give another") from error
    for name in _REQUIRED:
        place, field = table.schema.get_field_index(name), SCHEMA.field(name)
        try:
            table = table.set_column(place, field, table[name].cast(field.type))
        except pa.ArrowException as error:
            message = f"the column {name} holds {table[name].type}, not {field.type}; it is not a log of answers"
            raise DataError(f"{file}: {message}") from error
    return table


def _groups(table: pa.Table, group: str, path: Path) -> NDArray[np.int64]:
    rows = np.arange(len(table))
    if group == "answer":
        return rows
    known = ", ".join(("answer", "folder", *_PERIODS, *table.column_names))
    try:
        return _grouped(table, group, rows)
    except (KeyError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot group by {group!r}; choose one of {known}") from error


def _grouped(table: pa.Table, group: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if group in _PERIODS:
        keys: Any = pc.floor_temporal(table["time"], unit=group)
    elif group == "folder":
        keys = pa.array([None if name is None else str(PurePath(name).parent) for name in table["source"].to_pylist()])
    else:
        keys = table[group]
    encoded = pc.dictionary_encode(keys)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(float)
    alone = np.isnan(codes)
    return np.unique(np.where(alone, -1 - rows, codes), return_inverse=True)[1]
