"""The reference of a version: how its networks answer the faces that they were made for, for `emotion-ai drift`.

After a change of the bundled weights, their reference is written anew with

    python -m emotion_ai_export.convert.reference fer2013.csv PublicTest
"""

import hashlib
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emotion_ai.contract import TASKS, Task
from emotion_ai.data.loaders import load
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.answers import DESCRIPTION, read_rows
from emotion_ai.inference.answer_rows import QUALITY, Answer, FaceAnswers, Origin, to_table, write_rows
from emotion_ai.inference.reader import FaceReader
from emotion_ai.inference.verdict import VerdictRule
from emotion_ai.models.checkpoint import WEIGHTS, bundled
from emotion_ai_export.convert.version_files import SourceNetwork

BUNDLED = WEIGHTS / "reference.parquet"
"""The bundled weights' answers to faces that they were not trained on."""

MAX_FACES = 2_500

_CHECKPOINT = b"emotion_ai_checkpoint"  # whose answers these are
_COLUMNS = ("time", "source", "model", "version", "face", "size", *QUALITY, "emotion", "confidence", "verdict", "error")


def version_reference(
    sources: dict[Task, SourceNetwork], faces: dict[str, NDArray[np.uint8]], given: str | None, part: str | None
) -> pa.Table:
    """The reference of a version, of at most `MAX_FACES` faces.

    Args:
        sources: the exported networks.
        faces: crops by kind, uint8 (N, 96, 96), read if nothing is given and the weights are not the bundled ones.
        given: a dataset that the networks read, or a log, or another reference.
        part: of a dataset with a Usage column, such as PublicTest.

    Raises:
        ConfigError: the part does not exist.
        DataError: what is given cannot be read, or holds no answers.
    """
    if given is None:
        if sources["emotion"].checkpoint == "bundled" and belongs_to_bundled(BUNDLED):
            return read_rows(BUNDLED)
        images = [image for kind in ("real", "synthetic") for image in faces.get(kind, ())]
        return _answers(sources, images, f"{len(images)} portraits and synthetic faces")
    if Path(given).suffix == ".parquet" or any(Path(given).glob("*.parquet")):
        return _from_log(Path(given))
    dataset = load(given, classes=sources["emotion"].network.spec.class_set)
    if part is not None:
        if part not in dataset.part:
            parts = ", ".join(sorted(set(dataset.part) - {""})) or "none"
            raise ConfigError(f"reference_part={part}: the parts of {given} are {parts}")
        dataset = dataset[dataset.part == part]
    rows = _sampled(len(dataset))
    name = " ".join(filter(None, (Path(given).name, part)))
    return _answers(sources, list(dataset[rows].images), f"{name}, {len(rows)} of {len(dataset)} faces")


def write_reference(reference: pa.Table, path: Path, version: int) -> None:
    """Writes a reference as that of a version."""
    position = reference.schema.get_field_index("version")
    numbers = pa.array([version] * len(reference), pa.int64())
    write_rows(reference.set_column(position, reference.schema.field(position), numbers), path)


def belongs_to_bundled(reference: Path) -> bool:
    """Whether a file holds the answers of the bundled emotion network, and not of an earlier one."""
    found = (read_rows(reference).schema.metadata or {}) if reference.is_file() else {}
    return found.get(_CHECKPOINT) == _digest()


def _answers(sources: dict[Task, SourceNetwork], images: list[NDArray[np.uint8]], description: str) -> pa.Table:
    emotion = sources["emotion"]
    rule = VerdictRule.of(emotion.record, emotion.network.spec.class_set)
    reader = FaceReader(sources["keypoints"].network, emotion.network, rule)
    found = FaceAnswers.of_crops(reader.read_crops(images), images)
    table = to_table([Answer(Origin("face"), time.time(), float("nan"), faces=found)])
    return _described(table, description, {_CHECKPOINT: _digest()} if emotion.checkpoint == "bundled" else {})


def _from_log(path: Path) -> pa.Table:
    """Some answers of a log; numbers take the place of its sources, which may name people."""
    table = read_rows(path)
    table = table.filter(pc.is_valid(table["face"]))
    if not len(table):
        raise DataError(f"{path}: holds no answers; log some first, or give a dataset")
    rows, count = _sampled(len(table)), len(table)
    numbers = pc.dictionary_encode(table["source"].combine_chunks()).indices.cast(pa.string())
    table = table.set_column(table.schema.get_field_index("source"), "source", numbers).take(rows)
    return _described(table, f"{path.name}, {len(rows)} of {count} answers", {})


def _described(table: pa.Table, description: str, metadata: dict[bytes, bytes]) -> pa.Table:
    known = table.schema.metadata or {}
    return table.select(_COLUMNS).replace_schema_metadata({**known, DESCRIPTION: description.encode(), **metadata})


def _sampled(count: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(0).permutation(count)[:MAX_FACES])


def _digest() -> bytes:
    return hashlib.sha256(bundled("emotion").read_bytes()).hexdigest().encode()


if __name__ == "__main__":
    bundled_sources: dict[Task, SourceNetwork] = {task: SourceNetwork.load("bundled", task) for task in TASKS}
    write_rows(version_reference(bundled_sources, {}, *sys.argv[1:3]), BUNDLED)
