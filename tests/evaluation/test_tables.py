"""One table in all its forms."""

import json

import pytest

from emotion_ai.evaluation.statistics import Estimate
from emotion_ai.evaluation.tables import Column, Interval, ReportTable, estimate_table, value_table
from emotion_ai.terminal import Console

TABLE = ReportTable(
    "Scores [bold] & more",
    (Column("class"), Column("recall", ".3f"), Column("95 % interval"), Column("p", ".3g")),
    (("<happy>", 0.98765, Interval(0.9, 1.0), None), ("sad", 0.5, Interval(0.25, 0.75), 3e-10)),
)


def test_cells_are_formatted_by_their_column() -> None:
    assert TABLE.texts == [["<happy>", "0.988", "0.9000 to 1.0000", ""], ["sad", "0.500", "0.2500 to 0.7500", "3e-10"]]


def test_json_keeps_values_and_order() -> None:
    content = json.loads(json.dumps(TABLE.as_dict()))
    assert content["columns"] == ["class", "recall", "95 % interval", "p"]
    assert content["rows"][0] == ["<happy>", 0.98765, {"low": 0.9, "high": 1.0}, None]


def test_markdown_aligns_numbers_right() -> None:
    lines = TABLE.as_markdown().splitlines()
    assert lines[:2] == ["| class | recall | 95 % interval | p |", "| --- | ---: | ---: | ---: |"]
    assert lines[3] == "| sad | 0.500 | 0.2500 to 0.7500 | 3e-10 |"


def test_html_has_headers_and_escapes() -> None:
    page = TABLE.as_html()
    assert '<th>class<th class="n">recall' in page
    assert '<tr><td>&lt;happy&gt;<td class="n">0.988' in page


def test_the_terminal_shows_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=120).print(TABLE.as_rich())
    shown = capsys.readouterr().out
    assert "Scores [bold] & more" in shown
    assert "<happy>" in shown


def test_short_rows_are_errors() -> None:
    with pytest.raises(ValueError, match="expected 2 cells"):
        ReportTable("a", (Column("x"), Column("y")), (("only one",),))


def test_tables_of_values_and_estimates() -> None:
    assert value_table("a", ("point", "RMSE"), {"nose": 1.25}).texts == [["nose", "1.2500"]]
    estimates = {"accuracy": Estimate(0.5, 0.4, 0.6, 10)}
    assert estimate_table("a", estimates).texts == [["accuracy", "0.5000", "0.4000 to 0.6000"]]
    assert estimate_table("a", estimates, faces=True).texts == [["accuracy", "0.5000", "0.4000 to 0.6000", "10"]]
