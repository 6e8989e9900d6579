import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emotion_ai.evaluation.abstention import abstention_table, choose_threshold, risk_coverage


def confident(confidences: list[float]) -> NDArray[np.float32]:
    """Probabilities that predict class 0 with these confidences."""
    rest = [(1 - c) / 4 for c in confidences]
    return np.array([[c, r, r, r, r] for c, r in zip(confidences, rest, strict=True)], np.float32)


def test_thresholds_keep_the_confident_faces() -> None:
    kept = risk_coverage(confident([0.505, 0.605, 0.705, 0.805]), np.array([1, 0, 1, 0]))
    assert [k.threshold for k in kept] == [i / 100 for i in range(100)]
    assert (kept[0].share, kept[0].accuracy) == (1.0, 0.5)
    assert (kept[55].share, kept[55].accuracy) == pytest.approx((0.75, 2 / 3))
    assert (kept[75].share, kept[75].accuracy) == (0.25, 1.0)
    assert kept[90].share == 0
    assert np.isnan(kept[90].accuracy)


def test_choose_threshold_is_the_lowest_that_reaches_the_accuracy() -> None:
    probabilities, labels = confident([0.505, 0.605, 0.705, 0.805]), np.array([1, 0, 1, 0])
    assert choose_threshold(probabilities, labels, 0.5) == 0
    assert choose_threshold(probabilities, labels, 0.6) == 0.51
    assert choose_threshold(probabilities, labels, 0.9) == 0.71
    assert choose_threshold(probabilities, np.ones(4, np.int64), 0.9) == 1  # no prediction is correct


@given(st.integers(0, 1000), st.floats(0.3, 1.0))
def test_kept_faces_reach_the_accuracy(seed: int, accuracy: float) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(5) * 0.5, 60).astype(np.float32)
    labels = np.array([rng.choice(5, p=p / p.sum()) for p in probabilities.astype(np.float64)])
    threshold = choose_threshold(probabilities, labels, accuracy)
    rows = probabilities.max(1) >= threshold
    if threshold < 1:
        assert (probabilities.argmax(1) == labels)[rows].mean() >= accuracy
    shares = [k.share for k in risk_coverage(probabilities, labels)]
    assert shares == sorted(shares, reverse=True)


def test_the_table_marks_the_networks_threshold() -> None:
    kept = risk_coverage(confident([0.505, 0.605, 0.705, 0.805]), np.array([1, 0, 1, 0]))
    texts = abstention_table(kept, 0.71).texts
    marked = "0.71 (this network's)"
    assert [row[0] for row in texts] == ["0.00", "0.40", "0.50", "0.60", "0.70", marked, "0.80"]
    assert texts[0][1:] == ["1.000", "0.500"]
    assert texts[5][1:] == ["0.250", "1.000"]
    assert not any("network" in row[0] for row in abstention_table(kept, None).texts)
