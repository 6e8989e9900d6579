"""The tables of docs/scale.md are computed from the committed figures."""

import json
from pathlib import Path

import pytest

from emotion_ai.benchmarks.scale import Figures, faces_a_day, tables, training

DOCS = Path(__file__).parents[2] / "docs"
FIGURES = Figures.read(DOCS / "benchmarks" / "scale.json")


def test_the_page_has_the_tables() -> None:
    page = (DOCS / "scale.md").read_text()
    for table in tables(FIGURES).strip().split("\n\n"):
        assert table in page


def test_twice_the_speed_takes_half_the_machines(tmp_path: Path) -> None:
    content = json.loads((DOCS / "benchmarks" / "scale.json").read_text())
    content["pictures"]["value"] = 100
    content["trained_gpu"]["value"] = 10_000
    content["core_hour"]["value"] = 0.05
    (tmp_path / "scale.json").write_text(json.dumps(content))
    figures = Figures.read(tmp_path / "scale.json")
    day = {name: values for name, *values in faces_a_day(figures)}
    assert day["cores"][0] == "116"  # 11,574 faces per second
    assert day["dollars a day"][0] == "139"
    assert {name: values for name, *values in training(figures)}["20 epochs on one GPU"][0] == "5.6 hours"


def test_every_figure_has_an_origin() -> None:
    content = json.loads((DOCS / "benchmarks" / "scale.json").read_text())
    assert all(entry["origin"] and entry["value"] > 0 for entry in content.values())


@pytest.mark.parametrize("name", ["EMOTION_AI_IMAGE_MEMORY", "python -m emotion_ai.benchmarks.growth"])
def test_the_page_names_what_can_be_set_and_run(name: str) -> None:
    assert name in (DOCS / "scale.md").read_text()
