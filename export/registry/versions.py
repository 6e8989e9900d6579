"""Labels and old versions: promote, roll back, prune.

Each change rewrites `models.config`, which the server polls, one step at a time: a version is loaded before a label
names it and dropped only after the label has moved, so no request finds neither.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ConfigError, ExportError
from emotion_ai.files import write_json
from emotion_ai.published import CONFIG_FILE, list_versions
from emotion_ai_export.registry.model_config import ModelConfig, read_config, replace_config
from emotion_ai_export.registry.publish import FIRST_LABEL, locked, published_numbers, remove_version
from emotion_ai_export.registry.watched_server import WatchedServer

VERSION_LABELS = ("stable", "canary")
PREVIOUS_FILE = ".before.json"  # the version that each label named before its last promotion


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
        common = set.intersection(*(set(list_versions(base / c.name)) for c in configs))
        number = max(common, default=0) if version is None else version
        if number not in common:
            missing = [c.name for c in configs if number not in list_versions(base / c.name)]
            raise ExportError(
                f"{base}: no version {number} of {', '.join(missing)}; list versions with: emotion-ai versions {base}"
            )
        current = _named(configs, label)
        if current != number:
            write_json(base / PREVIOUS_FILE, _previous(base) | {label: current}, sync=True)
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
        previous = _previous(base)
        if label not in previous:
            raise ExportError(f"{base}: {label} was never promoted; nothing to roll back to")
        number = previous[label]
        for config in configs:
            if number is not None and number not in list_versions(base / config.name):
                raise ExportError(
                    f"{base}: version {number}, which {label} named before, no longer exists; "
                    "choose another with: emotion-ai promote"
                )
        _move(base, configs, label, number, server)
    return number


def prune(base: Path, keep: int, server: WatchedServer | None = None) -> list[int]:
    """Deletes all versions but the newest `keep` and the labelled ones; returns the deleted numbers.

    Raises:
        ConfigError: `keep` below one.
        ExportError: the server does not serve the remaining versions. Nothing was deleted.
        ClientError: the server does not respond.
    """
    if keep < 1:
        raise ConfigError(f"keep must be >= 1, got {keep}; the newest version is always kept")
    with _configured(base) as configs:
        labelled = {number for config in configs for number in config.labels.values()}
        doomed = [number for number in published_numbers(base)[:-keep] if number not in labelled]
        configs = _settled(base, configs)
        _write(base, configs)
        if server:  # the newest may have failed to load, and an older one be served in its place
            for config in configs:
                for number in config.versions:
                    server.wait_available(config.name, number)
        for model in SERVABLES:
            for number in set(doomed) & set(list_versions(base / model)):
                remove_version(base, model, number)
    return doomed


@contextmanager
def _configured(base: Path, label: str = FIRST_LABEL) -> Iterator[list[ModelConfig]]:
    """Holds the lock of a published folder, and yields the models of its `models.config`."""
    if label not in VERSION_LABELS:
        raise ConfigError(f"label {label!r}: choose one of {', '.join(VERSION_LABELS)}")
    if not (base / CONFIG_FILE).is_file():
        raise ExportError(f"{base}: no {CONFIG_FILE} there; publish with: emotion-ai export out={base}")
    with locked(base):
        yield read_config(base)


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
    configs = [replace(config, versions=tuple(sorted(set(config.versions)))) for config in configs]
    if configs != read_config(base):
        replace_config(base, configs)


def _labelled(config: ModelConfig, label: str, number: int | None) -> ModelConfig:
    others = {name: value for name, value in config.labels.items() if name != label}
    return replace(config, labels=others if number is None else {**others, label: number})


def _settled(base: Path, configs: list[ModelConfig]) -> list[ModelConfig]:
    """The policy between changes: labelled versions and the newest."""
    return [
        replace(c, versions=tuple(sorted({*c.labels.values(), *list_versions(base / c.name)[-1:]}))) for c in configs
    ]


def _served(base: Path, config: ModelConfig) -> tuple[int, ...]:
    return config.versions or tuple(list_versions(base / config.name)[-1:])


def _previous(base: Path) -> dict[str, int | None]:
    try:
        return dict(json.loads((base / PREVIOUS_FILE).read_text()))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ExportError(f"{base / PREVIOUS_FILE}: not valid JSON ({error}); delete it") from error


def _named(configs: list[ModelConfig], label: str) -> int | None:
    return next((config.labels[label] for config in configs if label in config.labels), None)
