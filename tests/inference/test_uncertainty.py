"""Deviations, from the server's answer to the photograph's pixels."""

import json

import numpy as np

from emotion_ai.contract import KEYPOINTS, MEAN_FACE
from emotion_ai.inference.readings import CropReadings, Crops, read_photo
from emotion_ai.vision.photo import PORTRAITS


def test_deviations_are_told_in_pixels_of_the_photograph_where_they_were_asked_for() -> None:
    def reader(crops: Crops) -> CropReadings:
        points = np.array(MEAN_FACE, np.float32)[None]
        return CropReadings(points, np.full((1, 5), 0.2, np.float32), np.full((1, 15, 2), 1.5, np.float32))

    (face,) = read_photo(PORTRAITS[0], reader)
    assert face.deviations is not None
    np.testing.assert_allclose(face.deviations, 1.5 * face.box.size / 96, rtol=1e-6)
    told = json.loads(json.dumps(face.as_dict()))["deviations"]
    assert list(told) == list(KEYPOINTS)
    assert told["nose_tip"] == [round(1.5 * face.box.size / 96, 2)] * 2

    def without(crops: Crops) -> CropReadings:
        answers = reader(crops)
        return CropReadings(answers.keypoints, answers.probabilities)

    (face,) = read_photo(PORTRAITS[0], without)
    assert face.deviations is None
    assert "deviations" not in face.as_dict()
