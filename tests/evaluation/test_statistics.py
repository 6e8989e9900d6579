import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import ttest_rel

from emotion_ai.class_set import SEVEN
from emotion_ai.contract import MEAN_FACE
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.metrics import EmotionScores, NormalisedErrors
from emotion_ai.evaluation.statistics import Units, t_interval
from emotion_ai.evaluation.summary import summary_metrics
from emotion_ai.models.spec import ModelSpec

RUNS = st.lists(st.floats(-5, 5), min_size=2, max_size=8)

POINTS, EMOTION = ModelSpec("keypoints", {}), ModelSpec("emotion", {})


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_differences_have_the_interval_of_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    first, second = np.array(pairs).T
    found = t_interval((first - second).tolist())
    if np.ptp(first - second) > 1e-6:
        expected = ttest_rel(first, second).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.n == len(pairs)


@given(RUNS, st.floats(-3, 3))
def test_interval_moves_with_the_values(values: list[float], by: float) -> None:
    here, there = t_interval(values), t_interval([value + by for value in values])
    assert (there.value, there.low, there.high) == pytest.approx((here.value + by, here.low + by, here.high + by))


def test_interval_of_three_runs_by_hand() -> None:
    found = t_interval([1.0, 2.0, 3.0])
    assert (found.value, found.high - found.value) == pytest.approx((2, 4.302653 / 3**0.5))


def test_one_run_has_no_interval() -> None:
    with pytest.raises(ConfigError, match="at least two"):
        t_interval([1.0])


def test_summary_metrics_are_those_of_the_scores() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), 200).astype(np.float32)
    labels = rng.integers(0, 5, 200)
    found, scores = (
        summary_metrics(ModelSpec("emotion", {}), probabilities, labels, 0),
        EmotionScores(probabilities, labels),
    )
    expected = {"accuracy": scores.accuracy, "macro F1": scores.macro_f1, "calibration error": scores.calibration_error}
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)


def test_keypoint_metrics_hold_those_of_the_field() -> None:
    rng = np.random.default_rng(0)
    true = (np.array(MEAN_FACE) + rng.normal(0, 1, (40, 15, 2))).astype(np.float32)
    predicted = true + rng.normal(0, 2, true.shape).astype(np.float32)
    true[:5, 3] = np.nan
    people = Units.of(np.arange(40) // 4, "people")
    found, normalised = (
        summary_metrics(POINTS, predicted, true, 0, people),
        NormalisedErrors.of(predicted, true),
    )
    assert list(found) == ["rmse", "mean distance", "NME", "failure rate at 8 %", "AUC at 8 %"]
    assert found["NME"].value == pytest.approx(normalised.values.mean())
    assert found["NME"].n == 35
    assert found["AUC at 8 %"].value == pytest.approx(normalised.areas.mean())
    assert found["failure rate at 8 %"].value == pytest.approx((normalised.values > 0.08).mean())
    assert list(summary_metrics(POINTS, predicted[:5], true[:5], 0)) == ["rmse", "mean distance"]


def test_metrics_of_seven_classes_are_those_of_the_five_and_of_all() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (300, 7))
    expressions, labels = softmax(logits, axis=1).astype(np.float32), rng.integers(0, 7, 300)
    spec = ModelSpec("emotion", {}, classes=SEVEN.names, emotion_temperature=1.5)
    found = {name: estimate.value for name, estimate in summary_metrics(spec, expressions, labels, 0).items()}
    rows = labels < 5
    five = EmotionScores(softmax(logits[rows, :5] / 1.5, axis=1).astype(np.float32), labels[rows])
    all_seven = EmotionScores(expressions, labels, SEVEN.names)
    for scores, suffix in ((five, ""), (all_seven, " over all classes")):
        assert found[f"accuracy{suffix}"] == pytest.approx(scores.accuracy)
        assert found[f"macro F1{suffix}"] == pytest.approx(scores.macro_f1)
        assert found[f"calibration error{suffix}"] == pytest.approx(scores.calibration_error, abs=1e-5)
    assert list(found)[0] == "accuracy"
    assert all_seven.confusion.shape == (7, 7)
    assert list(all_seven.per_class) == list(SEVEN.names)
