"""Roll and yaw of a head from its 15 keypoints: a weak-perspective fit of a mean face in three dimensions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEAN_FACE_3D = (
    (18.1, -9.2, 2.2),
    (-18.1, -9.2, 2.2),
    (11.0, -8.9, 2.1),
    (24.9, -9.6, 5.5),
    (-11.0, -8.9, 2.1),
    (-24.9, -9.6, 5.5),
    (10.5, -20.6, -7.4),
    (32.8, -18.4, 8.3),
    (-10.5, -20.6, -7.4),
    (-32.8, -18.4, 8.3),
    (0.0, 11.8, -18.2),
    (14.7, 29.6, 4.0),
    (-14.7, 29.6, 4.0),
    (0.0, 25.4, -7.9),
    (0.0, 36.9, -3.3),
)
"""The points of a mean face, in pixels of the 96x96 crop, x right, y down, z away from the camera, centred.

Our own factorisation (Tomasi and Kanade 1992, doi:10.1007/BF00129684, with weak-perspective cameras and a symmetric
face) of 3,487 annotated faces and their mirror images, up to 68 degrees of yaw; `python -m emotion_ai.benchmarks.pose`
repeats it. A face differs from the projected mean by 1.2 pixels (median RMSE).
"""


@dataclass(frozen=True)
class Pose:
    """How a head is turned, in degrees; NaN where the points do not tell.

    Attributes:
        roll: clockwise in the picture, -180 to 180; 0 is upright.
        yaw: towards the right of the upright picture, that is towards the subject's left, -90 to 90; 0 is frontal.
    """

    roll: float
    yaw: float


TURNED = 40.0
"""A head with more yaw than that, in degrees, is turned: the far half of its face is hidden."""

UNKNOWN_POSE = Pose(float("nan"), float("nan"))


def fit_pose(points: NDArray[np.floating[Any]]) -> Pose:
    """The pose in which the mean face fits 15 points best, float (15, 2), under weak perspective.

    A least-squares affine camera, replaced by the nearest scaled rotation. Both angles are those of the axis from ear
    to ear, so nodding changes neither. Points that are NaN, or all in one line, have no pose.
    """
    if not np.isfinite(points).all():
        return UNKNOWN_POSE
    model = np.array(MEAN_FACE_3D)
    model -= model.mean(0)
    centred = points - points.mean(0, dtype=np.float64)
    camera = np.linalg.lstsq(model, centred, rcond=None)[0].T
    left, strength, right = np.linalg.svd(camera, full_matrices=False)
    if strength[1] < 1e-3 * max(strength[0], 1e-6):
        return UNKNOWN_POSE
    rotation = left @ right  # without its third row, the vector product of the others
    across, down = float(rotation[0, 0]), float(rotation[1, 0])  # of the axis from the right to the left ear
    depth = float(np.cross(rotation[0], rotation[1])[0])
    return Pose(
        float(np.degrees(np.arctan2(down, across))), float(np.degrees(np.arctan2(depth, np.hypot(across, down))))
    )
