"""Makes `models.config` fit the folder that it lies in, before a server starts there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.published import CONFIG_FILE, list_versions
from emotion_ai_export.registry.loading import garbage_of
from emotion_ai_export.registry.model_config import ModelConfig, read_config, relocated, replace_config
from emotion_ai_export.registry.server_record import left_out
from emotion_ai_export.registry.staging import locked, notice


def fitting(base: Path, tell: Callable[[str], None] = lambda _: None) -> list[ModelConfig]:
    """The entries of `models.config` with paths of its own folder and versions that exist there.

    A server that is started with a version that does not exist waits for it with closed ports, and one that is started
    with a version that it cannot load ends. `tell` gets a line for each difference to the file.
    """
    file = base / CONFIG_FILE
    configs, other = relocated(base, read_config(base))
    ours = [(config.name, number) for config in configs if config.name in SERVABLES for number in config.versions]
    broken = {n: reason for name, n in ours if (reason := garbage_of(base / name / str(n)))} | left_out(base)
    if other:
        tell(f"{file}: named {other}, from which this folder was copied; it names this one now")
    lines: dict[str, None] = {}

    def fit(config: ModelConfig) -> ModelConfig:
        present = list_versions(base / config.name)
        if config.name not in SERVABLES or not config.versions or not present:
            return config
        labels = {label: number for label, number in config.labels.items() if number in present}
        for label, number in config.labels.items() - labels.items():
            lines[f"{file}: version {number}, which {label} named, does not exist; the label is removed"] = None
        for number in config.versions:
            if number not in present:
                lines[f"{file}: version {number} does not exist; it is no longer listed"] = None
            elif number in broken and number not in labels.values():
                lines[f"{file}: version {number} is left out ({broken[number]})"] = None
        kept = [n for n in config.versions if n in present and (n not in broken or n in labels.values())]
        newest = [number for number in present if number not in broken][-1:] or present[-1:]
        return replace(config, versions=tuple(kept or newest), labels=labels)

    fitted = [fit(config) for config in configs]
    for line in lines:
        tell(line)
    return fitted


def fit_config(base: Path) -> None:
    """Rewrites `models.config` if it does not fit its folder; one line on stderr for each difference."""
    listed = read_config(base)
    if fitting(base) == listed:
        return
    try:
        with locked(base):
            replace_config(base, fitting(base, notice))
    except (ExportError, OSError) as error:
        notice(f"{error}; the server gets a copy of {CONFIG_FILE} that fits, and follows no promotion")
