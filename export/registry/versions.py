"""Labels and old versions: promote, roll back, prune.

Each change rewrites `models.config`, which the server polls, one step at a time: a version is loaded before a label
names it and dropped only after the label has moved, so no request finds neither.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ConfigError, ExportError
from emotion_ai.published import CONFIG_FILE, list_versions, partial_versions, whole_versions
from emotion_ai_export.registry.label_history import earlier_versions, read_history, remember
from emotion_ai_export.registry.model_config import (
    ModelConfig,
    read_config,
    read_own_config,
    relocated,
)
from emotion_ai_export.registry.publish import FIRST_LABEL
from emotion_ai_export.registry.rollout import VERSION_LABELS, Rollout, loaded, relabelled, settle, settled
from emotion_ai_export.registry.server_record import failed, take_back
from emotion_ai_export.registry.staging import locked, notice, remove_version
from emotion_ai_export.registry.watched_server import WatchedServer


def promote(
    base: Path, version: int | None = None, label: str = FIRST_LABEL, server: WatchedServer | None = None
) -> int:
    """Moves a label of all models to a version.

    Args:
        base: the published folder.
        version: its number; the newest that all models have, and no server failed to load, if not given.
        label: "stable" or "canary".
        server: waited for at each step; None only rewrites `models.config`.

    Returns:
        The version that the label names now.

    Raises:
        ConfigError: unknown label.
        ExportError: no such version, or the server did not load it. `models.config` is as before.
        ClientError: the server does not respond. `models.config` is as before.
    """
    with _configured(base, label) as configs:
        whole = whole_versions(base)
        good = [number for number in whole if number not in failed(base)]
        number = max(good or whole, default=0) if version is None else version
        if number not in whole:
            missing = [model for model in SERVABLES if number not in list_versions(base / model)]
            raise ExportError(
                f"{base}: no version {number} of {', '.join(missing)}; list versions with: emotion-ai versions {base}"
            )
        current = _named(configs, label)
        _move(base, configs, label, (current, number, current), server)
    return number


def rollback(base: Path, label: str = FIRST_LABEL, server: WatchedServer | None = None) -> int | None:
    """Moves a label back to the version that it named before its last promotion. A second call changes nothing.

    Returns:
        The version that the label names now; None if it named none before, and is removed.

    Raises:
        ConfigError: unknown label.
        ExportError: the label was never promoted, its earlier version was pruned, or the server did not load it.
        ClientError: the server does not respond.
    """
    with _configured(base, label) as configs:
        current = _named(configs, label)
        previous = earlier_versions(base, label, current)
        number = previous.get(current, [*previous.values()][-1] if previous else current)  # somebody may have moved it
        if label not in read_history(base) or (current not in previous and number == current):
            raise ExportError(f"{base}: {label} was never promoted; nothing to roll back to")
        if number is not None and number not in whole_versions(base):
            raise ExportError(
                f"{base}: version {number}, which {label} named before, no longer exists; "
                "choose another with: emotion-ai promote"
            )
        _move(base, configs, label, (current, number, number), server)
    return number


def prune(base: Path, keep: int, server: WatchedServer | None = None) -> list[int]:
    """Deletes all versions but the newest `keep` and the labelled ones; returns the deleted numbers.

    Remains of older versions, which not all models have, are deleted as well. A version disappears from all models or
    none; if the command is killed, the next one deletes what is left. Versions that no server could load do not count
    among the newest; newer ones stay. So do the newest that is served, and versions that other models' entries list.

    Raises:
        ConfigError: `keep` below one.
        ExportError: a version cannot be deleted, and the others were; or the server reads another folder's file.
        ClientError: the server does not respond, and nothing was deleted.
    """
    if keep < 1:
        raise ConfigError(f"keep must be >= 1, got {keep}; the newest version is always kept")
    with _configured(base) as configs:
        used = {number for config in configs for number in config.labels.values()}
        rollout = Rollout(base, server) if server else None
        if rollout:
            configs = rollout.agree(configs)
            states = rollout.server.states()
            used |= {number for config in configs for number in config.labels.values()}
            used |= {max((number for number in whole_versions(base) if loaded(states, number)), default=0)}
        whole = whole_versions(base)
        good = [number for number in whole if number not in failed(base)][-keep:]
        remains = [number for number in partial_versions(base) if whole and number < whole[-1]]
        configs = settled(base, configs)
        for config in [*configs, *(other for other in read_config(base) if other.name not in SERVABLES)]:
            used |= {*config.versions, *config.labels.values()}
        doomed = sorted(({number for number in whole if good and number < good[-1]} | {*remains}) - {*used, *good})
        settle(base, configs)
        if rollout:
            rollout.wait_unloaded(doomed)
        refused = []
        for number in doomed:
            try:
                remove_version(base, number)
            except ExportError as error:
                refused.append(error)
        if refused:
            raise refused[0]
    return doomed


@contextmanager
def _configured(base: Path, label: str = FIRST_LABEL) -> Iterator[list[ModelConfig]]:
    """Holds the lock of a published folder, and yields our models' entries in its `models.config`, with its paths."""
    if label not in VERSION_LABELS:
        raise ConfigError(f"label {label!r}: choose one of {', '.join(VERSION_LABELS)}")
    if not os.path.lexists(base / CONFIG_FILE):
        raise ExportError(f"{base}: no {CONFIG_FILE} there; publish with: emotion-ai export out={base}")
    with locked(base):
        configs, other = relocated(base, read_own_config(base))
        if missing := [model for model in SERVABLES if model not in [config.name for config in configs]]:
            raise ExportError(
                f"{base / CONFIG_FILE}: does not list {', '.join(missing)}; publish with: emotion-ai export out={base}"
            )
        if other:
            notice(f"{base / CONFIG_FILE}: named {other}, from which this folder was copied; it names this one now")
        yield [config for config in configs if config.name in SERVABLES]


def _move(
    base: Path,
    configs: list[ModelConfig],
    label: str,
    numbers: tuple[int | None, int | None, int | None],
    server: WatchedServer | None,
) -> None:
    """Moves a label. `numbers` are those that it names now and then, and that a rollback leads to afterwards."""
    current, number, previous = numbers

    def record() -> None:
        if current != number:
            remember(base, label, current, number, previous)

    if server:
        moved = Rollout(base, server).move(configs, label, number, record)
    else:
        record()
        moved = [relabelled(config, label, number) for config in configs]
        if number is not None:
            take_back(base, number)
    settle(base, moved)


def _named(configs: list[ModelConfig], label: str) -> int | None:
    return next((config.labels[label] for config in configs if label in config.labels), None)
