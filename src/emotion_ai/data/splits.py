"""From data settings to the three sets: what is trained on, what choices use, what is only reported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emotion_ai.contract import Task
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.duplicates import Rows, duplicate_groups, folds, grouped_split, seen_in
from emotion_ai.data.loaders import load
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError

SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class DataSplits:
    """Disjoint faces: `train` to learn from, `select` for early stopping and every choice, `report` to report only."""

    train: FaceDataset
    select: FaceDataset
    report: FaceDataset
    how: str
    duplicates_removed: int

    def as_dict(self) -> dict[str, Any]:
        sets = {"train": self.train, "select": self.select, "report": self.report}
        return {
            "how": self.how,
            "training_twins_of_report_removed": self.duplicates_removed,
            **{
                n: {"faces": len(f), "source": Path(f.source).name, "fingerprint": f.fingerprint}
                for n, f in sets.items()
            },
        }


def build_splits(
    task: Task,
    train: str,
    val: str | None,
    labels: str,
    votes: str | None,
    count: int,
    select: float,
    split: list[float] | None,
    folds_count: int | None,
    fold: int,
    seed: int,
) -> DataSplits:
    """Loads and splits.

    With a separate file `val`, or with a Usage column, that file or PublicTest is reported; otherwise a fold, or the
    last part of `split`. `select` is a share of the training rows, twins grouped. Training rows whose pixels are also
    in the reported set are left out.

    Args:
        train, val: files or folders, or "synthetic".
        votes: FER+'s file for `train`; faces whose own label is none of the five are then learnt from, never judged.
        count: number of synthetic training faces.
        select: share of the training rows for choices.
        split: three shares, [train, select, report]; only where no official split exists.
        folds_count, fold: cross-validation instead of `split`.

    Raises:
        DataError: a file that cannot be used.
        ConfigError: settings that contradict each other.
    """
    if votes is not None and (train == SYNTHETIC or task != "emotion"):
        raise ConfigError(f"data.votes={votes}: FER+ votes belong to FER2013; give it as data.train, with task=emotion")
    faces = synthetic_faces(count, seed).faces(task) if train == SYNTHETIC else load(train, task, labels, votes)
    if task == "keypoints":
        faces = faces[np.flatnonzero(~np.isnan(faces.targets).all((1, 2)))]
    parts = set(faces.part) - {""}
    if val is not None:
        # other synthetic faces come from another seed
        report = (
            synthetic_faces(max(count // 10, 1), seed + 1).faces(task) if val == SYNTHETIC else load(val, task, labels)
        )
        return _with_report(faces, report, select, seed, "separate file")
    if parts and split is None and folds_count is None:
        if not {"Training", "PublicTest"} <= parts:
            raise ConfigError(f"{train}: has the parts {', '.join(sorted(parts))} only; give data.val or data.split")
        training, public = (np.flatnonzero(faces.part == part) for part in ("Training", "PublicTest"))
        return _with_report(faces[training], faces[public], select, seed, "Usage: Training, PublicTest")
    if folds_count is not None:
        rows = folds(duplicate_groups(faces.images), folds_count, seed)
        rest = np.concatenate([r for index, r in enumerate(rows) if index != fold])
        return _with_report(faces[rest], faces[rows[fold]], select, seed, f"fold {fold} of {folds_count}")
    fractions = split or [0.8, 0.1, 0.1]
    first, second, third = _split(faces, fractions, seed)
    return DataSplits(faces[first], faces[second], faces[third], f"random split {fractions}", 0)


def _split(faces: FaceDataset, fractions: list[float], seed: int) -> list[Rows]:
    """Labelled faces are split as if alone; the others belong to the first part, where they have no twin outside."""
    labelled = faces.targets >= 0 if faces.task == "emotion" else np.ones(len(faces), bool)
    rows = np.flatnonzero(labelled)
    first, *others = (rows[part] for part in grouped_split(duplicate_groups(faces.images[rows]), fractions, seed))
    rest = np.flatnonzero(~labelled)
    rest = rest[~seen_in(faces.images[rest], faces.images[np.concatenate(others)])]
    return [np.sort(np.concatenate([first, rest])), *others]


def _with_report(faces: FaceDataset, report: FaceDataset, select: float, seed: int, how: str) -> DataSplits:
    if report.task == "emotion":
        report = report[report.targets >= 0]
    twins = seen_in(faces.images, report.images)
    faces = faces[~twins]
    learn, choose = _split(faces, [1 - select, select], seed)
    return DataSplits(faces[learn], faces[choose], report, how, int(twins.sum()))
