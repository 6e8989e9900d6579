"""`make bench` fails if reading becomes slower, and passes otherwise."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from emotion_ai.benchmarks import interleaved, stages
from emotion_ai.benchmarks.interleaved import Round, Stage
from emotion_ai.inference.reader import FaceReader
from emotion_ai_export.bench import compare, models_table, suite
from emotion_ai_export.bench.compare import read_figures
from emotion_ai_export.bench.models_table import ModelRow
from emotion_ai_export.bench.suite_page import page

ROOT = Path(__file__).parents[3]


def bench(monkeypatch: pytest.MonkeyPatch, out: Path, *options: object) -> int:
    monkeypatch.setattr(sys, "argv", ["suite", "--out", str(out), *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        suite.main()
    return int(ended.value.code or 0)


@pytest.fixture
def factors(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Two stages that take some seconds; their factors can be changed."""
    known = {"reading photos": 1.0, "loading a dataset": 1.0}

    @contextmanager
    def stages_of(parts: list[str]) -> Iterator[list[Stage]]:
        yield [Stage(name, lambda: None, lambda: None, 2) for name in known]

    def measure(stage: Stage, rounds: int) -> list[Round]:
        return [Round(0.5, known[stage.name] * (1.6 + 0.01 * (number % 5))) for number in range(rounds)]

    monkeypatch.setattr(suite, "stages_of", stages_of)
    monkeypatch.setattr(suite, "measure", measure)
    return known


def test_a_slower_stage_fails_and_is_named(
    factors: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, tmp_path, "--quick") == 0
    record = json.loads((tmp_path / "suite.json").read_text())
    assert {"revision", "processor", "cores", "packages"} <= record["environment"].keys()
    assert record["stages"][0]["per_second"] == 4.0
    assert 1.6 <= record["stages"][0]["low"] <= record["stages"][0]["ratio"] <= record["stages"][0]["high"] <= 1.64
    baseline = ("--quick", "--baseline", tmp_path / "suite.json", "--fail")
    assert bench(monkeypatch, tmp_path / "same", *baseline) == 0
    assert "no stage became slower" in capsys.readouterr().out
    factors["reading photos"] = 1.3
    assert bench(monkeypatch, tmp_path / "slower", *baseline) == 1
    assert "slower than in" in (output := capsys.readouterr().out)
    assert output.rstrip().endswith(": reading photos")
    assert bench(monkeypatch, tmp_path / "slower", *baseline[:-1]) == 0, "only --fail fails"


def test_errors_are_one_line(
    factors: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"figures": [{"name": "something", "values": [1.0, 1.0]}]}')
    for options, message in (
        (("--baseline", tmp_path / "none.json"), "no such file"),
        (("--baseline", other), "has none of the stages"),
        (("--rounds", 1), "--rounds must be from 2 to --most"),
    ):
        assert bench(monkeypatch, tmp_path, "--quick", *options) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_the_baseline_has_every_stage_of_a_quick_run(tmp_path: Path) -> None:
    with suite.stages_of(["reading", "ingest"]) as found:
        names = {stage.name for stage in found}
    recorded = {figure.name for figure in read_figures(ROOT / suite.BASELINE)}
    assert names <= recorded


def slowed(method: Callable[..., Any], wait: Callable[[float], None]) -> Callable[..., Any]:
    """The method, 30 % slower."""

    def slower(*arguments: Any) -> Any:
        started = time.thread_time()
        found = method(*arguments)
        wait(0.3 * (time.thread_time() - started))
        return found

    return slower


def busy(seconds: float) -> None:
    started = time.thread_time()
    while time.thread_time() - started < seconds:
        pass


@pytest.mark.slow
def test_a_slowdown_of_30_percent_in_reading_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("--only", "reading", "--rounds", 8, "--most", 16)
    assert bench(monkeypatch, tmp_path, *settings) == 0
    baseline = (*settings, "--baseline", tmp_path / "suite.json", "--fail")
    assert bench(monkeypatch, tmp_path / "same", *baseline) == 0
    for place, name, wait in (
        (FaceReader, "read", time.sleep),
        (FaceReader, "read_crops", busy),
        (stages, "find_faces", busy),
    ):
        with monkeypatch.context() as planted:
            planted.setattr(place, name, slowed(getattr(place, name), wait))
            assert bench(planted, tmp_path / "slower", *baseline) == 1, name


