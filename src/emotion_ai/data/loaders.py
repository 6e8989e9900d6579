"""Dataset files, parsed into `FaceDataset`.

Kaggle Facial Keypoints `training.csv` and `test.csv`; FER2013 as `fer2013.csv`, `icml_face_data.csv`, `train.csv` or
the five-class course file; folders of images. A CSV may be plain, .zip, .gz, .xz, .bz2
or in a .tar.
"""

import os
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import FIVE, ClassSet
from emotion_ai.contract import CROP_SIZE, KEYPOINTS, TASKS, Task
from emotion_ai.data.cache import Arrays, cached, check_regular, fingerprint, spill_folder
from emotion_ai.data.csv_files import open_table, parse_coordinate, parse_integer, parse_pixels
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.emotion_labels import LABELS, class_scheme, in_class_set, load_votes, parse_label
from emotion_ai.data.folders import list_folder, parse_folder
from emotion_ai.data.image_arrays import ImageRows
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.terminal import Console, printable
from emotion_ai.vision.crops import resize_to_crop

COORDINATES = tuple(f"{name}_{axis}" for name in KEYPOINTS for axis in "xy")
PARTS = ("Training", "PublicTest", "PrivateTest")
FER_SIDE = 48
_PARTS = ("", *PARTS)
_FAR_PX = 48
"""How far outside the crop a keypoint may lie; labels of a photo's pixels lie farther."""


