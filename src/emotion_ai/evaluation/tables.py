"""Tables of a report: typed values, written as JSON, Markdown, HTML and for the terminal."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from rich.table import Table

from emotion_ai.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Interval:
    """The ends of a 95 % interval."""

    low: float
    high: float


Cell = str | int | float | Interval | None


@dataclass(frozen=True)
class Column:
    """A column: its heading, and the format of its floats, e.g. ".4f"."""

    name: str
    digits: str = ".4f"

    def text(self, cell: Cell) -> str:
        if cell is None:
            return ""
        if isinstance(cell, Interval):
            return f"{cell.low:{self.digits}} to {cell.high:{self.digits}}"
        return f"{cell:{self.digits}}" if isinstance(cell, float) else str(cell)


INTERVAL = Column("95 % interval")


@dataclass(frozen=True)
class ReportTable:
    """A table whose first column names the rows; further columns hold values and are right-aligned."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: expected {len(self.columns)} cells, got {row}")

    @property
    def texts(self) -> list[list[str]]:
        """The formatted cells of each row."""
        return [[column.text(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: values are not rounded, intervals are {"low": …, "high": …}."""
        rows = [[asdict(cell) if isinstance(cell, Interval) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "columns": [column.name for column in self.columns], "rows": rows}

    def as_markdown(self) -> str:
        """The table without its title."""
        texts = [[text.replace("|", r"\|") for text in line] for line in ([c.name for c in self.columns], *self.texts)]
        lines = [texts[0], ["---"] + ["---:"] * (len(self.columns) - 1), *texts[1:]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def as_html(self) -> str:
        """A <table> without its title; cells after the first have the class "n"."""
        head = "".join(f"<th{_value(i)}>{escape(column.name)}" for i, column in enumerate(self.columns))
        body = "".join(
            "<tr>" + "".join(f"<td{_value(i)}>{escape(text)}" for i, text in enumerate(texts)) for texts in self.texts
        )
        return f"<table><thead><tr>{head}<tbody>{body}</table>"

    def as_rich(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column.name, justify="right" if i else "left")
        for texts in self.texts:
            table.add_row(*texts)
        return table


def value_table(title: str, names: tuple[str, str], values: Mapping[str, float]) -> ReportTable:
    """Names and values; `names` are the two headings."""
    return ReportTable(title, tuple(map(Column, names)), tuple(values.items()))


def estimate_table(title: str, estimates: Mapping[str, Estimate], *, faces: bool = False) -> ReportTable:
    """Metrics with their intervals and, with `faces`, the number of faces behind each."""
    columns = (Column("metric"), Column("value"), INTERVAL, *([Column("faces")] if faces else []))
    rows: list[tuple[Cell, ...]] = [(name, e.value, Interval(e.low, e.high), e.n) for name, e in estimates.items()]
    return ReportTable(title, columns, tuple(row[: len(columns)] for row in rows))


def _value(index: int) -> str:
    return ' class="n"' if index else ""
