"""Results are compared with a baseline."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.errors import ConfigError
from emotion_ai_export.bench import compare
from emotion_ai_export.bench.compare import Figure, figures_record, median_interval

NOISE = np.random.default_rng(0).normal(1, 0.02, 40)


def result(folder: Path, name: str, *figures: Figure) -> Path:
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"figures": figures_record(figures)}))
    return file


def values(factor: float) -> list[float]:
    return [factor * float(value) for value in NOISE]


def test_a_median_has_its_interval() -> None:
    assert median_interval([1.0, 2.0, 6.0])[0] == 2.0
    middle, low, high = median_interval(values(1.0))
    assert 0.98 < low < middle < high < 1.02
    assert median_interval([1.5]) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("factor", "rate", "verdict"),
    [
        (1.0, False, ""),
        (1.08, False, ""),  # within the margin of 10 %
        (1.3, False, "worse"),
        (0.7, False, "better"),
        (1.3, True, "better"),
        (0.7, True, "worse"),
    ],
)
def test_a_change_beyond_the_margin_is_flagged(factor: float, rate: bool, verdict: str) -> None:
    (change,) = compare.compare([Figure("a", values(factor), rate)], [Figure("a", values(1.0), rate)])
    assert change.verdict == verdict
    assert change.low <= change.ratio <= change.high
    assert change.ratio == pytest.approx(factor)


def test_a_wide_interval_is_not_flagged() -> None:
    noisy = [1.0, 3.0, 0.5, 2.0, 0.8]
    (change,) = compare.compare([Figure("a", noisy)], [Figure("a", [0.7, 1.1, 0.8, 1.0, 0.6])])
    assert change.verdict == ""


def test_counts_are_compared_as_they_are() -> None:
    (change,) = compare.compare([Figure("nodes", [120])], [Figure("nodes", [100])])
    assert (change.ratio, change.low, change.verdict) == (1.2, 1.2, "worse")


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--fail"], 1), (["--fail", "--margin", "0.5"], 0)])
def test_the_command_fails_when_asked_to(
    options: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = result(tmp_path, "now", Figure("time", values(1.3)), Figure("new", [1.0]))
    before = result(tmp_path, "before", Figure("time", values(1.0)), Figure("old", [1.0]))
    monkeypatch.setattr(sys, "argv", ["compare", str(now), str(before), *options])
    with pytest.raises(SystemExit) as ended:
        compare.main()
    assert ended.value.code == code
    output = capsys.readouterr().out
    assert "1.30 (" in output
    assert "of 1 figures are worse" in output


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        compare.read_figures(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a result of this benchmark"):
        compare.read_figures(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="no figure of the baseline was measured"):
        compare.compare([Figure("a", [1.0])], [Figure("b", [1.0])])


def test_the_machine_is_described_without_its_name() -> None:
    described = compare.machine()
    assert described["cores"] >= 1
    assert {"python", "packages", "machine", "processor"} <= described.keys()
    assert "node" not in described
