"""Published versions as deployers live them: listed, promoted, rolled back, pruned.

Each change rewrites `models.config`, which the server polls, one step at a time: a version is loaded before a label
names it, and dropped only after the label has moved, so that no request finds neither.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError, safe_open

from emotion_ai.client import FaceClient
from emotion_ai.contract import SERVABLES, TASKS
from emotion_ai.errors import ClientError, ConfigError, ExportError, ServerUnreachableError
from emotion_ai_export.registry.model_config import ModelConfig, parse, render
from emotion_ai_export.registry.publish import (
    CONFIG_FILE,
    FIRST_LABEL,
    locked,
    remove_version,
    replace_file,
    versions_of,
)

LABELS = ("stable", "canary")
BEFORE_FILE = ".before.json"  # what each label named before it was last promoted
_POLL = 0.1


@dataclass(frozen=True)
class Version:
    """One published version.

    Attributes:
        number: of the three models.
        labels: that name it in all of them.
        states: by model, as the server says; empty without a server.
        metrics: of its checkpoints on the faces that they report, by name.
        parity: the worst difference of the export to its checkpoint, in parts of what is allowed; None without a proof.
        checkpoints: each network's revision and training, as its checkpoint says.
    """

    number: int
    labels: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    parity: float | None = None
    checkpoints: dict[str, str] = field(default_factory=dict)


def list_versions(base: Path, server: str | None = None) -> list[Version]:
    """Every version that some model has, ascending.

    Raises:
        ConfigError: no such folder, or nothing published in it.
        ClientError: the server does not answer as TensorFlow Serving does; one that is not there is no error.
    """
    numbers = sorted({number for model in SERVABLES for number in versions_of(base / model)})
    if not numbers:
        raise ConfigError(f"{base}: holds no published versions; publish with: emotion-ai export out={base}")
    configs = parse((base / CONFIG_FILE).read_text()) if (base / CONFIG_FILE).exists() else []
    states = _states(server) if server else {}
    found = []
    for number in numbers:
        extra = next(base / m / str(number) for m in reversed(SERVABLES) if number in versions_of(base / m))
        extra /= "assets.extra"
        records = {task: _record(extra / f"{task}.safetensors") for task in TASKS}
        found.append(
            Version(
                number,
                [label for label in _labels(configs) if all(c.labels.get(label) == number for c in configs)],
                {model: states[model].get(number, "-") for model in states},
                {
                    f"{task} {name.removeprefix('test/')}": value
                    for task, record in records.items()
                    for name, value in record.get("metrics", {}).items()
                    if name.startswith("test/")
                },
                _parity(extra / "parity.json"),
                {task: str(record.get("revision") or "unknown") for task, record in records.items() if record},
            )
        )
    return found


def promote(
    base: Path, version: int | None = None, label: str = FIRST_LABEL, server: str | None = None, timeout: float = 120
) -> int:
    """Moves a label, in all models, to a version; the newest that all have if none is given.

    Args:
        base: where the models lie.
        version: its number.
        label: "stable" or "canary".
        server: its address, waited for at each step; None only rewrites `models.config`.
        timeout: seconds that each step may take.

    Returns:
        The version that the label names now.

    Raises:
        ConfigError: an unknown label.
        ExportError: the version is not there, or the server does not take it; `models.config` is as it was.
        ClientError: the server does not answer.
    """
    with _configured(base, label) as configs:
        common = set.intersection(*(set(versions_of(base / c.name)) for c in configs))
        number = max(common, default=0) if version is None else version
        if number not in common:
            missing = [c.name for c in configs if number not in versions_of(base / c.name)]
            raise ExportError(f"{base}: version {number} of {', '.join(missing)} is not there; see emotion-ai versions")
        current = _named(configs, label)
        if current != number:
            replace_file(base / BEFORE_FILE, json.dumps(_before(base) | {label: current}))
        _move(base, configs, label, number, server, timeout)
    return number


def rollback(base: Path, label: str = FIRST_LABEL, server: str | None = None, timeout: float = 120) -> int | None:
    """Moves a label back to what it named before it was last promoted; asked again, it stays there.

    Returns:
        The version that the label names now; None where it had named none before, and is gone now.

    Raises:
        ConfigError: an unknown label.
        ExportError: the label was never promoted, its earlier version was pruned, or the server does not take it.
        ClientError: the server does not answer.
    """
    with _configured(base, label) as configs:
        before = _before(base)
        if label not in before:
            raise ExportError(f"{base}: {label} was never promoted; nothing to roll back to")
        number = before[label]
        for config in configs:
            if number is not None and number not in versions_of(base / config.name):
                raise ExportError(
                    f"{base}: version {number}, which {label} named before, is not there any more; "
                    "choose another with: emotion-ai promote"
                )
        _move(base, configs, label, number, server, timeout)
    return number


def prune(base: Path, keep: int, server: str | None = None, timeout: float = 120) -> list[int]:
    """Deletes all versions but the newest `keep` and those that a label names; returns what is gone.

    Raises:
        ConfigError: `keep` below one.
        ExportError: the server does not serve what it should; nothing was deleted.
        ClientError: the server does not answer.
    """
    if keep < 1:
        raise ConfigError(f"keep={keep}: the newest version is always kept; give 1 or more")
    with _configured(base) as configs:
        numbers = sorted({number for model in SERVABLES for number in versions_of(base / model)})
        labelled = {number for config in configs for number in config.labels.values()}
        doomed = [number for number in numbers[:-keep] if number not in labelled]
        configs = _settled(base, configs)
        _write(base, configs)
        if server:  # the newest may have failed to load, with an older one in its place
            for config in configs:
                for number in config.versions:
                    _wait_available(server, config.name, number, timeout)
        for model in SERVABLES:
            for number in set(doomed) & set(versions_of(base / model)):
                remove_version(base, model, number)
    return doomed


def versions_command(base: Path, server: str | None, as_json: bool) -> None:
    """`emotion-ai versions`."""
    found = list_versions(base, server)
    if as_json:
        Console().print_json(data=[vars(version) for version in found])
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("version", "labels", "state", "metrics", "parity", "checkpoint"):
        table.add_column(name, justify="right" if name == "version" else "left", overflow="fold")
    for version in found:
        states = sorted(set(version.states.values()))
        table.add_row(
            str(version.number),
            ", ".join(version.labels),
            states[0] if len(states) == 1 else "\n".join(f"{m} {s}" for m, s in version.states.items()),
            "\n".join(f"{name} {value:.4g}" for name, value in version.metrics.items()),
            "no proof" if version.parity is None else f"{version.parity:.0%} of allowed",
            "\n".join(f"{task} {revision[:12]}" for task, revision in version.checkpoints.items()),
        )
    Console().print(table)


@contextmanager
def _configured(base: Path, label: str = FIRST_LABEL) -> Iterator[list[ModelConfig]]:
    """Holds the lock on a base path, and gives what its `models.config` lists."""
    if label not in LABELS:
        raise ConfigError(f"label {label!r}: choose one of {', '.join(LABELS)}")
    if not (base / CONFIG_FILE).is_file():
        raise ExportError(f"{base}: holds no {CONFIG_FILE}; publish with: emotion-ai export out={base}")
    with locked(base):
        yield parse((base / CONFIG_FILE).read_text())


def _move(
    base: Path, configs: list[ModelConfig], label: str, number: int | None, server: str | None, timeout: float
) -> None:
    moved = [_labelled(config, label, number) for config in configs]
    if server:
        try:
            if number is not None:
                _write(base, [replace(config, versions=(*_served(base, config), number)) for config in configs])
                for config in configs:
                    _wait_available(server, config.name, number, timeout)
            _write(
                base, [replace(c, versions=(*_served(base, c), *([] if number is None else [number]))) for c in moved]
            )
            for config in configs:
                _wait_labelled(server, config.name, label, number, timeout)
        except BaseException:
            _write(base, configs)
            raise
    _write(base, _settled(base, moved))


def _write(base: Path, configs: list[ModelConfig]) -> None:
    text = render([replace(config, versions=tuple(sorted(set(config.versions)))) for config in configs])
    if text != (base / CONFIG_FILE).read_text():
        replace_file(base / CONFIG_FILE, text)


def _labelled(config: ModelConfig, label: str, number: int | None) -> ModelConfig:
    others = {name: value for name, value in config.labels.items() if name != label}
    return replace(config, labels=others if number is None else {**others, label: number})


def _settled(base: Path, configs: list[ModelConfig]) -> list[ModelConfig]:
    """The policy: labelled versions and the newest."""
    return [replace(c, versions=tuple(sorted({*c.labels.values(), *versions_of(base / c.name)[-1:]}))) for c in configs]


def _served(base: Path, config: ModelConfig) -> tuple[int, ...]:
    return config.versions or tuple(versions_of(base / config.name)[-1:])


def _wait_available(server: str, model: Any, number: int, timeout: float) -> None:
    def available(client: FaceClient) -> bool:
        for entry in client.status():
            if int(entry["version"]) == number:
                problem = entry["status"]["error_message"]
                if entry["state"] == "END" and problem:
                    raise ExportError(f"{server}: cannot load {model} version {number}: {problem}")
                return str(entry["state"]) == "AVAILABLE"
        return False

    with FaceClient(server, model=model) as client:
        _wait(lambda: available(client), timeout, f"{server}: {model} version {number} is not AVAILABLE")


def _wait_labelled(server: str, model: Any, label: str, number: int | None, timeout: float) -> None:
    def moved(client: FaceClient) -> bool:
        try:
            return client.metadata()["model_spec"]["version"] == str(number)
        except ServerUnreachableError:
            raise
        except ClientError:
            return number is None

    with FaceClient(server, model=model, label=label) as client:
        _wait(lambda: moved(client), timeout, f"{server}: {label} of {model} has not moved to {number}")


def _wait(done: Callable[[], bool], timeout: float, complaint: str) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise ExportError(
                f"{complaint} after {timeout:g} s; does it poll this models.config "
                "(--model_config_file, --model_config_file_poll_wait_seconds=1)?"
            )
        time.sleep(_POLL)


def _before(base: Path) -> dict[str, int | None]:
    try:
        return dict(json.loads((base / BEFORE_FILE).read_text()))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ExportError(f"{base / BEFORE_FILE}: cannot be read ({error}); remove it") from error


def _named(configs: list[ModelConfig], label: str) -> int | None:
    return next((config.labels[label] for config in configs if label in config.labels), None)


def _labels(configs: list[ModelConfig]) -> list[str]:
    return sorted({label for config in configs for label in config.labels})


def _states(server: str) -> dict[str, dict[int, str]]:
    states = {}
    for model in SERVABLES:
        with FaceClient(server, model=model, retries=0) as client:
            try:
                states[model] = client.versions()
            except ServerUnreachableError:
                return {}
            except ClientError:
                states[model] = {}
    return states


def _record(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, "np") as opened:
            return dict(json.loads((opened.metadata() or {}).get("record", "{}")))
    except (SafetensorError, OSError, ValueError):
        return {}


def _parity(file: Path) -> float | None:
    try:
        proof = json.loads(file.read_text())
        return max(row["difference"] / row["tolerance"] for row in proof["rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
