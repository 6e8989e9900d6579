"""The results of `make bench` as Markdown, for docs/performance.md."""

from collections.abc import Sequence
from typing import Any

from emotion_ai_export.bench.backends import OURS
from emotion_ai_export.bench.models_table import ModelRow, score_text

_PLOT = "![Time of one face against accuracy, for each runtime and package](images/models.png)"


def page(record: dict[str, Any]) -> str:
    """Tables of suite.json: the models with their plot, training, the stages, and the machine."""
    environment = record["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    machine = (
        f"Measured on {environment['processor']}, {environment['cores']} cores ({environment['machine']}), with Python "
        f"{environment['python']}, {versions}, at revision {environment['revision']}."
    )
    absent = record["packages_left_out"]
    left_out = f"Not installed, left out: {', '.join(absent)}." if absent else ""
    parts = [_models(record["models"]), left_out, _training(record["training"]), _stages(record["stages"]), machine]
    return "\n\n".join(part for part in parts if part) + "\n"


def _models(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in (ModelRow(**each) for each in rows):
        bold = "**" if row.name == OURS else ""
        cells.append(
            (
                f"{bold}{row.task}: {row.name}{bold}",
                f"{row.milliseconds:.2f}",
                "{:.2f} ({:.2f}–{:.2f})".format(*row.to_ours),
                f"{row.per_second:,.0f}",
                score_text(row),
                f"{row.parameters:,}",
                f"{row.megabytes:.1f}",
            )
        )
    header = ("network", "ms, 1 face", "to SavedModel (95 %)", "faces/s, 32 at once", "score", "parameters", "MB")
    return f"{_table(header, cells)}\n\n{_PLOT}" if cells else ""


def _training(records: list[dict[str, Any]]) -> str:
    values = {each["name"]: each for each in records}
    cells = []
    for name, each in values.items():
        _, task, pipeline = name.split("/", 2)
        if each["unit"] == "images/s":
            memory = values[f"{name}/memory"]["value"] / 2**20
            ratio = values.get(f"training/{task}/ours to {pipeline}")
            interval = f" ({ratio['low']:.2f}–{ratio['high']:.2f})" if ratio and "low" in ratio else ""
            faster = f"{ratio['value']:.2f}{interval}" if ratio else ""
            cells.append((f"{task}: {pipeline}", f"{each['value']:.0f}", f"{memory:.0f}", faster))
    return _table(("training", "images/s", "memory (MiB)", "ours is faster by (95 %)"), cells)


def _stages(rows: list[dict[str, Any]]) -> str:
    cells = [
        (
            row["name"],
            f"{row['per_second']:,.1f} {row['unit']}",
            f"{row['ratio']:.2f} ({row['low']:.2f}–{row['high']:.2f})",
            f"{row['margin']:.0%}",
        )
        for row in rows
    ]
    return _table(("stage", "per second", "relative time (95 %)", "margin"), cells)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [header, ("---", *("---:" for _ in header[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
