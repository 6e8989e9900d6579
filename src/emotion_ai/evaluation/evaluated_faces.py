"""The faces that an evaluation uses, and whether the network may have been trained on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from emotion_ai.class_set import FIVE, ClassSet
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.duplicates import seen_in
from emotion_ai.data.loaders import load
from emotion_ai.data.splits import SYNTHETIC
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.side_tables import FaceRows
from emotion_ai.provenance import RunRecord

_SYNTHETIC_COUNT = 500


@dataclass(frozen=True)
class EvaluatedFaces:
    """Annotated faces.

    Attributes:
        duplicates: bool (N,), faces whose pixels also occur in the source's Training part.
        removed: number of such faces that were left out.
        rows: where they lie in their dataset.
    """

    faces: FaceDataset
    duplicates: NDArray[np.bool_]
    removed: int
    rows: FaceRows


def evaluated_faces(cfg: DictConfig, classes: ClassSet = FIVE) -> EvaluatedFaces:
    """The faces that `cfg.data` names; for emotion those of some classes.

    Raises:
        DataError: a dataset that cannot be used, or without annotations.
        ConfigError: a part that the dataset lacks, or `data.without_duplicates` without a part to compare.
    """
    if cfg.data.path == SYNTHETIC:
        faces = synthetic_faces(_SYNTHETIC_COUNT, cfg.seed, classes).faces(cfg.task.name)
    else:
        faces = load(cfg.data.path, cfg.task.name, cfg.data.labels, beside="", classes=classes)
    loaded = len(faces)
    training = faces.images[faces.part == "Training"]
    if cfg.data.part is not None:
        parts = ", ".join(sorted(set(faces.part) - {""})) or "no parts"
        faces = faces[faces.part == cfg.data.part]
        if len(faces) == 0:
            raise ConfigError(f"data.part={cfg.data.part}: no such faces in {cfg.data.path}, which has {parts}")
    held_out = cfg.data.part not in (None, "Training")
    if cfg.data.without_duplicates and not held_out:
        raise ConfigError("data.without_duplicates=true compares a part with Training; give data.part=PublicTest")
    if cfg.task.name == "keypoints":
        annotated = np.flatnonzero(~np.isnan(faces.points).all((1, 2)))
        if len(annotated) == 0:
            raise DataError(f"{cfg.data.path}: has no annotated points; a test.csv can only be predicted")
        faces = faces[annotated]
    duplicates = seen_in(faces.images, training) if held_out else np.zeros(len(faces), bool)
    removed = duplicates if cfg.data.without_duplicates else np.zeros(len(faces), bool)
    faces, duplicates = faces[~removed], duplicates[~removed]
    ids = np.arange(1, len(faces) + 1).astype(str) if faces.ids is None else faces.ids
    file = Path(cfg.data.path) if faces.ids is not None and Path(cfg.data.path).is_file() else None
    return EvaluatedFaces(faces, duplicates, int(removed.sum()), FaceRows(ids, file, loaded))


def seen_in_training(fingerprint: str, part: str | None, record: RunRecord) -> str:
    """Whether the network may have been trained on the faces, in words.

    Args:
        fingerprint, part: of the evaluated faces.
        record: the network's training record.
    """
    if record.data is None:
        return "which may include training faces (the checkpoint has no record of its training data)"
    held_out = record.data.how.startswith("Usage") and part in ("PublicTest", "PrivateTest")
    if held_out or fingerprint != record.data.train.fingerprint:
        return "not used for training or validation"
    return "some of which the network was trained on"