def row(task: Any, name: str, score: float | None) -> ModelRow:
    return ModelRow(task, name, 3.0, 400.0, (1.0, 0.9, 1.1), score, 1000, 0.004)


@pytest.mark.parametrize("score", [0.8, None])
def test_models_are_drawn_and_absent_packages_named(score: float | None, tmp_path: Path) -> None:
    rows = [row("keypoints", "SavedModel", 1.4), row("emotion", "SavedModel", score), row("emotion", "fer", score)]
    models_table.draw(rows).savefig(tmp_path / "models.png")
    assert (tmp_path / "models.png").stat().st_size > 10_000
    table = models_table.models_table(rows, ["fer==25.10.3"])
    assert "fer==25.10.3" in str(table.caption)
    assert [models_table.score_text(each) for each in rows[:2]] == ["1.40 px", "80.0%" if score else "-"]


def test_the_page_has_a_table_for_each_part(factors: dict[str, float]) -> None:
    found = suite.Suite([], 2, 2)
    with suite.stages_of([]) as stages_found:
        found.add_stages(stages_found)
    speeds = [
        {"name": "training/emotion/ours", "value": 200.0, "unit": "images/s"},
        {"name": "training/emotion/ours/memory", "value": 2**30, "unit": "bytes"},
        {"name": "training/emotion/customary", "value": 80.0, "unit": "images/s"},
        {"name": "training/emotion/customary/memory", "value": 2**31, "unit": "bytes"},
        {"name": "training/emotion/ours to customary", "value": 2.5, "unit": "ratio", "low": 2.4, "high": 2.6},
    ]
    record = {
        "environment": compare.machine(),
        "stages": [asdict(each) for each in found.rows],
        "training": speeds,
        "models": [asdict(row("emotion", "SavedModel", 0.833))],
        "packages_left_out": ["fer==25.10.3"],
    }
    text = page(record)
    assert "| **emotion: SavedModel** | 3.00 | 1.00 (0.90–1.10) | 400 | 83.3% | 1,000 | 0.0 |\n\n![Time" in text
    assert "| emotion: customary | 80 | 2048 | 2.50 (2.40–2.60) |" in text
    assert "| reading photos | 4.0 photos | 1.6" in text
    assert "numpy" in text.splitlines()[-1]
    assert "left out: fer==25.10.3." in text
    assert "models.png" not in page({**record, "models": []})


def test_runtimes_are_timed_in_turns_by_their_own_clock() -> None:
    now = [0.0]

    def runtime(name: str, one: float) -> models_table.Runtime:
        def call(seconds: float) -> None:
            now[0] += seconds

        calls: dict[int, Callable[[], object]] = {1: lambda: call(one), 32: lambda: call(16 * one)}
        return models_table.Runtime("emotion", name, calls, 0.8, 10, 1.0, clock=lambda: now[0])

    ours, other = models_table.measure([runtime("SavedModel", 0.004), runtime("other", 0.006)], 2)
    assert [ours.milliseconds, other.milliseconds] == pytest.approx([4, 6])
    assert [ours.per_second, other.to_ours[0]] == pytest.approx([500, 1.5])


def test_an_empty_folder_has_no_peers(tmp_path: Path) -> None:
    from emotion_ai_export.bench.peers import PACKAGES, load_peers

    assert load_peers(tmp_path, tmp_path) == ([], list(PACKAGES.values()))


@pytest.mark.slow
def test_every_runtime_is_measured(tmp_path: Path) -> None:
    with models_table.loaded_models(tmp_path, None) as loaded:
        rows = models_table.measure(loaded.runtimes, 2)
        rounds = [interleaved.measure(stage, 2) for stage in loaded.stages]
    names = ("PyTorch", "ONNX Runtime", "SavedModel", models_table.SERVED)
    assert [(each.task, each.name) for each in rows] == [
        (task, name) for task in ("keypoints", "emotion") for name in names
    ]
    assert all(each.milliseconds > 0 and each.per_second > 0 and each.score is None for each in rows)
    assert all(each.ratio > 0 for stage in rounds for each in stage)
