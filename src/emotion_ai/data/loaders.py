"""The files that users really have, parsed into `FaceDataset`.

Kaggle Facial Keypoints `training.csv` and `test.csv`; FER2013 as `fer2013.csv`, `icml_face_data.csv`, `train.csv` or
the five-class course file; folders of images. A CSV may be plain or a .zip, .gz or .xz.
"""

import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import rich.progress
from numpy.typing import NDArray
from rich.console import Console

from emotion_ai.contract import CROP_SIZE, EMOTIONS, KEYPOINTS, TASKS, Task
from emotion_ai.data.cache import Arrays, cached, fingerprint
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.folders import class_folders, parse_folder
from emotion_ai.errors import ConfigError, DataError

COORDINATES = tuple(f"{name}_{axis}" for name in KEYPOINTS for axis in "xy")
FER7_TO_FIVE = {0: 0, 1: 1, 3: 3, 4: 2, 5: 4}
"""FER2013's seven ids without fear (2) and neutral (6)."""
LABELS = ("auto", "five", "fer7")
FER_SIDE = 48
_FERPLUS = (
    *("anger", "disgust", "sadness", "happiness", "surprise"),
    *("neutral", "fear", "contempt", "unknown", "NF"),
)
"""FER+'s columns, our five first, in our order."""
PARTS = ("Training", "PublicTest", "PrivateTest")

_CHOICE: dict[str, str] = {
    "five": "five classes, ids 0-4 as they are",
    "fer7": "FER2013's seven classes, fear and neutral left out",
}


def load(
    path: str | Path, task: Task | None = None, labels: str = "auto", votes: str | Path | None = None
) -> FaceDataset:
    """Faces of a CSV file, an archive of one, or an image folder `[split/]class/*.png|jpg`.

    Args:
        path: the file or folder.
        task: None tells it from the columns; a folder is always for emotion.
        labels: "five", "fer7", or "auto": five only if there is no Usage column and no id above 4.
        votes: FER+'s `fer2013new.csv` for the rows of FER2013; faces of fear and neutral that at least half of its
            annotators saw as one of the five then stay, with the target -1.

    Raises:
        DataError: missing, damaged or wrong content; names file, row, column and the remedy.
        ConfigError: unknown task or labels.
    """
    if not str(path):
        raise DataError("no dataset: the path is empty; give a file or folder")
    path = Path(path)
    if task is not None and task not in TASKS:
        raise ConfigError(f"task={task}: choose one of {', '.join(TASKS)}")
    if labels not in LABELS:
        raise ConfigError(f"data.labels={labels}: choose one of {', '.join(LABELS)}")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    if path.is_dir():
        if task == "keypoints":
            raise DataError(f"{path}: is a folder; keypoints come as a CSV file, or its .zip, .gz or .xz")
        class_folders(path)  # before all below it is read for the fingerprint
    mark = fingerprint(path)
    if path.is_dir():
        arrays = cached(mark, "folder", lambda: parse_folder(path))
        found: Task = "emotion"
    else:
        with _table(path) as (header, _):
            found = _kind(path, header)
        parse: Callable[[Path], Arrays] = _parse_keypoints if found == "keypoints" else _parse_emotion
        arrays = cached(mark, found, lambda: parse(path))
    if task is not None and task != found:
        raise DataError(f"{path}: holds faces for {found}, but {task} is wanted; give another file or task={found}")
    if found == "emotion" and not path.is_dir():
        shares = None if votes is None else _votes(Path(votes), path, arrays["part"])
        arrays = _five_classes(path, arrays, labels, shares)
    elif votes is not None:
        raise ConfigError(f"data.votes={votes}: FER+ votes belong to the rows of FER2013's CSV, not to {path}")
    return FaceDataset(found, arrays["images"], arrays["targets"], arrays["part"], str(path), mark, arrays.get("votes"))


