"""From data settings to the three splits: train, val (for every choice) and test (reported, never chosen by)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from emotion_ai.class_set import FIVE, ClassSet
from emotion_ai.contract import Task
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.duplicates import Rows, common_groups, duplicate_groups, folds, grouped_split
from emotion_ai.data.folders import split_folder
from emotion_ai.data.loaders import load
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError
from emotion_ai.provenance import DataRecord, SplitRecord
from emotion_ai.schema import Range, Share

SYNTHETIC = "synthetic"
VAL_SHARE = 0.1


@dataclass(frozen=True)
class DataConfig:
    """Where faces come from and how they are split.

    Attributes:
        train: a file or folder, or "synthetic".
        test: the same for the test split. None takes the source's own split, a fold, or a share.
        val: share of the training rows; or, if `test` is given, a file or folder.
        labels: "five", "fer7" or "auto": what the class ids mean.
        vote_file: FER+'s votes for `train`.
        count: number of synthetic training faces.
        split: shares [train, val, test] where the source has no official split; None means [0.9 - val, val, 0.1].
        folds: number of cross-validation folds, instead of `split`.
        fold: which of them is the test split.

    Raises:
        ConfigError: settings that contradict each other.
    """

    train: str
    test: str | None = None
    val: Annotated[float, Range(gt=0, lt=1)] | str = VAL_SHARE
    labels: str = "auto"
    vote_file: str | None = None
    count: Annotated[int, Range(ge=1)] = 3000
    split: tuple[Share, Share, Share] | None = None
    folds: Annotated[int, Range(ge=2)] | None = None
    fold: Annotated[int, Range(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.split is not None and self.folds is not None:
            raise ConfigError("data.split and data.folds contradict each other; give one of them")
        if self.folds is not None and self.fold >= self.folds:
            raise ConfigError(f"data.fold must be an integer < {self.folds}, the number of folds, got {self.fold}")
        if self.folds is None and self.fold:
            raise ConfigError(f"data.fold={self.fold} needs the number of folds; give data.folds=...")
        if self.split is not None and self.val != VAL_SHARE:
            raise ConfigError(f"data.val={self.val} and data.split contradict each other; give the share in data.split")
        if isinstance(self.val, str) and self.test is None:
            raise ConfigError(f"data.val={self.val}: a validation file needs a test file; give data.test=FILE")
        if self.test is not None and (self.split is not None or self.folds is not None):
            name = "data.split" if self.folds is None else "data.folds"
            raise ConfigError(f"data.test and {name} contradict each other; give one of them")


@dataclass(frozen=True)
class DataSplits:
    """Disjoint faces: `train` to fit weights, `val` for early stopping and every choice, `test` to report only."""

    train: FaceDataset
    val: FaceDataset
    test: FaceDataset
    how: str
    duplicates_removed: int = 0

    def record(self) -> DataRecord:
        """What a run record holds about the data."""
        train, val, test = (
            SplitRecord(len(faces), Path(faces.source).name, faces.fingerprint)
            for faces in (self.train, self.val, self.test)
        )
        return DataRecord(self.how, train, val, test, self.duplicates_removed)


def build_splits(task: Task, data: DataConfig, seed: int, classes: ClassSet | None = FIVE) -> DataSplits:
    """Loads and splits; identical pixels never stand on both sides.

    The test split is the file `data.test`; else PublicTest, where the source has a Usage column; else a fold, or the
    last share of `data.split`. `val` is a share of the training rows, duplicates kept together, or the file `data.val`.
    A folder with train, val and test is used as it is.
    Training faces with the pixels of a test face are left out. Without `classes` these are the names of the training
    data's class folders. The five emotions are split as if alone, so that a
    network of more classes can start from one of the five.

    Raises:
        DataError: a file that cannot be used.
        ConfigError: settings that contradict each other.
    """
    if data.vote_file is not None and (data.train == SYNTHETIC or task != "emotion"):
        raise ConfigError(
            f"data.vote_file={data.vote_file}: FER+ votes belong to FER2013; give it as data.train, with task=emotion"
        )
    if data.train == SYNTHETIC:
        faces = synthetic_faces(data.count, seed, classes if task == "emotion" else FIVE).faces(task)
    else:
        faces = load(data.train, task, data.labels, data.vote_file, classes=classes)
    faces = _annotated(faces, "data.train")
    if data.test is not None:
        test = _separate("data.test", data.test, data, seed + 1, faces)
        if isinstance(data.val, str):
            return _from_files(faces, _separate("data.val", data.val, data, seed + 2, faces), test)
        return _with_test(faces, test, common_groups(faces.images, test.images), data.val, seed, "separate file")
    groups = duplicate_groups(faces.images)
    assert not isinstance(data.val, str)  # DataConfig refuses it
    parts = set(faces.part) - {""}
    if parts and data.split is None and data.folds is None:
        if not {"Training", "PublicTest"} <= parts:
            raise _without_official_split(data.train, parts)
        if "PrivateTest" in parts and Path(data.train).is_dir():
            if data.val != VAL_SHARE:
                raise ConfigError(f"data.val={data.val}: {data.train} has a val folder; leave data.val out")
            rows = [np.flatnonzero(faces.part == part) for part in ("Training", "PublicTest", "PrivateTest")]
            return replace(_from_files(*(faces[part] for part in rows)), how="folders train, val, test")
        training, public = (np.flatnonzero(faces.part == part) for part in ("Training", "PublicTest"))
        how = "Usage: Training, PublicTest"
        return _with_test(faces[training], faces[public], [groups[training], groups[public]], data.val, seed, how)
    if data.folds is not None:
        fold_rows = folds(groups, data.folds, seed)
        rest = np.concatenate([r for index, r in enumerate(fold_rows) if index != data.fold])
        fold = fold_rows[data.fold]
        how = f"fold {data.fold} of {data.folds}"
        return _with_test(faces[rest], faces[fold], [groups[rest], groups[fold]], data.val, seed, how)
    shares = list(data.split or (0.9 - data.val, data.val, 0.1))
    first, second, third = _split(faces, groups, shares, seed)
    return DataSplits(faces[first], faces[second], faces[third], f"random split {shares}")


def _separate(setting: str, source: str, data: DataConfig, seed: int, train: FaceDataset) -> FaceDataset:
    """The faces of a validation or test file; synthetic ones come from another seed than the training faces."""
    if source == SYNTHETIC:
        return _annotated(synthetic_faces(max(data.count // 10, 1), seed, train.classes).faces(train.task), setting)
    faces = load(source, train.task, data.labels, beside=train.class_ids, classes=train.classes)
    if faces.fingerprint == train.fingerprint:
        raise ConfigError(f"{setting}={source}: is the training data itself; leave it out to split {data.train}")
    if Path(source).is_dir() and "Training" in faces.part:
        raise ConfigError(
            f"{setting}={source}: has training faces, too; give one split: {setting}={split_folder(source, 'test')}"
        )
    return _labelled(_annotated(faces, setting))


def _without_official_split(source: str, parts: set[str]) -> ConfigError:
    if Path(source).is_dir() and parts == {"Training", "PrivateTest"}:
        train, test = (split_folder(source, split) for split in ("train", "test"))
        return ConfigError(f"{source}: has the folders train and test; give data.train={train} data.test={test}")
    return ConfigError(f"{source}: has the parts {', '.join(sorted(parts))} only; give data.test or data.split")


def _annotated(faces: FaceDataset, setting: str) -> FaceDataset:
    """Keypoint faces with at least one point."""
    if faces.task != "keypoints":
        return faces
    rows = np.flatnonzero(~np.isnan(faces.targets).all((1, 2)))
    if len(rows) == 0:
        raise ConfigError(
            f"{setting}={faces.source}: has no keypoints, as Kaggle's test.csv; train on training.csv, and "
            "predict this file with: emotion-ai predict --kaggle test.csv IdLookupTable.csv --csv submission.csv"
        )
    return faces[rows]


def _labelled(faces: FaceDataset) -> FaceDataset:
    """Emotion faces whose label is one of the classes."""
    return faces[faces.targets >= 0] if faces.task == "emotion" else faces


def _split(faces: FaceDataset, groups: Rows, shares: list[float], seed: int) -> list[Rows]:
    """The five emotions are split as if alone, then faces of other classes; those without a label join the first part.

    A face whose duplicate is in a part already joins that part.
    """
    if faces.task != "emotion":
        return grouped_split(groups, shares, seed)
    emotions = (faces.targets >= 0) & (faces.targets < faces.classes.emotions)
    parts = _grouped(np.flatnonzero(emotions), groups, shares, seed)
    if (others := np.flatnonzero(faces.targets >= faces.classes.emotions)).size:
        placed = [np.isin(groups[others], groups[part]) for part in parts]
        new = _grouped(others[~np.any(placed, axis=0)], groups, shares, seed)
        parts = [
            np.concatenate([part, others[twin], rows]) for part, twin, rows in zip(parts, placed, new, strict=True)
        ]
    rest = np.flatnonzero(faces.targets < 0)
    rest = rest[~np.isin(groups[rest], groups[np.concatenate(parts[1:])])]
    return [np.sort(part) for part in (np.concatenate([parts[0], rest]), *parts[1:])]


def _grouped(rows: Rows, groups: Rows, shares: list[float], seed: int) -> list[Rows]:
    return [rows[part] for part in grouped_split(groups[rows], shares, seed)]


def _with_test(
    faces: FaceDataset, test: FaceDataset, groups: list[Rows], val: float, seed: int, how: str
) -> DataSplits:
    """Splits `faces` without those that have a duplicate in `test`; `groups` are the common groups of the two.

    Duplicates of the five emotions' test faces leave before the split, those of other classes after it, so that the
    five are split in the same way with and without other classes.
    """
    labelled = test.targets >= 0 if test.task == "emotion" else np.ones(len(test), bool)
    first = labelled & (test.targets < test.classes.emotions) if test.task == "emotion" else labelled
    duplicates = np.isin(groups[0], groups[1][labelled])
    if duplicates.all():
        raise ConfigError(f"all {len(faces):,} training faces are in the test split, too; give other test data")
    rest = np.flatnonzero(~np.isin(groups[0], groups[1][first]))
    parts = (rest[part] for part in _split(faces[rest], groups[0][rest], [1 - val, val], seed))
    train_rows, val_rows = (part[~duplicates[part]] for part in parts)
    return DataSplits(faces[train_rows], faces[val_rows], test[labelled], how, int(duplicates.sum()))


def _from_files(train: FaceDataset, val: FaceDataset, test: FaceDataset) -> DataSplits:
    train_groups, val_groups, test_groups = common_groups(train.images, val.images, test.images)
    val_rows = ~np.isin(val_groups, test_groups)
    duplicates = np.isin(train_groups, test_groups)
    train_rows = ~(duplicates | np.isin(train_groups, val_groups[val_rows]))
    return DataSplits(train[train_rows], val[val_rows], test, "separate files", int(duplicates.sum()))
