"""Dataset files, parsed into `FaceDataset`.

Kaggle Facial Keypoints `training.csv` and `test.csv`; FER2013 as `fer2013.csv`, `icml_face_data.csv`, `train.csv` or
the five-class course file; folders of images. A CSV may be plain or a .zip, .gz or .xz.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE, EMOTIONS, KEYPOINTS, TASKS, Task
from emotion_ai.data.cache import Arrays, cached, fingerprint
from emotion_ai.data.csv_files import open_table, parse_coordinate, parse_integer, parse_pixels
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.folders import list_folder, parse_folder
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.terminal import Console, printable

COORDINATES = tuple(f"{name}_{axis}" for name in KEYPOINTS for axis in "xy")
FER7_TO_FIVE = {0: 0, 1: 1, 3: 3, 4: 2, 5: 4}
"""FER2013's seven class ids without fear (2) and neutral (6)."""
LABELS = ("auto", "five", "fer7")
PARTS = ("Training", "PublicTest", "PrivateTest")
FER_SIDE = 48
_FERPLUS = (
    *("anger", "disgust", "sadness", "happiness", "surprise"),
    *("neutral", "fear", "contempt", "unknown", "NF"),
)
"""FER+'s columns, our five first, in our order."""

_CHOICE: dict[str, str] = {
    "five": "five classes, ids 0-4",
    "fer7": "FER2013's seven classes, without fear and neutral",
}


def load(
    path: str | Path, task: Task | None = None, labels: str = "auto", vote_file: str | Path | None = None
) -> FaceDataset:
    """The faces of a CSV file, an archive with one, or a folder of images `[split/]class/**/*`.

    Args:
        path: the file or folder.
        task: expected task; None infers it from the columns. A folder is always for emotion.
        labels: "five", "fer7", or "auto": five only if there is no Usage column and no id above 4.
        vote_file: FER+'s `fer2013new.csv` for the rows of FER2013. Faces of fear and neutral that at least half of
            its annotators saw as one of the five are then kept, with the target -1.

    Raises:
        DataError: missing, damaged or wrong content; names file, row, column and remedy.
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
        found: Task = "emotion"
        listing = list_folder(path)
        digest = fingerprint(path, [image.path for image in listing.images])
        arrays = cached(digest, "folder", lambda: parse_folder(listing))
        notes = listing.notes()
        if count := int(arrays.pop("frames").sum()):
            notes.append(f"several frames or pages, of which the first is read: {count:,}")
        for note in notes:
            _notice(path, note)
    else:
        digest = fingerprint(path)
        with open_table(path) as (header, _):
            found = _task_of(path, header)
        parse: Callable[[Path], Arrays] = _parse_keypoints if found == "keypoints" else _parse_emotion
        arrays = cached(digest, found, lambda: parse(path))
    if task is not None and task != found:
        raise DataError(f"{path}: holds faces for {found}, expected {task}; give another file or task={found}")
    if found == "emotion" and not path.is_dir():
        votes = None if vote_file is None else _load_votes(Path(vote_file), path, arrays["part"])
        arrays = _five_classes(path, arrays, labels, votes)
    elif vote_file is not None:
        raise ConfigError(f"data.vote_file={vote_file}: FER+ votes belong to the rows of FER2013's CSV, not to {path}")
    return FaceDataset(
        found, arrays["images"], arrays["targets"], arrays["part"], printable(path), digest, arrays.get("votes")
    )


def load_lookup(path: str | Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Kaggle's `IdLookupTable.csv`: RowId, ImageId and the coordinate's index in `COORDINATES`, int64 (N,) each.

    Raises:
        DataError: missing, damaged or wrong content.
    """
    path = Path(path)
    rows: dict[int, tuple[int, int, int]] = {}
    with open_table(path) as (header, lines):
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
                    f"{path}, row {line}, column FeatureName: unknown feature {name!r}; correct or remove the row"
                )
            row, image = (parse_integer(path, line, c, cells[columns[c]]) for c in ("RowId", "ImageId"))
            if row in rows:
                raise DataError(f"{path}, row {line}: the RowId {row} occurs twice; remove one")
            rows[row] = row, image, COORDINATES.index(name)
    _check_rows(path, rows)
    table = np.array(list(rows.values()), np.int64)
    return table[:, 0], table[:, 1], table[:, 2]


def load_image_ids(path: str | Path) -> NDArray[np.int64]:
    """The `ImageId` of each face of Kaggle's `test.csv`, int64 (N,), in the order of `load`.

    Raises:
        DataError: missing, damaged or wrong content, or an id that occurs twice.
    """
    path = Path(path)
    ids: dict[int, int] = {}
    with open_table(path) as (header, lines):
        columns = {name.strip(): index for index, name in enumerate(header)}
        if "ImageId" not in columns:
            raise DataError(f"{path}: lacks the column ImageId; Kaggle's test.csv has ImageId and Image")
        for line, cells in lines:
            image = parse_integer(path, line, "ImageId", cells[columns["ImageId"]])
            if image in ids:
                raise DataError(f"{path}, row {line}: the ImageId {image} is that of row {ids[image]}; remove one")
            ids[image] = line
    return np.array(list(ids), np.int64)


