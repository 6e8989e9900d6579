"""Functions as readers that return something odd."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from emotion_ai.errors import ConfigError, ImageError
from emotion_ai.video import VideoReader
from emotion_ai.video.frames import Frame
from emotion_ai.video.smoothing import Smoother
from emotion_ai.vision.crops import Box
from tests.video.fakes import face, probabilities

FRAME = Frame(7, 0.0, np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("size", [0.0, -5.0, np.nan, np.inf, 1e12])
def test_a_face_of_no_size_is_an_error_of_its_frame(size: float) -> None:
    faces = [face(probabilities("Happy"))]
    video = VideoReader(lambda rgb: faces)
    sound, faces[0] = faces[0], replace(faces[0], box=Box(3.0, 4.0, size))
    with pytest.raises(ImageError, match=r"frame 7: the reader found a face of .* pixels at 3, 4"):
        video(FRAME)
    faces[0] = sound
    assert len(video(FRAME).faces) == 1


@pytest.mark.parametrize("found", [None, ["face"], 3])
def test_a_reader_that_returns_no_readings_is_named(found: Any) -> None:
    with pytest.raises(ConfigError, match="must return a list of `FaceReading`, got (NoneType|str|int)"):
        VideoReader(lambda rgb: found)(FRAME)


def test_probabilities_of_zero_stay_zero() -> None:
    nothing, smoother = face(np.zeros(7, np.float32)), Smoother()
    for seconds in (0.0, 0.1):
        (smooth,) = smoother([nothing], [1], seconds)
        assert not smooth.probabilities.any()
        assert smooth.expressions is not None
        assert not smooth.expressions.any()


def test_many_faces_in_a_frame_have_a_track_each() -> None:
    crowd = [face(probabilities("Happy"), left=150.0 * place) for place in range(25)]
    video = VideoReader(lambda rgb: crowd)
    tracks = [[seen.track for seen in video(Frame(i, i / 10, FRAME.rgb)).faces] for i in range(3)]
    assert tracks == [list(range(1, 26))] * 3
