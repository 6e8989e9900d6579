"""Verdicts: one rule for all, its numbers chosen on held-out faces, and what it promises."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from emotion_ai.class_set import FIVE, SEVEN, ClassSet
from emotion_ai.errors import DataError
from emotion_ai.evaluation.abstention import choose_threshold
from emotion_ai.evaluation.verdicts import bounded_lead, choose_rule, verdict_rates
from emotion_ai.inference.verdict import VerdictRule, decide
from emotion_ai.provenance import RunRecord
from emotion_ai.studies.verdicts import Logits, compare_risks, compare_rules


def drawn(count: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a calibrated network of seven classes, and classes drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(sharpness * rng.normal(size=(count, 7)), axis=1).astype(np.float32)
    return probabilities, np.array([rng.choice(7, p=row / row.sum()) for row in probabilities.astype(float)])


def test_an_emotion_needs_its_threshold_and_its_lead_over_neutral() -> None:
    rule = VerdictRule.leading([0.4] * 7, SEVEN, 0.2)
    rows = np.array(
        [
            [0.5, 0, 0, 0, 0, 0.25, 0.25],  # leads Neutral by 0.25
            [0.45, 0, 0, 0, 0, 0.2, 0.35],  # by 0.1
            [0.39, 0.3, 0, 0, 0, 0.31, 0.0],  # below the threshold
            [0.3, 0, 0, 0, 0, 0.2, 0.5],  # Neutral leads nobody
            [0.1, 0, 0, 0, 0, 0.45, 0.45],  # Fear may tie with Neutral
            [0.0, 0, 0, 0, 0, 0.3, 0.39],
        ],
        np.float32,
    )
    assert decide(rows, rule.bounds(rows)).tolist() == [0, -1, -1, 6, 5, -1]
    plain = VerdictRule.leading([0.4] * 7, SEVEN, 0.0)
    assert decide(rows, plain.bounds(rows)).tolist() == [0, 0, -1, 6, 5, -1]
    assert (rule.bounds(np.eye(7, dtype=np.float32)) <= 1).all(), "what is served is a probability"


def test_other_classes_have_no_lead() -> None:
    own = ClassSet.of(("Neutral", "cat"))
    for classes in (FIVE, own):
        rule = VerdictRule.leading([0.5] * len(classes), classes, 0.3)
        assert (rule.bounds(np.full((2, len(classes)), 0.5, np.float32)) == 0.5).all()


def test_a_record_holds_the_rule() -> None:
    numbers = {"uncertain_below": 0.4, "uncertain_below/Sad": 0.6, "neutral_lead": 0.2}
    rule = VerdictRule.of(RunRecord(calibration=numbers), SEVEN)
    assert rule.thresholds == (0.4, 0.4, 0.6, 0.4, 0.4, 0.4, 0.4)
    assert (rule.leads[0], rule.leads[6], rule.neutral) == (0.2, -1.0, 6)
    assert VerdictRule.of(RunRecord(), SEVEN) == VerdictRule((0.0,) * 7)
    with pytest.raises(ValueError, match="neutral_lead must be between 0 and 1, got 2"):
        VerdictRule.of(RunRecord(calibration={"neutral_lead": 2.0}), SEVEN)


def test_the_share_of_neutral_faces_is_bounded_on_new_faces() -> None:
    shares = []
    for seed in range(20):
        (val, labels), (new, truth) = drawn(1500, seed), drawn(1500, 100 + seed)
        lead = bounded_lead(val, labels, SEVEN, 0.1)
        rule = VerdictRule.leading([0.0] * 7, SEVEN, lead)
        shares.append(verdict_rates(decide(new, rule.bounds(new)), truth, SEVEN).others["Neutral"])
        assert 0 < lead < 1
    assert 0.05 < np.mean(shares) <= 0.105


def test_without_neutral_faces_there_is_no_lead_and_no_lead_may_suffice() -> None:
    probabilities, labels = drawn(300, 1)
    assert bounded_lead(probabilities, np.minimum(labels, 5), SEVEN, 0.1) == 0
    sure = np.eye(7, dtype=np.float32)[[0] * 50]
    assert bounded_lead(sure, np.full(50, 6), SEVEN, 0.1) == 1.0


def test_named_emotions_reach_the_accuracy_and_the_record_has_the_rates() -> None:
    probabilities, labels = drawn(3000, 2)
    chosen = choose_rule(probabilities, labels, SEVEN, 0.9, 0.1)
    rule = VerdictRule.of(RunRecord(calibration=chosen), SEVEN)
    rates = verdict_rates(decide(probabilities, rule.bounds(probabilities)), labels, SEVEN)
    assert rates.right == chosen["named_rightly"] >= 0.9
    assert rates.others["Neutral"] == chosen["named/Neutral"] <= 0.1
    assert rates.named == chosen["named"] > 0.2
    looser = choose_rule(probabilities, labels, SEVEN, 0.8, 0.2)
    assert looser["named"] > chosen["named"]


def test_a_network_of_the_five_keeps_its_threshold() -> None:
    probabilities, labels = drawn(500, 3)
    five, own = probabilities[:, :5] / probabilities[:, :5].sum(1, keepdims=True), labels % 5
    assert choose_rule(five, own, FIVE, 0.9, 0.1) == {"uncertain_below": choose_threshold(five, own, 0.9)}


def test_the_study_compares_rules_at_the_same_share_of_named_faces(tmp_path: Path) -> None:
    for name, seed in (("val", 4), ("test", 5)):
        probabilities, labels = drawn(2000, seed)
        np.savez(tmp_path / f"{name}.npz", predictions=probabilities, targets=labels)
    val, test = (Logits.read(tmp_path / f"{name}.npz", SEVEN) for name in ("val", "test"))
    rules = compare_rules(val, test, SEVEN, 0.6)
    assert all(row[2] == pytest.approx(0.6, abs=0.05) for row in rules.rows)
    neutral: dict[Any, Any] = {row[0]: row[5] for row in rules.rows}
    assert neutral["lead over Neutral"] < neutral["probability of the class"]
    named: list[Any] = [row[2] for row in compare_risks(val, test, SEVEN, (0.05, 0.1, 0.2)).rows]
    assert named == sorted(named)
    with pytest.raises(DataError, match=r"has the shape \(2000, 7\), expected \(2000, 5\)"):
        Logits.read(tmp_path / "val.npz", FIVE)


def test_a_network_that_knows_nothing_names_nothing() -> None:
    alike = np.full((70, 7), 1 / 7, np.float32)
    chosen = choose_rule(alike, np.arange(70) % 7, SEVEN, 0.9, 0.1)
    assert chosen == {"uncertain_below": 1.0, "neutral_lead": 0.01, "named": 0, "named/Fear": 0, "named/Neutral": 0}
