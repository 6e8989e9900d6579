"""Faces outside the five emotions: what the report measures, by hand and against scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from emotion_ai.contract import EMOTIONS
from emotion_ai.evaluation.open_set import OpenSet, agreeing, agreement_table, open_set_tables, summary_of
from emotion_ai.evaluation.open_set_plots import mixed_risk, trade_off
from emotion_ai.evaluation.statistics import Estimate, Units

NAMES = (*EMOTIONS, "Fear", "Neutral")


def made(classes: int = 7, threshold: float = 0.5, units: Units | None = None, count: int = 300) -> OpenSet:
    """Random faces of seven true classes, of which a network knows five or seven."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, count)
    logits = rng.normal(0, 1.5, (count, classes))
    shown = labels < classes
    logits[shown, labels[shown]] += 2
    return OpenSet(
        softmax(logits, axis=1), labels, NAMES, 5, np.full(classes, threshold), units or Units.faces(count), 0
    )


def by_hand(rows: list[tuple[int, list[float]]], thresholds: list[float]) -> OpenSet:
    labels = np.array([label for label, _ in rows])
    return OpenSet(np.array([p for _, p in rows]), labels, NAMES, 5, np.array(thresholds), Units.faces(len(rows)), 0)


@pytest.mark.parametrize("classes", [5, 7])
def test_auroc_is_scikit_learns(classes: int) -> None:
    found = made(classes)
    assert list(found.rest) == ["Fear", "Neutral", "Fear and Neutral"]
    for scores in found.scores.values():
        for rest in found.rest.values():
            rows = found.inside | rest
            expected = roc_auc_score(found.inside[rows], scores[rows])
            e = found.auroc(scores, rest)
            assert e.value == pytest.approx(expected)
            assert e.low < expected < e.high
            assert e.n == rows.sum()


def test_the_score_of_seven_classes_is_the_total_probability_of_the_five() -> None:
    found = made(7)
    name, scores = next(iter(found.scores.items()))
    assert name == "total probability of the five"
    np.testing.assert_allclose(scores, 1 - found.expressions[:, 5:].sum(1))
    assert list(made(5).scores) == ["highest probability"]
    np.testing.assert_allclose(found.scores["probability of anything but Neutral"], 1 - found.expressions[:, 6])


def test_a_face_is_named_if_its_class_is_one_of_the_five_and_above_its_threshold() -> None:
    found = by_hand(
        [
            (0, [0.6, 0.1, 0.1, 0.1, 0.0, 0.0, 0.1]),  # Angry above its threshold
            (0, [0.1, 0.6, 0.1, 0.1, 0.0, 0.0, 0.1]),  # Disgust below its threshold
            (6, [0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.9]),  # Neutral
            (6, [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]),  # the first of two
            (5, [0.0, 0.0, 0.0, 0.3, 0.0, 0.4, 0.3]),  # Fear
        ],
        [0.5, 0.7, 0.5, 0.5, 0.5, 0.0, 0.0],
    )
    assert found.named.tolist() == [True, False, False, True, False]
    assert found.confidence.tolist() == [0.6, 0.6, 0, 0.5, 0]
    assert found.named_share(found.inside).value == 0.5
    assert found.named_share(found.rest["Neutral"]).value == 0.5
    named = open_set_tables(found)[1]
    assert [row[:3] for row in named.rows] == [
        ("all five", 2, 0.5), ("Angry", 2, 0.5), ("Fear", 1, 0.0), ("Neutral", 2, 0.5), ("Fear and Neutral", 3, 1 / 3),
    ]  # fmt: skip
    assert [row[4] for row in named.rows] == ["Angry 100%", "Angry 100%", "", "Angry 100%", "Angry 100%"]


def test_the_rest_named_where_a_share_of_the_five_is() -> None:
    inside = np.linspace(0.1, 1, 10)
    rest = np.array([0.05, 0.35, 0.55, 0.95])
    scores = np.concatenate([inside, rest])
    expressions = np.stack([scores, *[(1 - scores) / 6] * 6], 1)
    labels = np.repeat([0, 6], [10, 4])
    found = OpenSet(expressions, labels, NAMES, 5, np.zeros(7), Units.faces(14), 0)
    neutral = found.rest["Neutral"]
    assert found.named_where(scores, neutral, 0.8).value == pytest.approx(0.75)  # 0.3 and above name eight of ten
    assert found.named_where(scores, neutral, 0.5).value == pytest.approx(0.25)
    own, others = found.curve(scores, neutral)
    assert others[np.isclose(own, 0.8)].max() == pytest.approx(0.75)
    scores[:5] = 0  # not nameable at all
    assert np.isnan(found.named_where(scores, neutral, 0.8).value)


@pytest.mark.parametrize("mixed", [0.0, 0.3, 0.5, 0.7])
def test_a_mixed_stream_is_that_of_faces_drawn_in_that_proportion(mixed: float) -> None:
    found = made(7, 0.6, count=3000)
    rest = found.rest["Neutral"]
    rng = np.random.default_rng(1)
    outside = rng.random(200_000) < mixed
    drawn = np.where(
        outside, rng.choice(np.flatnonzero(rest), 200_000), rng.choice(np.flatnonzero(found.inside), 200_000)
    )
    named = found.named[drawn]
    kept, right = found.right_where(rest, mixed)
    assert kept == pytest.approx(named.mean(), abs=0.01)
    expected = (found.predicted == found.labels)[drawn][named] & ~outside[named]
    assert right.value == pytest.approx(expected.mean(), abs=0.01)
    assert right.low < right.value < right.high
    share, risk = found.risk_curve(rest, mixed)
    at = np.argmin(np.abs(share - kept))
    assert 1 - risk[at] == pytest.approx(right.value, abs=0.02)
    assert (np.diff(share) >= 0).all()


def test_intervals_resample_people() -> None:
    people = Units.of(np.arange(300) // 15, "people")
    single, grouped = made(7), made(7, units=people)
    scores, rest = single.scores["total probability of the five"], single.rest["Neutral"]
    first, second = single.auroc(scores, rest), grouped.auroc(scores, rest)
    assert first.value == second.value
    assert (first.low, first.high) != (second.low, second.high)


@pytest.mark.parametrize("classes", [5, 7])
def test_tables_and_figures(classes: int) -> None:
    found = made(classes)
    tables = open_set_tables(found)
    assert [len(table.rows) for table in tables] == [3 * len(found.scores), 9, 4 * len(found.scores), 10]
    assert list(summary_of(found)) == [f"AUROC against {name}" for name in found.rest]
    score = "probability of anything but Neutral" if classes == 7 else "highest probability"
    assert summary_of(found)["AUROC against Neutral"] == found.aurocs["Neutral", score]
    for figure in (trade_off(found), mixed_risk(found)):
        assert len(figure.axes[0].lines) >= 4


def test_only_the_classes_that_occur_are_the_rest() -> None:
    found = made(7)
    rows = found.labels != 5
    neutral = OpenSet(found.expressions[rows], found.labels[rows], NAMES, 5, found.thresholds, found.units[rows], 0)
    assert list(neutral.rest) == ["Neutral"]


def test_annotators_agree_if_no_other_option_has_as_many_votes() -> None:
    votes: NDArray[np.floating] = np.array(
        [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.3, 0.2, 0.0], [0.45, 0.0, 0.15], [0.2, 0.7, 0.1]]
    )
    assert agreeing(votes, np.zeros(5, np.int64)).tolist() == [True, False, False, True, False]
    shown = agreement_table({"all faces": Estimate(0.9, 0.8, 0.95, 50)})
    assert shown.rows[0][:3] == ("all faces", 50, 0.9)
