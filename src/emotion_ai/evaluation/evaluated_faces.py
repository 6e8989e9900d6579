"""The faces that an evaluation uses, and whether the network may have been trained on them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from emotion_ai.class_set import FIVE, SEVEN, ClassSet
from emotion_ai.contract import EMOTIONS
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.duplicates import seen_in
from emotion_ai.data.loaders import load
from emotion_ai.data.splits import SYNTHETIC
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.side_tables import FaceRows
from emotion_ai.provenance import RunRecord

_SYNTHETIC_COUNT = 500
_EXPRESSIONS = (*SEVEN.names, "Contempt")  # that datasets have besides the emotions


@dataclass(frozen=True)
class EvaluatedFaces:
    """Annotated faces.

    Attributes:
        duplicates: bool (N,), faces whose pixels also occur in the source's Training part.
        removed: number of such faces that were left out.
        rows: where they lie in their dataset.
        outside: faces of expressions that the network does not know, whose indices in `outside.classes` follow its own;
            None if the source has none, or the network's classes are not expressions.
        outside_rows: where these lie.
    """

    faces: FaceDataset
    duplicates: NDArray[np.bool_]
    removed: int
    rows: FaceRows
    outside: FaceDataset | None = None
    outside_rows: FaceRows | None = None


def evaluated_faces(cfg: DictConfig, classes: ClassSet = FIVE) -> EvaluatedFaces:
    """The faces that `cfg.data` names; for emotion those of some classes.

    Raises:
        DataError: a dataset that cannot be used, or without annotations.
        ConfigError: a part that the dataset lacks, or `data.without_duplicates` without a part to compare.
    """
    wider = with_other_expressions(classes)
    if cfg.data.path == SYNTHETIC:
        if cfg.data.vote_file is not None:
            raise ConfigError(f"data.vote_file={cfg.data.vote_file}: belongs to FER2013; give its CSV as data.path")
        faces = synthetic_faces(_SYNTHETIC_COUNT, cfg.seed, classes).faces(cfg.task.name)
    else:
        faces = load(cfg.data.path, cfg.task.name, cfg.data.labels, cfg.data.vote_file, beside="", classes=wider)
    loaded = len(faces)
    trained = faces.part == "Training"
    if cfg.task.name == "emotion":
        trained &= faces.labels < len(classes)
    training = faces.images[trained]
    if cfg.data.part is not None:
        parts = ", ".join(sorted(set(faces.part) - {""})) or "no parts"
        faces = faces[faces.part == cfg.data.part]
        if len(faces) == 0:
            raise ConfigError(f"data.part={cfg.data.part}: no such faces in {cfg.data.path}, which has {parts}")
    held_out = cfg.data.part not in (None, "Training")
    if cfg.data.without_duplicates and not held_out:
        raise ConfigError("data.without_duplicates=true compares a part with Training; give data.part=PublicTest")
    outside = None
    if cfg.task.name == "emotion" and len(faces.classes) > len(classes):
        outside = faces[faces.labels >= len(classes)] if (faces.labels >= len(classes)).any() else None
        faces = replace(faces[(faces.labels >= 0) & (faces.labels < len(classes))], classes=classes)
        if len(faces) == 0:
            raise DataError(f"{cfg.data.path}: has no face of {', '.join(classes.names)}; give one with such faces")
    if cfg.task.name == "keypoints":
        annotated = np.flatnonzero(~np.isnan(faces.points).all((1, 2)))
        if len(annotated) == 0:
            raise DataError(f"{cfg.data.path}: has no annotated points; a test.csv can only be predicted")
        faces = faces[annotated]
    duplicates = seen_in(faces.images, training) if held_out else np.zeros(len(faces), bool)
    removed = duplicates if cfg.data.without_duplicates else np.zeros(len(faces), bool)
    faces, duplicates = faces[~removed], duplicates[~removed]
    if outside is not None and cfg.data.without_duplicates:
        outside = outside[~seen_in(outside.images, training)]
    file = Path(cfg.data.path) if faces.ids is not None and Path(cfg.data.path).is_file() else None

    def rows(of: FaceDataset) -> FaceRows:
        return FaceRows(np.arange(1, len(of) + 1).astype(str) if of.ids is None else of.ids, file, loaded)

    others = None if outside is None or len(outside) == 0 else outside
    return EvaluatedFaces(
        faces, duplicates, int(removed.sum()), rows(faces), others, None if others is None else rows(others)
    )


def with_other_expressions(classes: ClassSet) -> ClassSet:
    """The classes and the other known expressions after them; the classes alone if they are not expressions."""
    if classes.names[: len(EMOTIONS)] != EMOTIONS or not set(classes.names) <= set(_EXPRESSIONS):
        return classes
    return replace(classes, names=(*classes.names, *(name for name in _EXPRESSIONS if name not in classes.names)))


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
