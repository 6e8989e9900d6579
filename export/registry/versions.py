"""Labels and old versions: promote, roll back, prune.

Each change rewrites `models.config`, which the server polls, one step at a time: a version is loaded before a label
names it and dropped only after the label has moved, so no request finds neither.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ConfigError, ExportError
from emotion_ai.files import read_text, write_json
from emotion_ai.published import CONFIG_FILE, PREVIOUS_FILE, list_versions, partial_versions, whole_versions
from emotion_ai_export.registry.model_config import ModelConfig, read_config, read_own_config, replace_config
from emotion_ai_export.registry.publish import FIRST_LABEL
from emotion_ai_export.registry.staging import locked, remove_version
from emotion_ai_export.registry.watched_server import WatchedServer

_NONE = "none"  # a label that is not set, as a key of JSON
_KEY = re.compile(rf"{_NONE}|[0-9]{{1,18}}")
VERSION_LABELS = ("stable", "canary")


def promote(
    base: Path, version: int | None = None, label: str = FIRST_LABEL, server: WatchedServer | None = None
) -> int:
    """Moves a label of all models to a version.

    Args:
        base: the published folder.
        version: its number; the newest that all models have if not given.
        label: "stable" or "canary".
        server: waited for at each step; None only rewrites `models.config`.

    Returns:
        The version that the label names now.

    Raises:
        ConfigError: unknown label.
        ExportError: no such version, or the server did not load it. `models.config` is unchanged.
        ClientError: the server does not respond.
    """
    with _configured(base, label) as configs:
        whole = whole_versions(base)
        number = max(whole, default=0) if version is None else version
        if number not in whole:
            missing = [model for model in SERVABLES if number not in list_versions(base / model)]
            raise ExportError(
                f"{base}: no version {number} of {', '.join(missing)}; list versions with: emotion-ai versions {base}"
            )
        current = _named(configs, label)
        if current != number:
            _remember(base, label, current, number, current)
        _move(base, configs, label, number, server)
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
        previous = _previous(base, label, current)
        if label not in _read_previous(base):
            raise ExportError(f"{base}: {label} was never promoted; nothing to roll back to")
        number = previous.get(current, [*previous.values()][-1])  # somebody else may have moved the label
        if number is not None and number not in whole_versions(base):
            raise ExportError(
                f"{base}: version {number}, which {label} named before, no longer exists; "
                "choose another with: emotion-ai promote"
            )
        if current != number:
            _remember(base, label, current, number, number)
        _move(base, configs, label, number, server)
    return number


def prune(base: Path, keep: int, server: WatchedServer | None = None) -> list[int]:
    """Deletes all versions but the newest `keep` and the labelled ones; returns the deleted numbers.

    Remains of older versions, which not all models have, are deleted as well. A version disappears from all models or
    none; if the command is killed, the next one deletes what is left.

    Raises:
        ConfigError: `keep` below one.
        ExportError: the server does not serve the remaining versions, and nothing was deleted; or a version cannot be
            deleted, and the others were.
        ClientError: the server does not respond.
    """
    if keep < 1:
        raise ConfigError(f"keep must be >= 1, got {keep}; the newest version is always kept")
    with _configured(base) as configs:
        whole = whole_versions(base)
        remains = [number for number in partial_versions(base) if whole and number < whole[-1]]
        listed = read_config(base)
        used = {number for config in listed for number in config.labels.values()}
        used |= {number for config in listed if config.name not in SERVABLES for number in config.versions}
        doomed = sorted({*whole[:-keep], *remains} - used)
        configs = _settled(base, configs)
        _write(base, configs)
        if server:  # the newest may have failed to load, and an older one be served in its place
            for config in configs:
                for number in config.versions:
                    server.wait_available(config.name, number)
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
    """Holds the lock of a published folder, and yields the models of its `models.config`."""
    if label not in VERSION_LABELS:
        raise ConfigError(f"label {label!r}: choose one of {', '.join(VERSION_LABELS)}")
    if not os.path.lexists(base / CONFIG_FILE):
        raise ExportError(f"{base}: no {CONFIG_FILE} there; publish with: emotion-ai export out={base}")
    with locked(base):
        configs = read_own_config(base)
        if missing := [model for model in SERVABLES if model not in [config.name for config in configs]]:
            raise ExportError(
                f"{base / CONFIG_FILE}: does not list {', '.join(missing)}; publish with: emotion-ai export out={base}"
            )
        yield [config for config in configs if config.name in SERVABLES]


def _move(base: Path, configs: list[ModelConfig], label: str, number: int | None, server: WatchedServer | None) -> None:
    moved = [_labelled(config, label, number) for config in configs]
    added = [] if number is None else [number]
    if server:
        try:
            if number is not None:
                _write(base, [replace(config, versions=(*_served(base, config), number)) for config in configs])
                for config in configs:
                    server.wait_available(config.name, number)
            _write(base, [replace(config, versions=(*_served(base, config), *added)) for config in moved])
            for config in configs:
                server.wait_label(config.name, label, number)
        except BaseException:
            _write(base, configs)
            raise
    _write(base, _settled(base, moved))


def _write(base: Path, configs: list[ModelConfig]) -> None:
    """Replaces our models' entries, if they differ; those of other models stay."""
    entries = {config.name: replace(config, versions=tuple(sorted(set(config.versions)))) for config in configs}
    listed = read_config(base)
    changed = [entries.get(config.name, config) for config in listed]
    if changed != listed:
        replace_config(base, changed)


