"""The reference that a version carries: whose answers it holds, and that it names nobody."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emotion_ai.contract import Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.answers import find_reference, read_answers
from emotion_ai.evaluation.drift import DriftTest, compare
from emotion_ai.inference.answer_rows import write_rows
from emotion_ai.models import FaceNetwork
from emotion_ai.provenance import RunRecord
from emotion_ai.published import REFERENCE_FILE
from emotion_ai_export.convert import reference
from emotion_ai_export.convert.reference import BUNDLED, belongs_to_bundled, version_reference, write_reference
from emotion_ai_export.convert.version_files import SourceNetwork
from tests.evaluation.test_drift import answers

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


@pytest.fixture(scope="module")
def sources() -> dict[Task, SourceNetwork]:
    tasks: tuple[Task, ...] = ("keypoints", "emotion")
    return {task: SourceNetwork("own", FaceNetwork(task, TINY).eval(), RunRecord()) for task in tasks}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A CSV file as FER2013's, of 80 faces, half of them in PublicTest."""
    path = tmp_path / "faces.csv"
    images = synthetic_faces(80, 0).images[:, ::2, ::2]
    lines = [
        f"{(0, 1, 3, 4, 5)[i % 5]},{' '.join(map(str, image.ravel()))},{'PublicTest' if i % 2 else 'Training'}"
        for i, image in enumerate(images)
    ]
    path.write_text("\n".join(["emotion,pixels,Usage", *lines]))
    return path


def test_the_bundled_reference_belongs_to_the_bundled_weights() -> None:
    """After a change of the weights: `python -m emotion_ai_export.convert.reference fer2013.csv PublicTest`."""
    assert belongs_to_bundled(BUNDLED)
    sample = read_answers(BUNDLED)
    assert len(sample) >= 2_000
    assert "PublicTest" in sample.description
    assert BUNDLED.stat().st_size < 200_000
    assert not compare(sample, sample, DriftTest()).alarm


def test_the_bundled_weights_bring_theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundled: dict[Task, SourceNetwork] = {
        "emotion": SourceNetwork("bundled", FaceNetwork("emotion", TINY), RunRecord())
    }
    assert len(version_reference(bundled, {}, None, None)) == len(pq.read_table(BUNDLED))


def test_without_faces_of_the_users_it_says_what_it_holds(sources: dict[Task, SourceNetwork]) -> None:
    faces = {"real": np.zeros((3, 96, 96), np.uint8), "synthetic": synthetic_faces(60, 0).images}
    faces["black"] = np.zeros((9, 96, 96), np.uint8)
    table = version_reference(sources, faces, None, None)
    assert len(table) == 63
    assert table.schema.metadata[b"emotion_ai_reference"] == b"63 portraits and synthetic faces"


def test_a_part_of_a_dataset(
    sources: dict[Task, SourceNetwork], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "MAX_FACES", 30)
    table = version_reference(sources, {}, str(dataset), "PublicTest")
    assert table.schema.metadata[b"emotion_ai_reference"] == b"faces.csv PublicTest, 30 of 40 faces"
    path = tmp_path / "models" / "face" / "7" / REFERENCE_FILE
    path.parent.mkdir(parents=True)
    write_reference(table, path, 7)
    sample = read_answers(find_reference(tmp_path / "models"))
    assert (len(sample), sample.versions, set(sample.measures["size"])) == (30, (7,), {48})
    with pytest.raises(ConfigError, match=r"reference_part=Test: the parts of .* are PublicTest, Training"):
        version_reference(sources, {}, str(dataset), "Test")


def test_a_log_without_the_names_of_its_photos(sources: dict[Task, SourceNetwork], tmp_path: Path) -> None:
    photos = [f"/home/anna/{i // 2}.jpg" for i in range(100)]
    log = tmp_path / "log"
    log.mkdir()
    write_rows(answers(100, 0, source=photos), log / "answers.parquet")
    write_rows(version_reference(sources, {}, str(log), None), tmp_path / "reference.parquet")
    assert b"anna" not in pq.read_table(tmp_path / "reference.parquet").to_pandas().to_csv().encode()
    assert len(set(read_answers(tmp_path / "reference.parquet").groups)) == 50
    again = version_reference(sources, {}, str(tmp_path / "reference.parquet"), None)
    assert isinstance(again, pa.Table)
    write_rows(answers(9, 0, face=[None] * 9), log / "answers.parquet")
    with pytest.raises(DataError, match="holds no answers"):
        version_reference(sources, {}, str(log), None)
