"""Hydra's arguments: old spellings, quoting, the folders of a sweep, and errors as one line."""

import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from emotion_ai.errors import ConfigError
from emotion_ai.legacy import translate_overrides
from emotion_ai.schema import unknown_key

_MULTIRUN = ("-m", "--multirun")
_LONGEST_NAME = 120


def prepare(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """Arguments for Hydra, and a one-line notice if they had old spellings.

    With `-m` each job gets a folder of its own below `out`, or below `runs/sweeps`.

    Raises:
        ConfigError: an override that Hydra's grammar cannot read.
    """
    given = [text for text in arguments if _is_override(text)]
    flags = [text for text in arguments if not _is_override(text)]
    overrides, notice = translate_overrides(given)
    parser = OverridesParser.create()
    for text in overrides:
        _check_grammar(text, parser)
    # any argument of the Trainer may be given, with or without the + for a new key
    overrides = [f"++{text}" if text.startswith("trainer.") else text for text in overrides]
    if any(flag in _MULTIRUN for flag in flags):
        OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
        overrides = _sweep_folders(overrides, parser)
    return [*flags, *overrides], notice


def job_folder(overrides: str) -> str:
    """The name of a job's folder: its swept overrides, with a hash if they are long or have special characters."""
    plain = re.sub(r"[^\w=,.+-]", "_", overrides)[:_LONGEST_NAME]
    return (plain or "job") if plain == overrides else f"{plain}-{_digest(overrides)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def explained(error: Exception, config: str, arguments: Sequence[str]) -> ConfigError:
    """Hydra's error as one line that says what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return ConfigError(f"{group}={choice}: {unknown_key(choice, error.options).replace('setting', 'choice')}")
    if match := re.match(r"Ambiguous value for argument '(.+?)=(.*?)' 1\. To use", text):
        key, value = match.groups()
        single = shlex.quote(f"{key}={_quoted(value)}")
        return ConfigError(
            f"{key}={value} has several values: add -m for one run each, or quote a single one: {single}"
        )
    if match := re.match(r"Error parsing override '(.+?)' missing EQUAL", text):
        return ConfigError(f"{match[1]}: not a setting; write key=value")
    if match := re.match(r"Could not override '([\w.@/]+)'\.", text):
        key = match[1].partition("@")[0]
        return ConfigError(unknown_key(key, _known_keys(config, key, arguments)))
    return ConfigError(text.removesuffix("See https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details"))


def how_to_continue(out: str, resume: bool) -> str:
    """What to tell somebody who has stopped a training command.

    Args:
        out: the folder it wrote to.
        resume: it is a single run, which needs `resume=true`.
    """
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return "stopped; start the same command again to continue"
    plain = f"out={out}"
    setting = plain if _parses(plain, OverridesParser.create()) else f"out={_quoted(out)}"
    return f"stopped; to continue, add to the command: {shlex.quote(setting)}{' resume=true' if resume else ''}"


def _is_override(text: str) -> bool:
    return not text.startswith("-") and ("=" in text or text.startswith("~"))


def _check_grammar(text: str, parser: OverridesParser) -> None:
    if _parses(text, parser):
        return
    key, _, value = text.partition("=")
    if value.startswith("["):
        items = [part.strip() for part in value.strip("[]").split(",")]
        better = "[" + ",".join(item if _parses(f"key={item}", parser) else _quoted(item) for item in items) + "]"
    else:
        better = _quoted(str(Path(value).expanduser()) if value.startswith("~") else value)
    suggestion = f"{key}={better}"
    if not _parses(suggestion, parser):
        raise ConfigError(f"{text}: not a setting; write key=value")
    raise ConfigError(f"{text}: special characters need quotes; write {shlex.quote(suggestion)}")


def _parses(text: str, parser: OverridesParser) -> bool:
    try:
        parser.parse_override(text)
    except HydraException:
        return False
    return True


def _quoted(value: str) -> str:
    """A string in Hydra's grammar."""
    return '"' + value.strip("'\"").replace('"', '\\"') + '"'


def _sweep_folders(overrides: list[str], parser: OverridesParser) -> list[str]:
    """Overrides with which every job of a sweep writes to its own folder, the same one when started again.

    A job's folder is named after the values that are swept. Without `out` the folder above is named after the others.
    """
    parsed = [parser.parse_override(text) for text in overrides]
    out = [override for override in parsed if override.key_or_group == "out"]
    if any(override.is_sweep_override() for override in out):
        return overrides  # each job was given its own
    kept = [text for text, override in zip(overrides, parsed, strict=True) if override.key_or_group != "out"]
    fixed = {
        override.key_or_group: text
        for text, override in zip(overrides, parsed, strict=True)
        if not override.is_sweep_override() and override.key_or_group not in ("out", "resume")
    }
    base = str(out[-1].value()) if out else f"runs/sweeps/{_digest(' '.join(sorted(fixed.values())))}"
    excluded = ",".join(["out", "resume", *fixed])
    return [
        *kept,
        f"hydra.sweep.dir={_quoted(base)}",
        f"hydra.job.config.override_dirname.exclude_keys=[{excluded}]",
        "out=${hydra:runtime.output_dir}",
    ]


def _known_keys(config: str, key: str, arguments: Sequence[str]) -> list[str]:
    """Dotted keys of the config, with the other overrides where they compose."""
    others = [text for text in arguments if _is_override(text) and not text.lstrip("+~").startswith(f"{key}=")]
    for overrides in ([text for text in others if "hydra" not in text], []):
        GlobalHydra.instance().clear()
        try:
            with initialize_config_module("emotion_ai_conf", version_base="1.3"):
                return _dotted(compose(config, overrides))
        except (HydraException, OmegaConfBaseException):
            continue
    return []


def _dotted(cfg: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in map(str, cfg):
        keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(cfg, key) and isinstance(node := cfg._get_node(key), DictConfig):
            keys += _dotted(node, f"{prefix}{key}.")
    return keys
