"""The list of published versions, with what is recorded beside them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from emotion_ai.contract import SERVABLES, TASKS
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.files import read_text
from emotion_ai.published import PARITY_FILE, checkpoint_file, read_header, whole_versions
from emotion_ai.terminal import Console, print_json
from emotion_ai_export.registry.model_config import ModelConfig, read_config
from emotion_ai_export.registry.staging import notice, notice_partial_versions
from emotion_ai_export.registry.watched_server import server_states


@dataclass(frozen=True)
class PublishedVersion:
    """One published version of the three models.

    Attributes:
        number: its number.
        labels: that name it in all models.
        states: on the server, by model; empty without a server.
        metrics: of its checkpoints on the test split, by name.
        parity: the largest difference between export and checkpoint, as a share of its tolerance; None if unknown.
        checkpoints: the git revision that trained each network.
    """

    number: int
    labels: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    parity: float | None = None
    checkpoints: dict[str, str] = field(default_factory=dict)


def describe_versions(base: Path, server: str | None = None) -> list[PublishedVersion]:
    """Every version that all models have, ascending.

    Args:
        base: the published folder.
        server: its address, for the states; left out if it does not respond.

    Raises:
        ConfigError: no such folder, or nothing published in it.
        ClientError: the server's response is not TensorFlow Serving's.
    """
    numbers = whole_versions(base)
    if not numbers:
        raise ConfigError(f"{base}: no published versions there; publish with: emotion-ai export out={base}")
    configs = read_config(base)
    states = server_states(server) if server else {}
    return [_describe(base, number, configs, states) for number in numbers]


def versions_command(base: Path, server: str | None, as_json: bool) -> None:
    """`emotion-ai versions`."""
    notice_partial_versions(base)
    found = describe_versions(base, server)
    _notice_odd_labels(read_config(base), {version.number for version in found})
    if as_json:
        print_json([vars(version) for version in found])
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("version", "labels", "state", "metrics", "parity", "checkpoint"):
        table.add_column(name, justify="right" if name == "version" else "left", overflow="fold")
    for version in found:
        states = sorted(set(version.states.values()))
        cells = (
            str(version.number),
            ", ".join(version.labels),
            states[0] if len(states) == 1 else "\n".join(f"{m} {s}" for m, s in version.states.items()),
            "\n".join(f"{name} {value:.4g}" for name, value in version.metrics.items()),
            "unknown" if version.parity is None else f"{version.parity:.0%} of tolerance",
            "\n".join(f"{task} {revision[:12]}" for task, revision in version.checkpoints.items()),
        )
        table.add_row(*map(Text, cells))
    Console().print(table)


def _notice_odd_labels(configs: list[ModelConfig], numbers: set[int]) -> None:
    """Prints a line on stderr for each label that the table cannot show."""
    ours = [config for config in configs if config.name in SERVABLES]
    for label in sorted({label for config in ours for label in config.labels}):
        named = {config.name: config.labels.get(label) for config in ours}
        if len(set(named.values())) > 1:
            each = ", ".join(f"{number or 'none'} of {model}" for model, number in named.items())
            notice(f"{label} is not the same version of all models ({each}); move it with: emotion-ai promote")
        elif (number := next(iter(named.values()))) not in numbers:
            notice(f"{label} is version {number}, which does not exist; move it with: emotion-ai promote")


def _describe(
    base: Path, number: int, configs: list[ModelConfig], states: dict[str, dict[int, str]]
) -> PublishedVersion:
    folder = base / SERVABLES[-1] / str(number)
    records = {task: _record(folder / checkpoint_file(task)) for task in TASKS}
    ours = [config.labels for config in configs if config.name in SERVABLES]
    return PublishedVersion(
        number,
        sorted({label for labels in ours for label in labels if all(each.get(label) == number for each in ours)}),
        {model: states[model].get(number, "-") for model in states},
        {
            f"{task} {name.removeprefix('test/')}": value
            for task, record in records.items()
            for name, value in _metrics(record).items()
            if name.startswith("test/")
        },
        _parity(folder / PARITY_FILE),
        {task: str(record.get("revision") or "unknown") for task, record in records.items() if record},
    )


def _record(checkpoint: Path) -> dict[str, Any]:
    try:
        return dict(read_header(checkpoint)["record"])
    except (CheckpointError, TypeError, ValueError):
        return {}


def _metrics(record: dict[str, Any]) -> dict[str, float]:
    metrics = record.get("metrics")
    return {k: v for k, v in metrics.items() if isinstance(v, int | float)} if isinstance(metrics, dict) else {}


def _parity(file: Path) -> float | None:
    try:
        proof = json.loads(read_text(file, limit=2**26))
        return float(max(row["difference"] / row["tolerance"] for row in proof["rows"]))
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return None