def _labelled(config: ModelConfig, label: str, number: int | None) -> ModelConfig:
    others = {name: value for name, value in config.labels.items() if name != label}
    return replace(config, labels=others if number is None else {**others, label: number})


def _settled(base: Path, configs: list[ModelConfig]) -> list[ModelConfig]:
    """The policy between changes: labelled versions and the newest."""
    return [replace(c, versions=tuple(sorted({*c.labels.values(), *whole_versions(base)[-1:]}))) for c in configs]


def _served(base: Path, config: ModelConfig) -> tuple[int, ...]:
    return config.versions or tuple(whole_versions(base)[-1:])


def _previous(base: Path, label: str, current: int | None) -> dict[int | None, int | None]:
    """What a label named before, by what it names now; the last entry is that of its last promotion.

    An entry holds only while the label names its key, so one of a promotion that was killed or failed does no harm.
    """
    entries = _read_previous(base).get(label, {})
    if not isinstance(entries, dict):  # written by version 0.1: of the last promotion alone
        return {current: entries}
    return {None if key == _NONE else int(key): value for key, value in entries.items()}


def _remember(base: Path, label: str, current: int | None, number: int | None, previous: int | None) -> None:
    """Records before a label moves from `current` to `number` that a rollback from there leads to `previous`."""
    known = _previous(base, label, current)
    entries = {key: known[key] for key in (current,) if key in known and key != number} | {number: previous}
    record = {_NONE if key is None else str(key): value for key, value in entries.items()}
    write_json(base / PREVIOUS_FILE, _read_previous(base) | {label: record}, sync=True)


def _read_previous(base: Path) -> dict[str, Any]:
    file = base / PREVIOUS_FILE
    try:
        found = json.loads(read_text(file))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not valid JSON ({error})"
        raise ExportError(f"{file}: {reason}; delete it") from error
    if not _is_record(found):
        raise ExportError(f"{file}: not the labels' earlier versions; delete it")
    return found


def _is_record(found: Any) -> bool:
    def is_number(value: Any) -> bool:
        return value is None or type(value) is int

    def is_entry(value: Any) -> bool:
        if not isinstance(value, dict):
            return is_number(value)
        return bool(value) and all(_KEY.fullmatch(key) for key in value) and all(map(is_number, value.values()))

    return isinstance(found, dict) and all(map(is_entry, found.values()))


def _named(configs: list[ModelConfig], label: str) -> int | None:
    return next((config.labels[label] for config in configs if label in config.labels), None)
