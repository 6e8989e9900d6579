"""The composed scenes match their conditions, and the detector finds their faces."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from emotion_ai.benchmarks import detection
from emotion_ai.benchmarks.detection import measure, results_table
from emotion_ai.benchmarks.scenes import CONDITIONS, SIZE, Condition, Scene, compose, portrait_heads
from emotion_ai.vision.crops import Box
from emotion_ai.vision.overlap import iou
from emotion_ai.vision.photo import load_photo


def scenes(condition: Condition, count: int) -> list[Scene]:
    return [compose(portrait_heads(), condition, np.random.default_rng((7, i))) for i in range(count)]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_scenes_contain_their_faces(condition: Condition) -> None:
    (scene,) = scenes(condition, 1)
    assert scene.file == scenes(condition, 1)[0].file, "the same seed, the same scene"
    assert len(scene.boxes) == (min(condition.count, 1) if condition.face == 400 else condition.count)
    for i, box in enumerate(scene.boxes):
        assert box.size == pytest.approx(condition.face, abs=2)
        assert all(iou(box, other) == 0 for other in scene.boxes[:i])
        cut = max(-box.left, box.left + box.size - SIZE[0], 0) / box.size
        assert cut == pytest.approx(condition.outside, abs=0.02)
    photo = load_photo(scene.file)
    assert photo.rgb.shape == (SIZE[1], SIZE[0], 3), "upright, whatever its EXIF orientation"
    stored = Image.open(io.BytesIO(scene.file))
    assert (stored.size == SIZE) == (condition.orientation == 1)


@pytest.mark.parametrize("name", ["100 pixels", "100 pixels, turned by EXIF", "100 pixels, a tenth cut off"])
def test_clear_faces_are_found_and_nothing_else(name: str) -> None:
    condition = next(condition for condition in CONDITIONS if condition.name == name)
    row = measure(scenes(condition, 2))
    assert row.recall is not None
    assert row.recall.value == 1
    assert row.recall.low < 1 == row.recall.high
    assert row.false_boxes == 0
    assert row.milliseconds > 0


def test_no_face_is_found_where_there_is_none() -> None:
    row = measure(scenes(next(condition for condition in CONDITIONS if condition.name == "no face"), 3))
    assert row.recall is None
    assert row.false_boxes == 0


def test_the_measure_counts_hits_misses_and_false_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [SimpleNamespace(points=box) for box in (Box(10, 10, 100), Box(500, 500, 50))]
    monkeypatch.setattr(detection, "find_faces", lambda rgb: found)
    monkeypatch.setattr(detection, "box_from_detection", lambda box: box)
    (scene,) = scenes(CONDITIONS[-1], 1)
    row = measure([Scene(scene.file, [Box(20, 20, 100), Box(300, 300, 40), Box(490, 480, 60)])])
    assert row.recall is not None
    assert (row.recall.value, row.recall.n) == pytest.approx((1 / 3, 3))
    assert row.false_boxes == 1


def test_the_benchmark_writes_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "CONDITIONS", (Condition("one face", 200, 1), Condition("no face", 0, 0)))
    rows = detection.benchmark(portrait_heads(), 1, 0, tmp_path)
    console = results_table(rows, 1).texts
    assert console[1][:4] == ["no face", "", "", ""]
    saved = json.loads((tmp_path / "detection.json").read_text())
    assert list(saved) == list(rows) == ["one face", "no face"]
    assert saved["one face"]["recall"]["n"] == 1
    assert saved["no face"]["recall"] is None
    with Image.open(tmp_path / "detection.png") as picture:
        assert picture.width > 1000
