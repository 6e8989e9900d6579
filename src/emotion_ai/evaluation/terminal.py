"""An evaluation's tables on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.columns import Columns
from rich.text import Text

from emotion_ai.evaluation.report import EvaluationReport
from emotion_ai.evaluation.tables import estimate_table
from emotion_ai.terminal import Console


def print_report(report: EvaluationReport, written: Sequence[Path]) -> None:
    """Prints summary and tables, side by side where the terminal is wide enough, then each written path."""
    console = Console()
    console.print(Text.assemble((report.title, "bold"), f"\n{report.subtitle}; {report.intervals}"))
    summary = estimate_table("Summary", report.summary, faces=True)
    console.print(Columns([table.as_rich() for table in (summary, *report.tables)], padding=(1, 3)))
    for path in written:
        console.wrote(path)
