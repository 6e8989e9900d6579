"""The result of an evaluation, and its files: `report.json` and `report.html`."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from emotion_ai.contract import Task
from emotion_ai.evaluation.statistics import Estimate
from emotion_ai.evaluation.tables import ReportTable
from emotion_ai.files import write_text
from emotion_ai.terminal import escaped


@dataclass(frozen=True)
class EvaluationReport:
    """Everything that an evaluation found, except for the figures.

    Attributes:
        checkpoint: its file name, or "bundled".
        source, part, fingerprint: of the faces.
        faces: their number.
        seen: whether the network may have been trained on them, in words.
        training_duplicates: faces whose pixels also occur in the Training part.
        training_duplicates_removed: such faces that were left out.
        flip: predictions are the mean over each face and its mirror image.
        device, precision: where and in what the network was computed.
        resampled, resampled_units: what the intervals resample ("people"), and how many there are.
        summary: the task's summary metrics by name, with intervals.
        command: repeats the evaluation.
    """

    task: Task
    checkpoint: str
    source: str
    part: str | None
    fingerprint: str
    faces: int
    seen: str
    training_duplicates: int
    training_duplicates_removed: int
    flip: bool
    seed: int
    device: str
    precision: str
    resampled: str
    resampled_units: int
    summary: dict[str, Estimate]
    tables: tuple[ReportTable, ...]
    command: str

    @property
    def title(self) -> str:
        return f"{self.task}: {self.checkpoint}"

    @property
    def subtitle(self) -> str:
        part = f", {self.part}" if self.part else ""
        return f"{self.faces} faces of {self.source}{part}, {self.seen}"

    @property
    def intervals(self) -> str:
        """How the intervals were made, in words."""
        faces = "" if self.resampled == "faces" else f" with their {self.faces:,} faces"
        return f"95 % bootstrap intervals that resample {self.resampled_units:,} {self.resampled}{faces}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"tables": [table.as_dict() for table in self.tables]}


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1d24; --paper: #fff; --line: #d8dbe2; --soft: #f4f5f8; --dim: #5b6070; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaf0; --paper: #15171d; --line: #343843; --soft: #1e2129; --dim: #a2a8b8; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       margin: 0 auto; padding: 1.5rem; max-width: 104rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; } header p { color: var(--dim); margin: .25rem 0 1rem; }
.summary { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem; }
.summary div { background: var(--soft); border-radius: .6rem; padding: .8rem 1.1rem; }
.summary b { font-size: 1.5rem; line-height: 1.3; display: block; } .summary small { color: var(--dim); }
.tables, .figures { column-gap: 2.5rem; }
.tables { columns: 24rem; } .figures { columns: 30rem; }
section { break-inside: avoid; margin: 0 0 1.8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .25rem 0 .25rem 1rem; text-align: left; vertical-align: top; }
td:first-child, th:first-child { padding-left: 0; } th { color: var(--dim); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { width: 100%; height: auto; background: #fff; border-radius: .4rem; display: block; }
pre { background: var(--soft); padding: .8rem; border-radius: .4rem; overflow-x: auto; font-size: .85rem; }
summary { cursor: pointer; }
"""


def write_page(path: Path, report: EvaluationReport, figures: Mapping[str, Figure], record: Mapping[str, Any]) -> None:
    """Writes the report as one HTML file.

    Args:
        figures: by name; they are embedded.
        record: the checkpoint's training record.
    """
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{_STYLE}</style>
<header>
<h1>{escape(report.title)}</h1>
<p>{escape(report.subtitle)}. {escape(report.intervals)}.</p>
</header>
<div class="summary">{"".join(_tile(name, estimate) for name, estimate in report.summary.items())}</div>
<h2>Tables</h2>
<div class="tables">{"".join(map(_table, report.tables))}</div>
<h2>Figures</h2>
<div class="figures">{"".join(_image(name, figure) for name, figure in figures.items())}</div>
<h2>Repeat this evaluation</h2>
<pre>{escape(report.command)}</pre>
<details><summary>Training record of the checkpoint</summary><pre>{escape(json.dumps(record, indent=2))}</pre></details>
</html>
"""
    write_text(path, escaped(page))  # of a data file's name that is not UTF-8


def _tile(name: str, e: Estimate) -> str:
    return f"<div>{escape(name)}<b>{e.value:.4f}</b><small>{e.low:.4f} to {e.high:.4f}</small></div>"


def _table(table: ReportTable) -> str:
    return f'<section><h3>{escape(table.title)}</h3><div class="scroll">{table.as_html()}</div></section>'


def _image(name: str, figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    source = base64.b64encode(stream.getvalue()).decode()
    return f'<section><img alt="{escape(name)}" src="data:image/png;base64,{source}"></section>'
