"""CSV files with further columns for the faces of a dataset: who they show, or how to group them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_ai.data.csv_files import open_table
from emotion_ai.data.loaders import COORDINATES
from emotion_ai.errors import DataError
from emotion_ai.terminal import printable

Texts = NDArray[np.str_]

ID_COLUMNS = ("id", "row", "file", "path")
"""Columns with the number of a face's row in the dataset, from 1, or its picture's path in the folder."""

_TARGETS = {*COORDINATES, "image", "pixels", "emotion", "usage"}


@dataclass(frozen=True)
class FaceRows:
    """Where the evaluated faces lie in their dataset.

    Attributes:
        ids: str (N,), as in `FaceDataset`.
        dataset: the CSV file that they come from; None for other sources.
        loaded: faces of the dataset that can be evaluated, all parts together.
    """

    ids: Texts
    dataset: Path | None
    loaded: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def places(self) -> NDArray[np.int64]:
        """Row numbers in the CSV file, from 0."""
        return self.ids.astype(np.int64) - 1

    def columns(self) -> list[str]:
        """The columns of the CSV file; empty for other sources.

        Raises:
            DataError: the file cannot be read.
        """
        if self.dataset is None:
            return []
        with open_table(self.dataset) as (header, _):
            return [name.strip() for name in header]

    def read(self, names: list[str]) -> dict[str, Texts]:
        """Columns of the CSV file by their names, with all its rows, str (rows,) each.

        Raises:
            DataError: the file cannot be read.
        """
        assert self.dataset is not None
        with open_table(self.dataset) as (header, lines):
            columns = {name.strip(): index for index, name in enumerate(header)}
            rows = [[cells[columns[name]].strip() for name in names] for _, cells in lines]
        return {name: np.array(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}

    def total(self) -> int:
        """The number of rows or pictures of the whole dataset.

        Raises:
            DataError: the file cannot be read.
        """
        if self.dataset is None:
            return self.loaded
        with open_table(self.dataset) as (_, lines):
            return sum(1 for _ in lines)


def read_side_table(path: Path, faces: FaceRows) -> dict[str, Texts]:
    """The columns of a CSV file beside a dataset, each with a text for every face, str (N,).

    Columns without a name, such as the index that pandas writes, are left out.

    A row belongs to the face with its id, if the file has a column of `ID_COLUMNS` or one that identifies the
    dataset's own rows; otherwise rows are in the order of the dataset, or of the evaluated faces.

    Args:
        path: the file.
        faces: the evaluated faces.

    Raises:
        DataError: the file cannot be read, has no further column, or its rows do not fit the faces.
    """
    with open_table(path) as (header, lines):
        names = [name.strip() for name in header]
        content = [cells for _, cells in lines]
    if not content:
        raise DataError(f"{path}: has a header but no rows; give a row for each face")
    by_column = zip(names, zip(*content, strict=True), strict=True)
    columns = {name: [printable(cell.strip()) for cell in cells] for name, cells in by_column if name}
    key, ids = _ids_of_faces(columns, faces)
    if not columns.keys() - {key}:
        raise DataError(f"{path}: has no column besides {key or 'its index'}; add one that groups the faces")
    if key is None:
        return _by_order(path, columns, faces)
    chosen = _rows_of_ids(path, key, columns.pop(key), ids)
    return {name: np.array(cells)[chosen] for name, cells in columns.items()}


def _ids_of_faces(columns: Mapping[str, list[str]], faces: FaceRows) -> tuple[str | None, Texts]:
    """The column that identifies rows, and the ids of the faces."""
    shared = [name for name in faces.columns() if name in columns and name.lower() not in _TARGETS]
    for name, values in faces.read(shared).items() if shared else ():
        if len(set(values)) == len(values):
            return name, values[faces.places]
    return next((name for name in columns if name.lower() in ID_COLUMNS), None), faces.ids


def _rows_of_ids(path: Path, key: str, given: list[str], wanted: Texts) -> NDArray[np.int64]:
    repeated, times = Counter(given).most_common(1)[0]
    if times > 1:
        raise DataError(f"{path}, column {key}: {repeated[:40]!r} occurs {times} times; keep one row for each face")
    place = {value: row for row, value in enumerate(given)}
    if lacking := [value for value in wanted if value not in place]:
        raise DataError(
            f"{path}, column {key}: has no row for {len(lacking):,} of the {len(wanted):,} evaluated faces, such as "
            f"{printable(lacking[0])[:40]!r}; add them (ids are the dataset's own, row numbers from 1, or paths)"
        )
    return np.array([place[value] for value in wanted])


def _by_order(path: Path, columns: Mapping[str, list[str]], faces: FaceRows) -> dict[str, Texts]:
    given = len(next(iter(columns.values())))
    if given == len(faces):
        return {name: np.array(cells) for name, cells in columns.items()}
    if given != (total := faces.total()) or faces.dataset is None:
        whole = f", or {total:,}, one for each row of the dataset" if total != len(faces) else ""
        raise DataError(
            f"{path}: has {given:,} rows, expected {len(faces):,}, one for each evaluated face{whole}; correct it, or "
            f"add a column {ID_COLUMNS[0]} (row numbers from 1, or paths in a folder)"
        )
    return {name: np.array(cells)[faces.places] for name, cells in columns.items()}
