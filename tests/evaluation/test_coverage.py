import numpy as np
import pytest

from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.evaluation.coverage import Coverage
from emotion_ai.evaluation.predictions import predict, predict_uncertainty
from emotion_ai.models import FaceNetwork

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


def sample(faces: int = 2000, factor: float = 1.0) -> Coverage:
    """Normal errors with standard deviations too large by `factor`; some points are not annotated."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 3, (faces, 15, 2))
    offsets = rng.normal(0, true)
    offsets[rng.random((faces, 15)) < 0.2] = np.nan
    return Coverage(offsets, true * factor)


def test_correct_standard_deviations_cover_their_levels() -> None:
    found = sample().shares(0)
    kinds = [(share.kind, share.level) for share in found]
    assert kinds == [("coordinates", 0.68), ("coordinates", 0.95), ("points", 0.68), ("points", 0.95)]
    for share in found:
        assert share.share.value == pytest.approx(share.level, abs=0.01)
        assert share.share.low < share.share.value < share.share.high
    for levels, coverage in sample().curves().values():
        np.testing.assert_allclose(coverage, levels, atol=0.01)


def test_large_standard_deviations_cover_more_and_small_ones_less() -> None:
    for factor, sign in ((2.0, 1), (0.5, -1)):
        for levels, coverage in sample(300, factor).curves().values():
            assert (sign * (coverage - levels) > 0).all()


def test_shares_by_hand() -> None:
    offsets = np.full((1, 15, 2), np.nan)
    offsets[0, 0], offsets[0, 1] = (0.5, 3), (1.5, 1.5)  # within 68 %: 1 of 4 coordinates; squared radii 9.25 and 4.5
    found = Coverage(offsets, np.ones((1, 15, 2))).shares(0)
    shares = {(share.kind, share.level): share.share.value for share in found}
    assert shares == {
        ("coordinates", 0.68): 0.25,
        ("coordinates", 0.95): 0.75,
        ("points", 0.68): 0.0,  # 2.28
        ("points", 0.95): 0.5,  # 5.99
    }


def test_points_with_uncertainty_are_those_of_predict() -> None:
    images = synthetic_faces(5, 0).images
    network = FaceNetwork("keypoints", TINY).eval()
    points, deviations = predict_uncertainty(network, images, batch=2)
    np.testing.assert_array_equal(points, predict(network, images, batch=2))
    assert deviations.shape == (5, 15, 2)
    assert (deviations > 0).all()
