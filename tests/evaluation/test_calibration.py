from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from emotion_ai.errors import DataError
from emotion_ai.evaluation.calibration import cross_fitted_error, fit_deviation_scale, fit_temperature
from emotion_ai.evaluation.metrics import EmotionScores


def faces(count: int, temperature: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 5)) * 3
    chances = softmax(logits / temperature, axis=1).cumsum(1)
    return logits.astype(np.float32), (rng.random((count, 1)) > chances).sum(1).clip(max=4)


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_temperature_is_found_again(true: float) -> None:
    assert fit_temperature(*faces(20_000, true)) == pytest.approx(true, rel=0.04)


@given(st.floats(0.3, 3))
def test_temperature_scales_with_the_logits(factor: float) -> None:
    logits, labels = faces(500, 1.5)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor * fit_temperature(logits, labels), rel=1e-3)


def test_temperature_stays_finite_if_every_face_is_right_or_wrong() -> None:
    labels = np.arange(50) % 5
    right = np.eye(5)[labels] * 10
    assert 0 < fit_temperature(right, labels) < 1 < fit_temperature(right, (labels + 1) % 5) <= 20


def test_cross_fitted_error_is_that_of_calibrated_probabilities() -> None:
    logits, labels = faces(5000, 3)
    before = EmotionScores(softmax(logits, axis=1), labels).calibration_error
    after = cross_fitted_error(logits, labels)
    assert before > 0.2
    assert after < 0.03
    assert after == cross_fitted_error(logits, labels)


def test_scaled_standard_deviations_cover_68_percent() -> None:
    rng = np.random.default_rng(0)
    deviations = rng.uniform(0.5, 3, (400, 15, 2))
    offsets = rng.normal(0, 1.7 * deviations)
    offsets[rng.random(offsets.shape) < 0.3] = np.nan
    scale = fit_deviation_scale(offsets, deviations)
    assert scale == pytest.approx(1.7, rel=0.03)
    known = ~np.isnan(offsets)
    assert (np.abs(offsets[known]) <= scale * deviations[known]).mean() == pytest.approx(0.6827, abs=1e-3)


def test_bad_input_is_one_error() -> None:
    nothing = np.full((2, 15, 2), np.nan)
    calls: tuple[Callable[[], float], ...] = (
        lambda: fit_temperature(np.empty((0, 5)), np.empty(0, np.int64)),
        lambda: fit_temperature(np.full((2, 5), np.nan), np.zeros(2, np.int64)),
        lambda: cross_fitted_error(np.zeros((3, 5)), np.zeros(3, np.int64)),
        lambda: fit_deviation_scale(nothing, np.ones((2, 15, 2))),
        lambda: fit_deviation_scale(np.zeros((2, 15, 2)), np.zeros((2, 15, 2))),
    )
    for call in calls:
        with pytest.raises(DataError):
            call()
