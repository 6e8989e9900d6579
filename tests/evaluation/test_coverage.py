import numpy as np
import pytest

from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.evaluation.coverage import Coverage
from emotion_ai.evaluation.predictions import predict, predict_uncertainty
from emotion_ai.models import FaceNetwork

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


def sample(faces: int = 2000, factor: float = 1.0) -> Coverage:
    """Normal errors whose deviations are `factor` times what they should be; some points are not annotated."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 3, (faces, 15, 2))
    offsets = rng.normal(0, true)
    offsets[rng.random((faces, 15)) < 0.2] = np.nan
    return Coverage(offsets, true * factor)


def test_right_deviations_hold_what_they_say() -> None:
    shares = sample().shares(0)
    assert list(shares) == [
        "coordinates within 68%",
        "coordinates within 95%",
        "points within 68%",
        "points within 95%",
    ]
    for name, estimate in shares.items():
        level = 0.68 if "68" in name else 0.95
        assert estimate.value == pytest.approx(level, abs=0.01)
        assert estimate.low < estimate.value < estimate.high
    for meant, found in sample().curves().values():
        np.testing.assert_allclose(found, meant, atol=0.01)


def test_wide_deviations_hold_more_and_narrow_ones_less() -> None:
    for factor, sign in ((2.0, 1), (0.5, -1)):
        for meant, found in sample(300, factor).curves().values():
            assert (sign * (found - meant) > 0).all()


def test_shares_by_hand() -> None:
    offsets = np.full((1, 15, 2), np.nan)
    offsets[0, 0], offsets[0, 1] = (0.5, 3), (1.5, 1.5)  # within 68 %: 1 of 4 coordinates; squared radii 9.25 and 4.5
    shares = {name: estimate.value for name, estimate in Coverage(offsets, np.ones((1, 15, 2))).shares(0).items()}
    assert shares == {
        "coordinates within 68%": 0.25,
        "coordinates within 95%": 0.75,
        "points within 68%": 0.0,  # 2.28
        "points within 95%": 0.5,  # 5.99
    }


def test_predicted_points_are_those_without_deviations() -> None:
    images = synthetic_faces(5, 0).images
    network = FaceNetwork("keypoints", TINY).eval()
    points, deviations = predict_uncertainty(network, images, batch=2)
    np.testing.assert_allclose(points, predict(network, images), atol=1e-4)
    assert deviations.shape == (5, 15, 2)
    assert (deviations > 0).all()