def _task_of(path: Path, header: list[str]) -> Task:
    names = {name.strip() for name in header}
    lower = {name.lower() for name in names}
    if "Image" in names:
        return "keypoints"
    if {"emotion", "pixels"} <= lower:
        return "emotion"
    shown = ", ".join(sorted(names))[:80] or "nothing"
    raise DataError(
        f"{path}, row 1: the columns are {shown}; expected Kaggle's 30 coordinates and Image, or emotion and pixels"
    )


def _parse_keypoints(path: Path) -> Arrays:
    images: list[NDArray[np.uint8]] = []
    points: list[list[float]] = []
    with open_table(path) as (header, lines):
        columns = {name.strip(): index for index, name in enumerate(header)}
        present = [name for name in COORDINATES if name in columns]
        if present and len(present) < len(COORDINATES):
            lacking = [name for name in COORDINATES if name not in columns]
            raise DataError(
                f"{path}, row 1: lacks {len(lacking)} coordinate columns, the first is {lacking[0]}; add it, empty"
            )
        for line, cells in lines:
            images.append(parse_pixels(path, line, "Image", cells[columns["Image"]], CROP_SIZE))
            points.append([parse_coordinate(path, line, name, cells[columns[name]]) for name in present])
    _check_rows(path, images)
    targets = np.full((len(images), len(KEYPOINTS), 2), np.nan, np.float32)  # test.csv has no points
    if present:
        targets[:] = np.array(points, np.float32).reshape(-1, len(KEYPOINTS), 2)
        targets[np.isnan(targets).any(2)] = np.nan
    return {"images": np.stack(images), "targets": targets, "part": np.full(len(images), "", "U11")}


def _parse_emotion(path: Path) -> Arrays:
    images: list[NDArray[np.uint8]] = []
    ids: list[int] = []
    parts: list[str] = []
    with open_table(path) as (header, lines):
        columns = {name.strip().lower(): index for index, name in enumerate(header)}
        usage = columns.get("usage")
        for line, cells in lines:
            label = parse_integer(path, line, "emotion", cells[columns["emotion"]])
            if not 0 <= label <= 6:
                raise DataError(f"{path}, row {line}, column emotion: unknown class id {label}; ids are 0-6 (or 0-4)")
            part = "" if usage is None else cells[usage].strip()
            if usage is not None and part not in PARTS:
                raise DataError(
                    f"{path}, row {line}, column Usage: {part!r} is none of {', '.join(PARTS)}; correct the row"
                )
            ids.append(label)
            parts.append(part)
            images.append(parse_pixels(path, line, "pixels", cells[columns["pixels"]], FER_SIDE))
    _check_rows(path, images)
    return {"images": np.stack(images), "targets": np.array(ids, np.int64), "part": np.array(parts, "U11")}


def _load_votes(path: Path, faces: Path, parts: NDArray[np.str_]) -> NDArray[np.float32]:
    """Shares of FER+'s annotators, float32 (N, 5), for the rows of FER2013.

    Joined by position within each Usage, because some image names are missing (Barsoum et al. 2016, arXiv:1608.01041).
    """
    found: dict[str, list[list[int]]] = {}
    with open_table(path) as (header, lines):
        columns = {name.strip(): index for index, name in enumerate(header)}
        if missing := [name for name in ("Usage", *_FERPLUS) if name not in columns]:
            raise DataError(f"{path}: lacks the column {', '.join(missing)}; give FER+'s fer2013new.csv")
        for line, cells in lines:
            counts = [parse_integer(path, line, name, cells[columns[name]]) for name in _FERPLUS]
            if min(counts) < 0 or sum(counts) == 0:
                raise DataError(f"{path}, row {line}: its votes are {counts}, expected counts; correct the row")
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
        _notice(path, f"data.labels=auto reads {_CHOICE[labels]}")
    if labels == "five":
        if ids.max() >= len(EMOTIONS):
            raise DataError(f"{path}: has the class id {ids.max()}, so it has more than five; use data.labels=fer7")
        return arrays if votes is None else arrays | {"votes": votes}
    table = np.full(7, -1, np.int64)
    table[list(FER7_TO_FIVE)] = list(FER7_TO_FIVE.values())
    keep = table[ids] >= 0
    if not keep.any():
        raise DataError(f"{path}: has only faces of fear and neutral, which are left out; give a file with the others")
    if votes is not None:
        keep |= votes.sum(1) >= 0.5
        arrays = arrays | {"votes": votes}
    return {name: values[keep] for name, values in (arrays | {"targets": table[ids]}).items()}


def _check_rows(path: Path, rows: Collection[Any]) -> None:
    if not rows:
        raise DataError(f"{path}: has a header but no rows; give the whole file")


def _notice(path: Path, text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"{path.name}: {text}", style="dim", highlight=False)
