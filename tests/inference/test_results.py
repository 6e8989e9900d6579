"""Readings as JSON, rows and captions."""

import json
from dataclasses import replace

import numpy as np
import pytest

from emotion_ai.contract import KEYPOINTS, MEAN_FACE
from emotion_ai.inference.results import COLUMNS, FaceReading
from emotion_ai.vision.crops import Box


def reading(probabilities: list[float]) -> FaceReading:
    box = Box(10, 20, 192)
    keypoints = np.array(MEAN_FACE, np.float32)
    return FaceReading(keypoints, np.array(probabilities, np.float32), box, box.to_photo(keypoints), 0.9)


def test_json_and_rows_hold_the_same_numbers() -> None:
    face = reading([0.1, 0.1, 0.1, 0.6, 0.1])
    record = json.loads(json.dumps(face.as_dict(), allow_nan=False))
    row = face.as_row()
    assert record["emotion"] == row["emotion"] == "Happy"
    assert list(record["points"]) == list(KEYPOINTS)
    assert tuple(row) == COLUMNS
    for i, name in enumerate(KEYPOINTS):
        assert record["points"][name] == pytest.approx([row[f"{name}_x"], row[f"{name}_y"]], abs=0.01)
        assert row[f"{name}_x"] == pytest.approx((MEAN_FACE[i][0] + 0.5) * 2 + 10 - 0.5, rel=1e-6)
    assert face.to_row()["Happy"] == pytest.approx(0.6)


def test_below_a_confidence_the_emotion_is_uncertain() -> None:
    probabilities = [0.1, 0.1, 0.1, 0.6, 0.1]
    for threshold, uncertain in ((0.0, False), (0.59, False), (0.61, True), (1.0, True)):
        face = replace(reading(probabilities), uncertain_below=threshold)
        assert face.emotion == "Happy"
        assert face.verdict == ("uncertain" if uncertain else "Happy")
        assert face.caption == ("uncertain" if uncertain else "Happy 60%")
        assert face.uncertain is face.as_dict()["uncertain"] is face.as_row()["uncertain"] is uncertain
    nothing = replace(reading([float("nan")] * 5), uncertain_below=0.9)
    assert (nothing.verdict, nothing.caption, nothing.uncertain) == (None, "points", False)


def test_a_model_without_emotions_says_none() -> None:
    face = reading([float("nan")] * 5)
    assert face.emotion is None
    record = json.loads(json.dumps(face.as_dict(), allow_nan=False))
    assert record["emotion"] is record["confidence"] is record["probabilities"]["Sad"] is None


def test_a_reading_is_short_in_print_and_comparable() -> None:
    face, same = reading([0.1, 0.1, 0.1, 0.6, 0.1]), reading([0.1, 0.1, 0.1, 0.6, 0.1])
    assert repr(face) == "FaceReading('Happy 60%', box=Box(left=10, top=20, size=192, roll=0.0), score=0.90)"
    assert face in {face}
    assert face != same, "by identity: arrays have no single truth value"
