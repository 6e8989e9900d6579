from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom
from sklearn.metrics import balanced_accuracy_score, f1_score

from emotion_ai.contract import MEAN_FACE
from emotion_ai.evaluation.metrics import FAILURE, EmotionScores, KeypointErrors, NormalisedErrors, macro_f1
from emotion_ai.evaluation.statistics import bootstrap, mcnemar, paired_rmse

RNG = np.random.default_rng(0)


def test_rmse_by_hand_with_points_that_are_not_annotated() -> None:
    true = np.full((2, 15, 2), np.nan, np.float32)
    true[0, 0], true[1, 3] = (10, 20), (30, 40)
    predicted = np.zeros((2, 15, 2), np.float32)
    predicted[0, 0], predicted[1, 3] = (13, 24), (30, 40)
    errors = KeypointErrors.of(predicted, true)
    assert errors.rmse == pytest.approx(np.sqrt((9 + 16 + 0 + 0) / 4))
    assert errors.per_point == {
        "left_eye_center": pytest.approx(np.sqrt(12.5)),
        "left_eye_outer_corner": 0.0,
    }
    assert errors.distances.tolist() == [5.0, 0.0]
    assert errors.without_shift == 0  # one point a face: its offset is the face's shift


def test_rmse_is_kaggles_and_not_a_mean_of_means() -> None:
    true = RNG.normal(48, 10, (40, 15, 2)).astype(np.float32)
    true[RNG.random((40, 15)) < 0.4] = np.nan
    predicted = RNG.normal(48, 10, (40, 15, 2)).astype(np.float32)
    pairs = [
        (float(p) - float(t)) ** 2 for p, t in zip(predicted.ravel(), true.ravel(), strict=True) if not np.isnan(t)
    ]
    assert KeypointErrors.of(predicted, true).rmse == pytest.approx(np.sqrt(sum(pairs) / len(pairs)))


def test_a_constant_offset_is_all_shift() -> None:
    true = RNG.normal(48, 10, (5, 15, 2)).astype(np.float32)
    errors = KeypointErrors.of(true + np.array([3, -4], np.float32), true)
    assert errors.rmse == pytest.approx(np.sqrt(12.5), abs=1e-5)
    assert errors.without_shift == pytest.approx(0, abs=1e-5)
    assert errors.distances == pytest.approx(5, abs=1e-5)


def scores(n: int = 300) -> EmotionScores:
    logits = RNG.normal(0, 1, (n, 5))
    labels = np.where(RNG.random(n) < 0.5, logits.argmax(1), RNG.integers(0, 5, n))
    shares = np.exp(logits)
    return EmotionScores((shares / shares.sum(1, keepdims=True)).astype(np.float32), labels.astype(np.int64))


def test_emotion_scores_against_scikit_learn() -> None:
    s = scores()
    assert s.macro_f1 == pytest.approx(f1_score(s.labels, s.predicted, average="macro"))
    assert s.balanced_accuracy == pytest.approx(balanced_accuracy_score(s.labels, s.predicted))
    assert s.accuracy == pytest.approx((s.predicted == s.labels).mean())
    assert s.confusion.sum() == len(s.labels)
    assert s.confusion.diagonal().sum() / len(s.labels) == pytest.approx(s.accuracy)
    recalls = s.confusion.diagonal() / s.confusion.sum(1)
    assert [c["recall"] for c in s.per_class.values()] == pytest.approx(recalls.tolist())


def test_macro_f1_counts_an_absent_class_as_zero() -> None:
    labels = np.array([0, 0, 3, 3])
    assert macro_f1(labels, labels) == pytest.approx(2 / 5)


def test_calibration_error_by_hand() -> None:
    confident = np.array([[0.9, 0.1, 0, 0, 0]] * 10, np.float32)
    labels = np.array([0] * 5 + [1] * 5)
    assert EmotionScores(confident, labels).calibration_error == pytest.approx(0.4)
    assert EmotionScores(confident, np.array([0] * 9 + [1])).calibration_error == pytest.approx(0, abs=1e-6)


def mean_of(values: NDArray[np.bool_], rows: NDArray[np.int64]) -> float:
    return float(values[rows].mean())


def test_bootstrap_interval_has_its_coverage() -> None:
    hits = 0
    for seed in range(60):
        sample = np.random.default_rng(seed).random(150) < 0.7
        e = bootstrap(partial(mean_of, sample), 150, seed, resamples=300)
        assert e.low <= e.value <= e.high
        hits += e.low <= 0.7 <= e.high
    assert hits >= binom.ppf(0.001, 60, 0.93)


def test_bootstrap_is_seeded_and_reports_n() -> None:
    values = RNG.normal(0, 1, 50)
    first, second = (bootstrap(lambda rows: float(values[rows].mean()), 50, 3) for _ in range(2))
    assert first == second
    assert first.n == 50


def test_mcnemar_exact() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 20)
    second = np.array([False] * 10 + [True] * 2 + [True] * 20)
    test = mcnemar(first, second, 0)
    assert test.p == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert test.difference.value == pytest.approx(8 / 32)
    assert mcnemar(first, first, 0).p == 1.0


def test_paired_rmse_sees_a_better_run() -> None:
    counts = np.full(200, 30.0)
    worse = RNG.chisquare(30, 200) * 4
    test = paired_rmse((worse, counts), (worse * 0.8, counts), 0)
    assert test.difference.low > 0
    same = paired_rmse((worse, counts), (worse, counts), 0)
    assert (same.difference.low, same.difference.high) == (0, 0)


def test_normalised_errors_by_hand() -> None:
    """A face with outer eye corners 50 px apart and every point off by 3 px, one by 5 px, one without a corner."""
    true = np.tile(np.array(MEAN_FACE), (3, 1, 1))
    true[:, 3], true[:, 5] = (70, 40), (20, 40)
    true[0, 6] = np.nan
    true[2, 5] = np.nan
    predicted = np.nan_to_num(true) + np.array([3.0, 5.0, 9.0])[:, None, None] * (0.6, 0.8)
    found = NormalisedErrors.of(predicted, true)
    assert found.rows.tolist() == [0, 1]
    assert found.values == pytest.approx([0.06, 0.1])
    assert found.failures.tolist() == [False, True]
    assert found.areas == pytest.approx([0.25, 0])  # (8 - 6) / 8
    steps = np.linspace(0, FAILURE, 4001)
    curve = (found.values[:, None] <= steps).mean(0)
    assert found.areas.mean() == pytest.approx(np.trapezoid(curve, steps) / FAILURE, abs=1e-3)
