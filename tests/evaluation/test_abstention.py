import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_ai.evaluation.abstention import as_rows, choose_threshold, risk_coverage


def sure(confidences: list[float]) -> np.ndarray:
    """Class 0, this surely."""
    rest = [(1 - c) / 4 for c in confidences]
    return np.array([[c, r, r, r, r] for c, r in zip(confidences, rest, strict=True)], np.float32)


def test_thresholds_keep_the_sure_faces() -> None:
    kept = risk_coverage(sure([0.505, 0.605, 0.705, 0.805]), np.array([1, 0, 1, 0]))
    assert [k.threshold for k in kept] == [i / 100 for i in range(100)]
    assert (kept[0].share, kept[0].accuracy) == (1.0, 0.5)
    assert (kept[55].share, kept[55].accuracy) == (0.75, pytest.approx(2 / 3))
    assert (kept[75].share, kept[75].accuracy) == (0.25, 1.0)
    assert kept[90].share == 0
    assert np.isnan(kept[90].accuracy)


def test_the_lowest_threshold_that_is_right_often_enough() -> None:
    probabilities, labels = sure([0.505, 0.605, 0.705, 0.805]), np.array([1, 0, 1, 0])
    assert choose_threshold(probabilities, labels, 0.5) == 0
    assert choose_threshold(probabilities, labels, 0.6) == 0.51
    assert choose_threshold(probabilities, labels, 0.9) == 0.71
    assert choose_threshold(probabilities, np.ones(4, np.int64), 0.9) == 1  # nothing is ever right


@given(st.integers(0, 1000), st.floats(0.3, 1.0))
def test_what_is_kept_is_as_right_as_was_asked_for(seed: int, accuracy: float) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(5) * 0.5, 60).astype(np.float32)
    labels = np.array([rng.choice(5, p=p / p.sum()) for p in probabilities.astype(np.float64)])
    threshold = choose_threshold(probabilities, labels, accuracy)
    rows = probabilities.max(1) >= threshold
    if threshold < 1:
        assert (probabilities.argmax(1) == labels)[rows].mean() >= accuracy
    shares = [k.share for k in risk_coverage(probabilities, labels)]
    assert shares == sorted(shares, reverse=True)


def test_rows_of_a_table_show_the_chosen_threshold() -> None:
    kept = risk_coverage(sure([0.505, 0.605, 0.705, 0.805]), np.array([1, 0, 1, 0]))
    rows = as_rows(kept, 0.71)
    assert list(rows) == ["0.00", "0.40", "0.50", "0.60", "0.70", "0.71, the weights' own", "0.80"]
    assert rows["0.00"] == "1.000   0.500"
    assert rows["0.71, the weights' own"] == "0.250   1.000"
    assert not any("own" in name for name in as_rows(kept, None))