def load_lookup(path: str | Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Kaggle's `IdLookupTable.csv`: RowId, ImageId and the index of the wanted coordinate in `COORDINATES`, int64 (N,).

    Raises:
        DataError: missing, damaged or wrong content.
    """
    path = Path(path)
    rows: dict[int, tuple[int, int, int]] = {}
    with _table(path) as (header, lines):
        columns = {name.strip(): index for index, name in enumerate(header)}
        missing = [name for name in ("RowId", "ImageId", "FeatureName") if name not in columns]
        if missing:
            raise DataError(
                f"{path}: lacks the column {', '.join(missing)}; an IdLookupTable.csv has RowId, ImageId, FeatureName"
            )
        for line, cells in lines:
            name = cells[columns["FeatureName"]].strip()
            if name not in COORDINATES:
                raise DataError(
                    f"{path}, row {line}, column FeatureName: unknown feature {name!r}; mend or remove the row"
                )
            row, image = (_integer(path, line, c, cells[columns[c]]) for c in ("RowId", "ImageId"))
            if row in rows:
                raise DataError(f"{path}, row {line}: the RowId {row} was there before; remove one")
            rows[row] = row, image, COORDINATES.index(name)
    _some(path, rows)
    table = np.array(list(rows.values()), np.int64)
    return table[:, 0], table[:, 1], table[:, 2]


def load_image_ids(path: str | Path) -> NDArray[np.int64]:
    """`ImageId` of each face of Kaggle's `test.csv`, int64 (N,), in the order of `load`.

    Raises:
        DataError: missing, damaged or wrong content, or an id that comes twice.
    """
    path = Path(path)
    ids: dict[int, int] = {}
    with _table(path) as (header, lines):
        columns = {name.strip(): index for index, name in enumerate(header)}
        if "ImageId" not in columns:
            raise DataError(f"{path}: lacks the column ImageId; Kaggle's test.csv has ImageId and Image")
        for line, cells in lines:
            image = _integer(path, line, "ImageId", cells[columns["ImageId"]])
            if image in ids:
                raise DataError(f"{path}, row {line}: the ImageId {image} is that of row {ids[image]}; remove one")
            ids[image] = line
    return np.array(list(ids), np.int64)


def _kind(path: Path, header: list[str]) -> Task:
    names = {name.strip() for name in header}
    lower = {name.lower() for name in names}
    if "Image" in names:
        return "keypoints"
    if {"emotion", "pixels"} <= lower:
        return "emotion"
    shown = ", ".join(sorted(names))[:80] or "nothing"
    raise DataError(
        f"{path}, row 1: the columns are {shown}; wanted are Kaggle's 30 coordinates and Image, or emotion and pixels"
    )


def _parse_keypoints(path: Path) -> Arrays:
    images: list[NDArray[np.uint8]] = []
    points: list[list[float]] = []
    with _table(path) as (header, lines):
        columns = {name.strip(): index for index, name in enumerate(header)}
        present = [name for name in COORDINATES if name in columns]
        if present and len(present) < len(COORDINATES):
            lacking = [name for name in COORDINATES if name not in columns]
            raise DataError(
                f"{path}, row 1: lacks {len(lacking)} coordinate columns, the first is {lacking[0]}; add it, empty"
            )
        for line, cells in lines:
            images.append(_pixels(path, line, "Image", cells[columns["Image"]], CROP_SIZE))
            points.append([_coordinate(path, line, name, cells[columns[name]]) for name in present])
    _some(path, images)
    targets = np.full((len(images), len(KEYPOINTS), 2), np.nan, np.float32)  # test.csv has no points
    if present:
        targets[:] = np.array(points, np.float32).reshape(-1, len(KEYPOINTS), 2)
        targets[np.isnan(targets).any(2)] = np.nan
    return {"images": np.stack(images), "targets": targets, "part": np.full(len(images), "", "U11")}


def _parse_emotion(path: Path) -> Arrays:
    images: list[NDArray[np.uint8]] = []
    ids: list[int] = []
    parts: list[str] = []
    with _table(path) as (header, lines):
        columns = {name.strip().lower(): index for index, name in enumerate(header)}
        usage = columns.get("usage")
        for line, cells in lines:
            label = _integer(path, line, "emotion", cells[columns["emotion"]])
            if not 0 <= label <= 6:
                raise DataError(f"{path}, row {line}, column emotion: unknown class id {label}; ids are 0-6 (or 0-4)")
            part = "" if usage is None else cells[usage].strip()
            if usage is not None and part not in PARTS:
                raise DataError(
                    f"{path}, row {line}, column Usage: {part!r} is none of {', '.join(PARTS)}; mend the row"
                )
            ids.append(label)
            parts.append(part)
            images.append(_pixels(path, line, "pixels", cells[columns["pixels"]], FER_SIDE))
    _some(path, images)
    return {"images": np.stack(images), "targets": np.array(ids, np.int64), "part": np.array(parts, "U11")}


def _votes(path: Path, faces: Path, parts: NDArray[np.str_]) -> NDArray[np.float32]:
    """Shares of FER+'s annotators, float32 (N, 5), for the rows of FER2013: joined by position within each Usage, as
    the images' names are missing for some (Barsoum et al. 2016, arXiv:1608.01041)."""
    found: dict[str, list[list[int]]] = {}
    with _table(path) as (header, lines):
        columns = {name.strip(): index for index, name in enumerate(header)}
        if missing := [name for name in ("Usage", *_FERPLUS) if name not in columns]:
            raise DataError(f"{path}: lacks the column {', '.join(missing)}; give FER+'s fer2013new.csv")
        for line, cells in lines:
            counts = [_integer(path, line, name, cells[columns[name]]) for name in _FERPLUS]
            if min(counts) < 0 or sum(counts) == 0:
                raise DataError(f"{path}, row {line}: its votes are {counts}; wanted are counts; mend the row")
            found.setdefault(cells[columns["Usage"]].strip(), []).append(counts)
    shares = np.zeros((len(parts), len(EMOTIONS)), np.float32)
    for part in np.unique(parts):
        rows, table = parts == part, np.array(found.get(str(part), []), np.float32).reshape(-1, len(_FERPLUS))
        if rows.sum() != len(table):
            raise DataError(f"{path}: votes on {len(table)} faces of {part or 'no Usage'}, {faces} has {rows.sum()}")
        shares[rows] = table[:, : len(EMOTIONS)] / table.sum(1, keepdims=True)
    return shares


def _five_classes(path: Path, arrays: Arrays, labels: str, votes: NDArray[np.float32] | None) -> Arrays:
    ids = arrays["targets"]
    if labels == "auto":
        labels = "five" if not (arrays["part"] != "").any() and ids.max() < len(EMOTIONS) else "fer7"
        Console(stderr=True).print(f"[dim]{path.name}: data.labels=auto reads {_CHOICE[labels]}[/dim]", highlight=False)
    if labels == "five":
        if ids.max() >= len(EMOTIONS):
            raise DataError(f"{path}: has the class id {ids.max()}, so it is no five-class file; use data.labels=fer7")
        return arrays if votes is None else arrays | {"votes": votes}
    table = np.full(7, -1, np.int64)
    table[list(FER7_TO_FIVE)] = list(FER7_TO_FIVE.values())
    keep = table[ids] >= 0
    if not keep.any():
        raise DataError(
            f"{path}: has faces of fear and neutral only, which are left out; give a file with the other classes"
        )
    if votes is not None:
        keep |= votes.sum(1) >= 0.5
        arrays = arrays | {"votes": votes}
    return {name: values[keep] for name, values in (arrays | {"targets": table[ids]}).items()}


def _some(path: Path, images: Collection[Any]) -> None:
    if not images:
        raise DataError(f"{path}: has a header but no rows; give the whole file")


def _integer(path: Path, line: int, column: str, text: str) -> int:
    try:
        return int(np.int64(int(text)))
    except (ValueError, OverflowError):
        raise DataError(
            f"{path}, row {line}, column {column}: {text[:20]!r} is no whole number; mend or remove the row"
        ) from None


def _coordinate(path: Path, line: int, column: str, text: str) -> float:
    if not text.strip():
        return np.nan
    try:
        value = float(text)
    except ValueError:
        value = np.inf
    if np.isinf(value):
        raise DataError(f"{path}, row {line}, column {column}: {text[:20]!r} is no number; mend it, or leave it empty")
    return value


def _pixels(path: Path, line: int, column: str, text: str, side: int) -> NDArray[np.uint8]:
    tokens = text.split()
    where = f"{path}, row {line}, column {column}"
    if len(tokens) != side * side:
        raise DataError(f"{where}: {len(tokens)} pixels, wanted {side * side} ({side}x{side}); mend or remove the row")
    try:
        values = np.array(tokens, np.int64)
    except (ValueError, OverflowError):
        for token in tokens:
            _integer(path, line, column, token)
        raise
    if values.min() < 0 or values.max() > 255:
        bad_value = values[(values < 0) | (values > 255)][0]
        raise DataError(f"{where}: the pixel {bad_value} lies outside 0-255; mend or remove the row")
    return values.astype(np.uint8).reshape(side, side)


@contextmanager
def _table(path: Path) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Header, and (row number in the file, cells) of each further row; archives are opened, their damage named."""
    try:
        with _text(path) as text:
            reader = csv.reader(text)
            header = next(reader, None)
            if not header or not any(name.strip() for name in header):
                raise DataError(f"{path}: is empty; give a CSV file with a header")
            yield header, _rows(path, reader, len(header))
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is a truncated or damaged archive ({error}); fetch it again") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV text file ({error}); give the CSV or its .zip, .gz or .xz") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path and rights") from error


def _rows(path: Path, reader: Any, width: int) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        if not cells:
            continue
        if len(cells) != width:
            raise DataError(
                f"{path}, row {reader.line_num}: has {len(cells)} columns, the header {width}; mend or remove the row"
            )
        yield reader.line_num, cells


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    console = Console(stderr=True)
    with rich.progress.open(
        path, "rb", description=f"reading {path.name}", console=console, transient=True, disable=not console.is_terminal
    ) as raw:
        if path.suffix == ".zip":
            with zipfile.ZipFile(raw) as archive:
                members = [
                    name for name in archive.namelist() if name.lower().endswith(".csv") and "__MACOSX" not in name
                ]
                if len(members) != 1:
                    raise DataError(
                        f"{path}: holds {len(members)} CSV files, wanted is one; unpack it and give the CSV"
                    )
                with archive.open(members[0]) as stream:
                    yield io.TextIOWrapper(stream, "utf-8-sig", newline="")
        else:
            opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
            with opener(raw) if opener else raw as stream:  # type: ignore[operator]
                yield io.TextIOWrapper(stream, "utf-8-sig", newline="")
