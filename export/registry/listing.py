"""The list of published versions, with what is recorded beside them."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from emotion_ai.client.transport import LABEL
from emotion_ai.contract import SERVABLES, TASKS
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.files import read_text
from emotion_ai.published import CONFIG_FILE, PARITY_FILE, checkpoint_file, read_header, whole_versions
from emotion_ai.terminal import Console, print_json
from emotion_ai_export.registry.model_config import read_config
from emotion_ai_export.registry.rollout import VERSION_LABELS
from emotion_ai_export.registry.server_record import left_out
from emotion_ai_export.registry.staging import notice, notice_partial_versions
from emotion_ai_export.registry.watched_server import States, VersionState, WatchedServer, running_server


@dataclass(frozen=True)
class PublishedVersion:
    """One published version of the three models.

    Attributes:
        number: its number.
        labels: that name it in all models: on the server, or in `models.config` without one.
        states: on the server, by model; empty without a server.
        left_out: why it is not served: what a server said when it could not load it; "" if it is not left out.
        metrics: of its checkpoints on the test split, by name.
        parity: the largest difference between export and checkpoint, as a share of its tolerance; None if unknown.
        checkpoints: the git revision that trained each network.
    """

    number: int
    labels: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    left_out: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    parity: float | None = None
    checkpoints: dict[str, str] = field(default_factory=dict)


def describe_versions(base: Path, server: str | None = None) -> list[PublishedVersion]:
    """Every version that all models have, ascending.

    Args:
        base: the published folder.
        server: its address, for states and labels; left out if it does not respond or has other models.

    Raises:
        ConfigError: no such folder, or nothing published in it.
        ClientError: the server's response is not TensorFlow Serving's.
    """
    numbers = whole_versions(base)
    if not numbers:
        raise ConfigError(f"{base}: no published versions there; publish with: emotion-ai export out={base}")
    labels, states = _labels(base), {}
    if server and (found := running_server(server)):
        labels, states = _server_labels(server, labels), found
    reasons = left_out(base)
    return [replace(_describe(base, number, labels, states), left_out=reasons.get(number, "")) for number in numbers]


def versions_command(base: Path, server: str | None, as_json: bool) -> None:
    """`emotion-ai versions`."""
    notice_partial_versions(base)
    found = describe_versions(base, server)
    _notice_odd_labels(_labels(base), {version.number for version in found})
    for version in found:
        if version.left_out:
            notice(
                f"version {version.number} is left out of {CONFIG_FILE} ({version.left_out}); "
                f"to try it again: emotion-ai promote {base} {version.number}"
            )
    if as_json:
        print_json([vars(version) for version in found])
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("version", "labels", "state", "metrics", "parity", "checkpoint"):
        table.add_column(name, justify="right" if name == "version" else "left", overflow="fold")
    for version in found:
        states = sorted(set(version.states.values()))
        state = states[0] if len(states) == 1 else "\n".join(f"{m} {s}" for m, s in version.states.items())
        cells = (
            str(version.number),
            ", ".join(version.labels),
            "\n".join(filter(None, [state, "left out" if version.left_out else ""])),
            "\n".join(f"{name} {value:.4g}" for name, value in version.metrics.items()),
            "unknown" if version.parity is None else f"{version.parity:.0%} of tolerance",
            "\n".join(f"{task} {revision[:12]}" for task, revision in version.checkpoints.items()),
        )
        table.add_row(*map(Text, cells))
    Console().print(table)


Labels = dict[str, dict[str, int]]  # by model and name


def _labels(base: Path) -> Labels:
    """Of our models in `models.config`."""
    return {config.name: config.labels for config in read_config(base) if config.name in SERVABLES}


def _server_labels(address: str, listed: Labels) -> Labels:
    """Of our models on a server; prints a line on stderr for each label that differs from `models.config`."""
    given = {name for labels in listed.values() for name in labels if LABEL.fullmatch(name)}
    names = sorted({*VERSION_LABELS, *given})
    served = WatchedServer(address).labels(names)
    for name in names:
        there, here = ([found.get(model, {}).get(name) for model in SERVABLES] for found in (served, listed))
        if there != here:
            each, own = (
                ", ".join(sorted({str(number or "not set") for number in numbers})) for numbers in (there, here)
            )
            notice(
                f"{name} is {each} on {address}, but {own} in {CONFIG_FILE}: the change is a second old, or the server "
                f"rejects the file or reads another one; move the label with: emotion-ai promote --label {name}"
            )
    return served


def _notice_odd_labels(labels: Labels, numbers: set[int]) -> None:
    """Prints a line on stderr for each label that the table cannot show."""
    for label in sorted({label for found in labels.values() for label in found}):
        named = {model: found.get(label) for model, found in labels.items()}
        if len(set(named.values())) > 1:
            each = ", ".join(f"{number or 'none'} of {model}" for model, number in named.items())
            notice(f"{label} is not the same version of all models ({each}); move it with: emotion-ai promote")
        elif (number := next(iter(named.values()))) not in numbers:
            notice(f"{label} is version {number}, which does not exist; move it with: emotion-ai promote")


def _describe(base: Path, number: int, labels: Labels, states: States) -> PublishedVersion:
    folder = base / SERVABLES[-1] / str(number)
    records = {task: _record(folder / checkpoint_file(task)) for task in TASKS}
    ours = [*labels.values()]
    absent = VersionState("-")
    return PublishedVersion(
        number,
        labels=sorted({name for found in ours for name in found if all(each.get(name) == number for each in ours)}),
        states={model: found.get(number, absent).name for model, found in states.items()},
        metrics={
            f"{task} {name.removeprefix('test/')}": value
            for task, record in records.items()
            for name, value in _metrics(record).items()
            if name.startswith("test/")
        },
        parity=_parity(folder / PARITY_FILE),
        checkpoints={task: str(record.get("revision") or "unknown") for task, record in records.items() if record},
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
