"""Factorisation: the mean face comes back from its own views."""

import numpy as np

from emotion_ai.benchmarks.pose import face_table, factorise, pose_table
from emotion_ai.contract import FLIP
from emotion_ai.vision.pose import MEAN_FACE_3D


def views(count: int) -> np.ndarray:
    """The mean face turned by up to 45 degrees, nodded by up to 15, rolled, scaled and moved."""
    rng, model, points = np.random.default_rng(0), np.array(MEAN_FACE_3D), []
    for yaw, nod, roll in np.radians(rng.uniform([-45, -15, -20], [45, 15, 20], (count, 3))):
        pitch = np.array([[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]])
        turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
        tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        points.append((model @ (tilt @ turn @ pitch).T)[:, :2] * rng.uniform(0.9, 1.1) + rng.uniform(-9, 99, 2))
    return np.array(points, np.float32)


def test_the_mean_face_comes_back_from_its_views() -> None:
    face = factorise(views(300))
    model = np.array(MEAN_FACE_3D) - np.mean(MEAN_FACE_3D, 0)
    scale = np.sqrt((face**2).sum() / (model**2).sum())
    assert abs(scale - 1) < 0.05
    # the mean camera counts as frontal, and the views were not nodded by exactly 0 on average
    np.testing.assert_allclose(face / scale, model, atol=1.0)
    np.testing.assert_allclose(face[list(FLIP)] * [-1, 1, 1], face, atol=1e-9)
    assert len(face_table(face).rows) == 15


def test_poses_of_a_dataset_are_counted() -> None:
    roll, yaw = pose_table({"faces": views(50)}).rows
    assert roll[:3] == ("faces", 50, "roll")
    assert -45.1 < float(yaw[3]) < -35  # type: ignore[arg-type]
    assert 35 < float(yaw[7]) < 45.1  # type: ignore[arg-type]
