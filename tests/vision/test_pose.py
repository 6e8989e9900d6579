"""Roll and yaw: recovered exactly from projections of the mean face, whatever the pitch, place and size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emotion_ai.contract import FLIP, KEYPOINTS, MEAN_FACE
from emotion_ai.vision.pose import MEAN_FACE_3D, fit_pose


def projected(roll: float, yaw: float, pitch: float = 0.0) -> NDArray[np.float64]:
    """The mean face nodded, then turned about the vertical axis, then rolled in the picture; float (15, 2)."""
    r, y, p = np.radians([roll, yaw, pitch])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    turn = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    tilt = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    model = np.array(MEAN_FACE_3D)
    points: NDArray[np.float64] = ((model - model.mean(0)) @ (tilt @ turn @ nod).T)[:, :2]
    return points


@settings(max_examples=100)
@given(st.floats(-179, 179), st.floats(-80, 80), st.floats(-30, 30), st.floats(0.1, 40), st.floats(-500, 5000))
def test_the_angles_of_a_projected_face(roll: float, yaw: float, pitch: float, scale: float, place: float) -> None:
    pose = fit_pose(projected(roll, yaw, pitch) * scale + [place, -place])
    assert pose.roll == pytest.approx(roll, abs=1e-4)
    assert pose.yaw == pytest.approx(yaw, abs=1e-4)


def test_a_nose_to_the_right_is_a_positive_yaw_and_a_clockwise_face_a_positive_roll() -> None:
    face, nose = np.array(MEAN_FACE), KEYPOINTS.index("nose_tip")
    assert fit_pose(face).yaw == pytest.approx(0, abs=0.1)
    assert fit_pose(face).roll == pytest.approx(0, abs=0.1)
    turned = face.copy()
    turned[nose, 0] += 10
    assert fit_pose(turned).yaw > 10
    tilted = face.copy()
    tilted[:, 1] += 0.2 * (face[:, 0] - 47.5)  # the subject's left eye, on the picture's right, is lower
    assert fit_pose(tilted).roll > 5


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(-60, 60))
def test_a_mirrored_face_has_mirrored_angles(seed: int, yaw: float) -> None:
    points = projected(10, yaw) + np.random.default_rng(seed).normal(0, 1, (15, 2))
    mirrored = points[list(FLIP)] * [-1, 1]
    one, other = fit_pose(points), fit_pose(mirrored)
    assert (one.roll, one.yaw) == pytest.approx((-other.roll, -other.yaw), abs=1e-6)
    assert one.yaw == pytest.approx(yaw, abs=12), "a pixel of noise on each point moves it little"


def test_the_mean_face_is_symmetric_and_the_nose_is_nearest() -> None:
    model = np.array(MEAN_FACE_3D)
    np.testing.assert_array_equal(model[list(FLIP)] * [-1, 1, 1], model)
    assert KEYPOINTS[int(model[:, 2].argmin())] == "nose_tip"


@pytest.mark.parametrize(
    "points", [np.full((15, 2), np.nan), np.full((15, 2), 7.0), np.arange(30).reshape(15, 2) * 1.0]
)
def test_points_without_a_shape_have_no_pose(points: NDArray[np.float64]) -> None:
    pose = fit_pose(points)
    assert np.isnan([pose.roll, pose.yaw]).all()
