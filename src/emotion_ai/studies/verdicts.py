"""Rules for a verdict, compared on the validation split where each names the same share of the emotions' own faces.

Every rule gives a face a score; a face whose most probable class is an emotion is named if its score is high enough.
The bound is chosen on the validation split, and the rates are those of the test split:

    python -m emotion_ai.studies.verdicts val.npz test.npz

Each file holds `logits` or `predictions` (probabilities of all classes) float (N, K) and `targets` int64 (N,), as
`evaluate` writes them.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax

from emotion_ai.class_set import SEVEN, ClassSet
from emotion_ai.errors import DataError
from emotion_ai.evaluation.calibration import fit_temperature
from emotion_ai.evaluation.tables import Column, ReportTable
from emotion_ai.evaluation.verdicts import choose_rule, verdict_rates
from emotion_ai.inference.verdict import NEUTRAL, VerdictRule, decide
from emotion_ai.provenance import RunRecord
from emotion_ai.terminal import Console

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Logits:
    """Logits float (N, K) and true classes int64 (N,) of one split."""

    values: Floats
    labels: NDArray[np.int64]

    @classmethod
    def read(cls, path: Path, classes: ClassSet) -> "Logits":
        """Raises:
        DataError: the file is none of `evaluate`, or of another number of classes.
        """
        try:
            with np.load(path, allow_pickle=False) as saved:
                labels = saved["targets"].astype(np.int64)
                given = saved["logits"] if "logits" in saved else np.log(np.maximum(saved["predictions"], 1e-30))
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{path}: not a file of predictions ({error}); evaluate writes predictions.npz") from error
        if given.ndim != 2 or given.shape != (len(labels), len(classes)):
            raise DataError(f"{path}: has the shape {given.shape}, expected ({len(labels)}, {len(classes)})")
        return cls(given.astype(np.float64), labels)


def compare_rules(val: Logits, test: Logits, classes: ClassSet, named: float) -> ReportTable:
    """Rates of every rule on the test split; each bound names the share `named` of the emotions' own val faces."""
    count, neutral = classes.emotions, classes.names.index(NEUTRAL)
    every = fit_temperature(val.values, val.labels)
    own = val.labels < count
    alone = fit_temperature(val.values[own, :count], val.labels[own])
    rules: dict[str, Callable[[Floats], Floats]] = {
        "probability of the class": lambda z: softmax(z / every, 1)[:, :count].max(1),
        "share of the emotions": lambda z: softmax(z / every, 1)[:, :count].sum(1),
        "energy of the emotions": lambda z: logsumexp(z[:, :count], 1),
        "energy against the others": lambda z: logsumexp(z[:, :count], 1) - logsumexp(z[:, count:], 1),
        "probability among the emotions": lambda z: softmax(z[:, :count] / alone, 1).max(1),
        "the two multiplied, a temperature each": lambda z: (
            softmax(z / every, 1)[:, :count].sum(1) * softmax(z[:, :count] / alone, 1).max(1)
        ),
        "margin to the second class": lambda z: np.diff(np.sort(log_softmax(z / every, 1), 1)[:, -2:], axis=1)[:, 0],
        "probability that it is not Neutral": lambda z: 1 - softmax(z / every, 1)[:, neutral],
        "lead over Neutral": lambda z: softmax(z / every, 1)[:, :count].max(1) - softmax(z / every, 1)[:, neutral],
    }
    rows: list[tuple[str | float, ...]] = []
    for name, score in rules.items():
        scores = np.where(val.values.argmax(1) < count, score(val.values), -np.inf)[own]
        bound = float(np.sort(scores)[round((1 - named) * len(scores))])
        best = test.values.argmax(1)
        verdicts = np.where((best >= count) | (score(test.values) >= bound), best, -1)
        rows.append((name, bound, *_rates(verdicts, test, classes)))
    return _table(f"Rules that name {named:.0%} of the emotions' own validation faces", classes, rows)


def compare_risks(val: Logits, test: Logits, classes: ClassSet, risks: tuple[float, ...]) -> ReportTable:
    """Rates on the test split of the rule that training would choose on val for some bounds on neutral faces."""
    temperature = fit_temperature(val.values, val.labels)
    on_val, on_test = (softmax(split.values / temperature, 1).astype(np.float32) for split in (val, test))
    rows: list[tuple[str | float, ...]] = []
    for risk in risks:
        chosen = choose_rule(on_val, val.labels, classes, 0.9, risk)
        rule = VerdictRule.of(RunRecord(calibration=chosen), classes)
        verdicts = decide(on_test, rule.bounds(on_test))
        rows.append((f"at most {risk:.0%} of neutral faces", chosen["neutral_lead"], *_rates(verdicts, test, classes)))
    return _table("The rule that training chooses, by conformal risk control", classes, rows)


def _rates(verdicts: NDArray[np.int64], test: Logits, classes: ClassSet) -> tuple[float, ...]:
    labels = test.labels
    rates = verdict_rates(verdicts, labels, classes)
    others = (rates.others.get(name, float("nan")) for name in classes.names[classes.emotions :])
    kept = verdicts >= 0
    return rates.named, rates.right, *others, float(kept.mean()), float((verdicts == labels)[kept].mean())


def _table(title: str, classes: ClassSet, rows: Sequence[tuple[str | float, ...]]) -> ReportTable:
    others = (f"{name} named as an emotion" for name in classes.names[classes.emotions :])
    names = ("emotions named", "of these right", *others, "all with a verdict", "of these right")
    return ReportTable(
        title, (Column("rule"), Column("bound", ".3f"), *(Column(name, ".3f") for name in names)), tuple(rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.studies.verdicts", description=__doc__)
    parser.add_argument("val", type=Path, help="predictions.npz of the validation split")
    parser.add_argument("test", type=Path, help="predictions.npz of the test split")
    parser.add_argument("--named", type=float, default=0.8, help="share of the emotions' own faces (%(default)s)")
    options = parser.parse_args()
    if not 0 < options.named < 1:
        parser.error("--named must be above 0 and below 1")
    val, test = (Logits.read(path, SEVEN) for path in (options.val, options.test))
    console = Console(width=160)
    console.print(compare_rules(val, test, SEVEN, options.named).as_rich())
    console.print(compare_risks(val, test, SEVEN, (0.10, 0.12, 0.15, 0.20)).as_rich())


if __name__ == "__main__":
    main()