def load(
    path: str | Path,
    task: Task | None = None,
    labels: str = "auto",
    vote_file: str | Path | None = None,
    beside: str | None = None,
    classes: ClassSet | None = FIVE,
) -> FaceDataset:
    """The faces of a CSV file, an archive with one, or a folder of images `[split/]class/**/*`.

    Args:
        path: the file or folder.
        task: expected task; None infers it from the columns. A folder is always for emotion.
        labels: "five", "fer7", or "auto": five only if there is no Usage column and no id above 4.
        vote_file: FER+'s `fer2013new.csv` for the rows of FER2013. Faces of fear and neutral that at least half of
            its annotators saw as one of the five are then kept, with the target -1.
        beside: for a file of a run's val or test split, the `class_ids` of its training data, which decide what
            labels=auto leaves open.
        classes: faces of other classes are left out; None takes whatever the class folders are called.

    Raises:
        DataError: missing, damaged or wrong content; names file, row, column and remedy.
        ConfigError: unknown task or labels, or labels=auto where the classes are unclear.
    """
    if not str(path):
        raise DataError("no dataset: the path is empty; give a file or folder")
    path = Path(path)
    if task is not None and task not in TASKS:
        raise ConfigError(f"task={task}: choose one of {', '.join(TASKS)}")
    if labels not in LABELS:
        raise ConfigError(f"data.labels={labels}: choose one of {', '.join(LABELS)}")
    if not os.path.exists(path):
        raise DataError(f"{path}: no such file or folder; check the path")
    if path.is_dir():
        if task == "keypoints":
            raise DataError(f"{path}: is a folder; keypoints come as a CSV file, or its .zip, .gz, .xz or .bz2")
        found: Task = "emotion"
        listing = list_folder(path, classes)
        digest = fingerprint(path, [image.path for image in listing.images])
        arrays = cached(digest, "class-folders", lambda: parse_folder(listing))
        classes = listing.class_set
        arrays["targets"] = np.array([classes.index(str(name)) for name in arrays["targets"]], np.int64)
        arrays |= {"ids": np.array([image.path.relative_to(path).as_posix() for image in listing.images])}
        notes = listing.notes()
        if count := int(arrays.pop("frames").sum()):
            notes.append(f"several frames or pages, of which the first is read: {count:,}")
        for note in notes:
            _notice(path, note)
    else:
        check_regular(path)
        with open_table(path) as (header, rows):
            found = _task_of(path, header)
            next(rows, None)  # fails early: the fingerprint reads the whole file
        digest = fingerprint(path)
        parse: Callable[[Path], Arrays] = _parse_keypoints if found == "keypoints" else _parse_emotion
        arrays = cached(digest, found, lambda: parse(path))
        count = len(arrays["part"])
        arrays |= {"ids": np.arange(1, count + 1).astype(f"U{len(str(count))}")}
    if task is not None and task != found:
        raise DataError(f"{path}: holds faces for {found}, expected {task}; give another file or task={found}")
    if classes is None and found == "emotion":
        raise ConfigError(f"classes=folders: {path} is a file; give a folder with a folder for each class")
    classes = classes or FIVE
    scheme = ""
    if found == "emotion" and not path.is_dir():
        votes = None if vote_file is None else load_votes(Path(vote_file), path, arrays["part"], classes)
        scheme = class_scheme(path, arrays, labels, beside, lambda text: _notice(path, text))
        arrays = in_class_set(path, arrays, scheme, votes, classes)
    elif vote_file is not None:
        raise ConfigError(f"data.vote_file={vote_file}: FER+ votes belong to the rows of FER2013's CSV, not to {path}")
    return FaceDataset(
        task=found,
        images=arrays["images"],
        targets=arrays["targets"],
        part=arrays["part"],
        source=printable(path),
        fingerprint=digest,
        votes=arrays.get("votes"),
        class_ids=scheme,
        ids=arrays["ids"],
        classes=classes,
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
    _check_rows(path, len(rows))
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
    shown = printable(", ".join(sorted(names)))[:80] or "nothing"
    raise DataError(f"{path}, row 1: the columns are {shown}; {_advice(lower)}")


def _advice(columns: set[str]) -> str:
    """What to do with a file that holds no labelled faces, by its columns in lower case."""
    if "pixels" in columns:
        if others := sorted(columns - {"pixels", "usage", ""}):
            return f"the classes must be in a column emotion; rename {printable(others[0])[:40]} if it holds them"
        return "Kaggle's test.csv has no labels; give train.csv, fer2013.csv or icml_face_data.csv"
    if {"neutral", "contempt", "nf"} <= columns:
        return "these are FER+'s votes: give data.train=fer2013.csv data.vote_file=FILE"
    if "rowid" in columns:
        return "this is a table for: emotion-ai predict --kaggle test.csv IdLookupTable.csv --csv submission.csv"
    return "expected Kaggle's 30 coordinates and Image, or emotion and pixels"


def _parse_keypoints(path: Path) -> Arrays:
    images, points = ImageRows(spill_folder()), array("d")
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
            coordinates = [parse_coordinate(path, line, name, cells[columns[name]]) for name in present]
            _check_markers(path, line, present, coordinates)
            _check_pixels_of_crop(path, line, coordinates)
            points.extend(coordinates)
    _check_images(path, images)
    targets = np.full((images.count, len(KEYPOINTS), 2), np.nan, np.float32)  # test.csv has no points
    if present:
        targets[:] = np.array(points, np.float32).reshape(-1, len(KEYPOINTS), 2)
        targets[np.isnan(targets).any(2)] = np.nan
        _check_centre(path, targets)
    return {"images": images.array(), "targets": targets, "part": np.full(images.count, "", "U11")}


def _check_markers(path: Path, row: int, names: list[str], coordinates: list[float]) -> None:
    """Rejects points that other tools write where none is known."""
    for name, x, y in zip(names[::2], coordinates[::2], coordinates[1::2], strict=True):
        if x == y and x in (-1, 0):
            raise DataError(
                f"{path}, row {row}: the point {name.removesuffix('_x')} is ({x:g}, {y:g}), which seems to mean a "
                "missing one; leave its cells empty"
            )


def _check_pixels_of_crop(path: Path, row: int, coordinates: list[float]) -> None:
    """Rejects coordinates that are not in pixels of the 96x96 image."""
    known = [value for value in coordinates if value == value]  # without NaN
    if not known:
        return
    low, high = min(known), max(known)
    if len(known) >= 6 and low >= -1.5 and high <= 1.5:
        raise DataError(
            f"{path}, row {row}: the coordinates lie between {low:g} and {high:g}, so they seem to be normalised; "
            "convert them to pixels of the 96x96 image"
        )
    if low < -_FAR_PX or high > CROP_SIZE + _FAR_PX:
        far = low if low < -_FAR_PX else high
        raise DataError(
            f"{path}, row {row}: the coordinate {far:g} is far outside the 96x96 image; convert to its pixels, or "
            "correct the row"
        )


def _check_centre(path: Path, points: NDArray[np.float32]) -> None:
    known = points[~np.isnan(points).any(2)]
    if not len(known):
        return
    x, y = known.mean(0)
    if not 8 <= min(x, y) <= max(x, y) <= CROP_SIZE - 8:
        raise DataError(
            f"{path}: the mean of all points is ({x:.1f}, {y:.1f}), so they are no pixels of the 96x96 image, "
            "whose centre is (47.5, 47.5); convert them"
        )
    if len(points) >= 3 and known.max() <= CROP_SIZE / 2:  # fewer faces may lie in a corner
        raise DataError(
            f"{path}: no coordinate is above {known.max():g}, so they seem to be pixels of a smaller image; convert "
            "them to pixels of the 96x96 image"
        )


def _check_images(path: Path, images: ImageRows) -> None:
    _check_rows(path, images.count)
    if images.largest == 1:
        raise DataError(f"{path}: no pixel is above 1, so pixels seem to lie in 0-1; multiply them by 255 and round")


def _parse_emotion(path: Path) -> Arrays:
    images = ImageRows(spill_folder())
    ids, parts, named = array("b"), array("b"), False
    known_labels: dict[str, tuple[int, bool]] = {}
    with open_table(path) as (header, lines):
        columns = {name.strip().lower(): index for index, name in enumerate(header)}
        usage, side = columns.get("usage"), FER_SIDE
        for line, cells in lines:
            text = cells[columns["emotion"]]
            label, is_name = known_labels.get(text) or known_labels.setdefault(text, parse_label(path, line, text))
            if ids and is_name != named:
                raise DataError(f"{path}, row {line}, column emotion: names and ids are mixed; use one of them")
            part = "" if usage is None else cells[usage].strip()
            if usage is not None and part not in PARTS:
                raise DataError(
                    f"{path}, row {line}, column Usage: {part!r} is none of {', '.join(PARTS)}; correct the row"
                )
            image = parse_pixels(path, line, "pixels", cells[columns["pixels"]], side, any_size=not ids)
            side = len(image)  # that of the first row
            named = is_name
            ids.append(label)
            parts.append(_PARTS.index(part))
            images.append(image if side == FER_SIDE else np.rint(resize_to_crop(image)).astype(np.uint8))
    _check_images(path, images)
    return {
        "images": images.array(),
        "targets": np.array(ids, np.int64),
        "part": np.array(_PARTS, "U11")[np.array(parts)],
        "named": np.full(len(ids), named),
    }


def _check_rows(path: Path, count: int) -> None:
    if not count:
        raise DataError(f"{path}: has a header but no rows; give the whole file")


def _notice(path: Path, text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"{path.name or path}: {text}", style="dim", highlight=False)
