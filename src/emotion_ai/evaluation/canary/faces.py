"""The faces that both versions read: a dataset, photos, or synthetic faces."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import FIVE, ClassSet
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.folders import list_folder
from emotion_ai.data.loaders import load
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError, ImageError, NoFaceError
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.terminal import Console, printable
from emotion_ai.vision.crops import crop
from emotion_ai.vision.photo import load_photo

MIN_FACES = 20
"""Fewer faces give no interval that could be trusted."""

_MAX_CROP_SIDE = 256
"""Pixels: a picture without a face that the detector finds counts as a crop up to this side."""


@dataclass(frozen=True)
class CanaryFaces:
    """Crops, and what is known about them.

    Attributes:
        source: where they come from, for messages.
        crops: gray, uint8 (H, W) each.
        points: float32 (N, 15, 2), pixels of the 96x96 crop, NaN where not annotated; None without any.
        labels: int64 (N,), indices into `classes`, -1 where unknown; None without any.
        classes: what the labels mean.
        groups: int64 (N,), faces that are not independent, such as those of one person, have the same number; None if
            every face stands alone.
        resampled: what intervals resample: "faces", "people", ...
    """

    source: str
    crops: list[NDArray[np.uint8]]
    points: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    classes: ClassSet = FIVE
    groups: NDArray[np.int64] | None = None
    resampled: str = "faces"

    def __len__(self) -> int:
        return len(self.crops)


def load_faces(
    paths: Sequence[Path], pictures: Sequence[Path], count: int, seed: int, classes: ClassSet = FIVE
) -> CanaryFaces:
    """The faces to compare with.

    Args:
        paths: one dataset (a CSV file or a folder of class folders), or none.
        pictures: photos, used if there is no dataset; a small picture without a detected face counts as a crop.
        count: at most so many faces; synthetic ones, if nothing is given.
        seed: of the sample, and of synthetic faces.
        classes: of the network: which a dataset's labels are read as.

    Raises:
        ConfigError: a count below `MIN_FACES`.
        DataError: a dataset or a photo that cannot be read, or fewer faces.
    """
    if count < MIN_FACES:
        raise ConfigError(f"--count must be >= {MIN_FACES}, got {count}")
    faces = _load(paths, pictures, count, seed, classes)
    if len(faces) < MIN_FACES:
        raise DataError(f"{faces.source}: a comparison needs {MIN_FACES} faces, found {len(faces)}; give more")
    return faces


def _load(paths: Sequence[Path], pictures: Sequence[Path], count: int, seed: int, classes: ClassSet) -> CanaryFaces:
    if len(paths) == 1:
        loaded = load(paths[0], classes=classes)
        faces = loaded[_sample(len(loaded), count, seed)]
        groups, resampled = _groups(paths[0], faces, len(loaded))
        points = faces.points if faces.task == "keypoints" else None
        labels = faces.labels if faces.task == "emotion" else None
        return CanaryFaces(faces.source, list(faces.images), points, labels, classes, groups, resampled)
    if pictures:
        return _photos(pictures, count, seed)
    synthetic = synthetic_faces(count, seed)
    return CanaryFaces("synthetic faces", list(synthetic.images), synthetic.points, synthetic.labels)


def is_dataset(path: Path, classes: ClassSet = FIVE) -> bool:
    """Whether a path is a CSV file, an archive, or a folder of folders of these classes, rather than photos."""
    if not path.is_dir():
        return True
    try:
        list_folder(path, classes)
    except DataError:
        return False
    return True


def _groups(path: Path, faces: FaceDataset, loaded: int) -> tuple[NDArray[np.int64] | None, str]:
    """Faces of one person, or near-identical ones; every face alone without the packages of [train]."""
    try:
        from emotion_ai.evaluation.side_tables import FaceRows
        from emotion_ai.evaluation.units import AUTO, resampling_units
    except ModuleNotFoundError:
        return None, "faces"
    assert faces.ids is not None
    rows = FaceRows(faces.ids, path if path.is_file() else None, loaded)
    units = resampling_units(AUTO, rows, faces.images)
    return (None, "faces") if units.independent else (units.groups, units.name)


def _photos(pictures: Sequence[Path], count: int, seed: int) -> CanaryFaces:
    crops: list[NDArray[np.uint8]] = []
    problems: list[str] = []
    for path in pictures:
        try:
            photo = load_photo(path)
        except (ImageError, OSError) as error:
            problems.append(str(error))
            continue
        try:
            crops += [crop(photo.gray, face.box) for face in detect_faces(photo)]
        except NoFaceError as error:
            if max(photo.gray.shape) <= _MAX_CROP_SIDE:
                crops.append(photo.gray)
            else:
                problems.append(str(error))
    for problem in problems[:5]:
        Console(stderr=True, soft_wrap=True).print(f"left out: {printable(problem)}", style="dim", highlight=False)
    if not crops:
        raise DataError(f"{printable(pictures[0])}: no face in the {len(pictures)} photos; give others")
    return CanaryFaces(f"{len(pictures)} photos", [crops[row] for row in _sample(len(crops), count, seed)])


def _sample(total: int, count: int, seed: int) -> NDArray[np.int64]:
    """At most `count` of so many rows, drawn at random, ascending."""
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
