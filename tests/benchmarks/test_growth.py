"""The benchmark of growth: what it measures, and what it finds fault with."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.benchmarks import growth
from emotion_ai.benchmarks.growth import BUDGET, Growth, Run, faults, write_csv
from emotion_ai.benchmarks.growth_plot import draw
from emotion_ai.benchmarks.process_tree import tree_usage
from emotion_ai.data.duplicates import duplicate_groups
from emotion_ai.data.loaders import load

SIZES = (1000, 3000, 10_000, 30_000)


def runs(power: float, memory: float = 100.0) -> list[Run]:
    noise = np.random.default_rng(0).uniform(0.95, 1.05, len(SIZES))
    return [Run("report", n, 1e-3 * n**power * f, memory) for n, f in zip(SIZES, noise, strict=True)]


def test_more_than_linear_time_is_a_fault() -> None:
    assert faults(runs(1.0)) == []
    (fault,) = faults(runs(1.5))
    assert fault.startswith("report: time grows with the power 1.")


def test_few_scattered_runs_do_not_hide_quadratic_time() -> None:
    scattered = [Run("epoch", n, s, 1.0) for n, s in ((1000, 1.0), (2000, 2.2), (4000, 12.0))]
    assert growth.growths(scattered)["epoch"].low < 1
    assert len(faults(scattered)) == 1


def test_more_memory_than_the_budget_is_a_fault() -> None:
    found = faults(runs(1.0, BUDGET["report"] + 1.0))
    assert len(found) == len(SIZES)
    assert "1,000 take 3,001 MiB, more than 3,000" in found[0]


def test_the_interval_holds_the_exponent() -> None:
    found = Growth.of(SIZES, [run.seconds for run in runs(1.2)])
    assert found.low < 1.2 < found.high
    assert found.high - found.low < 0.3


def test_all_faces_of_a_file_differ(tmp_path: Path, own_cache: Path) -> None:
    write_csv(tmp_path / "a.csv", 40, pool=3)
    faces = load(tmp_path / "a.csv")
    assert duplicate_groups(faces.images).max() == 39
    assert (faces.part == "PublicTest").sum() == 8


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
def test_what_a_process_starts_counts_as_well() -> None:
    child = "x = bytearray(60 << 20); t = time.process_time()\nwhile time.process_time() < t + 0.6: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {'import time; ' + child!r}])"
    usage = tree_usage(subprocess.Popen([sys.executable, "-c", code]))
    assert 60 < usage.memory < 150
    assert 0.4 < usage.seconds < 2


def test_stages_are_measured_without_their_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(growth._RUN, "ingest", lambda _, count: (2 + count / 1000, 50.0))
    monkeypatch.setitem(growth.START, "ingest", 0)
    found = growth.measure(["ingest"], 100_000)
    assert [(run.faces, run.seconds) for run in found] == [(10_000, 10), (30_000, 30), (100_000, 100)]
    draw({"ingest": found}, {"ingest": {"exponent": 1.0}}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"


def test_each_training_run_gets_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, folder = growth._Place(tmp_path), tmp_path / "run"

    def train(self: growth._Place, *command: str) -> tuple[float, float]:
        assert f"out={folder}" in command
        folder.mkdir()  # fails where a run lies already
        return 1.0, 1.0

    monkeypatch.setattr(growth._Place, "run", train)
    for _ in range(2):
        place.train(tmp_path / "faces.csv")
