"""What the page shows of a published version: model card, parity report and metrics."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion_ai.contract import TASKS
from emotion_ai.errors import CheckpointError
from emotion_ai.published import CARD_FILE, CHECKSUMS_FILE, PARITY_FILE, checkpoint_file, read_header


@dataclass(frozen=True)
class Parity:
    """The largest difference to PyTorch of one output on one path; in pixels of the crop for keypoints."""

    path: str
    servable: str
    output: str
    difference: float
    tolerance: float


@dataclass(frozen=True)
class VersionInfo:
    """One published version.

    Attributes:
        card: the model card, Markdown.
        parity: empty without a parity report.
        comparisons: number of comparisons in the parity report.
        checksums: number of files listed in SHA256SUMS.
        metrics: test metrics of its checkpoints by name.
        uncertain_below: the abstention threshold chosen for it; 0 if none was.
    """

    card: str
    parity: list[Parity]
    comparisons: int
    checksums: int
    metrics: dict[str, float]
    uncertain_below: float


def read_version_info(base: Path, version: int) -> VersionInfo:
    """Reads what is stored in a version of `face`; a part that is missing or damaged stays empty."""
    folder = base / "face" / str(version)
    records = {}
    for task in TASKS:
        try:
            records[task] = read_header(folder / checkpoint_file(task))["record"]
        except CheckpointError:
            records[task] = {}
    metrics = {
        f"{task} {name.removeprefix('test/')}": float(value)
        for task, record in records.items()
        for name, value in record.get("metrics", {}).items()
        if name.startswith("test/")
    }
    parity, comparisons = _read_parity(folder / PARITY_FILE)
    return VersionInfo(
        _text(folder / CARD_FILE),
        parity,
        comparisons,
        len(_text(folder / CHECKSUMS_FILE).splitlines()),
        metrics,
        _threshold(records["emotion"].get("calibration", {}).get("uncertain_below", 0.0)),
    )


def _threshold(stored: Any) -> float:
    return float(stored) if isinstance(stored, int | float) and 0 <= stored <= 1 else 0.0


def _read_parity(file: Path) -> tuple[list[Parity], int]:
    """The worst row of every output, and the number of all rows."""
    worst: dict[tuple[str, str, str, float], float] = {}
    try:
        rows = json.loads(_text(file))["rows"]
        for row in rows:
            key = (row["path"], row["servable"], row["output"], row["tolerance"])
            worst[key] = max(worst.get(key, 0.0), row["difference"])
    except (KeyError, TypeError, ValueError):
        return [], 0
    return [Parity(*key[:3], difference, key[3]) for key, difference in worst.items()], len(rows)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
