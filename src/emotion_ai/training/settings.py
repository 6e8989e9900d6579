"""A run's settings: that each is of its kind and in its range, and those that make the run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from emotion_ai.contract import CROP_SIZE
from emotion_ai.errors import ConfigError

Wanted = tuple[str, Callable[[Any], bool]]


def _number(words: str, holds: Callable[[float], bool]) -> Wanted:
    return f"a number {words}", lambda value: type(value) in (int, float) and holds(value)


def _whole(low: int, high: float = math.inf) -> Wanted:
    words = f"a whole number from {low} {'on' if math.isinf(high) else f'to {high}'}"
    return words, lambda value: type(value) is int and low <= value <= high


_AMOUNT = _number("from 0 on", lambda value: 0 <= value < math.inf)
_SHARE = _number("from 0 to 1", lambda value: 0 <= value <= 1)
_LESS_THAN_ALL = _number("from 0 to below 1", lambda value: 0 <= value < 1)
_PART = _number("between 0 and 1", lambda value: 0 < value < 1)
_WANTED = {
    "seed": _whole(0, 2**31 - 1),
    "epochs": _whole(1),
    "batch": _whole(1),
    "ema": _LESS_THAN_ALL,
    "patience": _whole(0),
    "distil": _SHARE,
    "distil_shift": _whole(0, CROP_SIZE // 2),
    "data.count": _whole(1),
    "data.select": _PART,
    "data.folds": _whole(2),
    "data.fold": _whole(0),
    "model.dropout": _LESS_THAN_ALL,
    "task.optimizer.lr": _AMOUNT,
    "task.optimizer.weight_decay": _AMOUNT,
    "task.balance": _AMOUNT,
    "task.smoothing": _SHARE,
    "task.mixup": _AMOUNT,
    "task.votes": _SHARE,
    "task.beta": _AMOUNT,
}
_OPTIONAL = ("data.folds",)


def check(cfg: DictConfig) -> None:
    """Refuses, before anything is loaded, what contradicts itself, is of the wrong kind or out of its range.

    Raises:
        ConfigError: the first such setting.
    """
    split, folds = cfg.data.split, cfg.data.folds
    if split is not None and folds is not None:
        raise ConfigError("data.split and data.folds contradict each other; give one of them")
    wanted = _WANTED | {f"task.augment.{name}": _AMOUNT for name in cfg.task.augment}
    absent = object()  # of the other task
    for key, (words, holds) in wanted.items():
        value = OmegaConf.select(cfg, key, default=absent)
        if value is not absent and not (value is None and key in _OPTIONAL) and not holds(value):
            raise ConfigError(f"{key}={value}: wanted is {words}")
    if folds is not None and cfg.data.fold >= folds:
        raise ConfigError(f"data.fold={cfg.data.fold}: with data.folds={folds} wanted is 0 to {folds - 1}")
    if split is not None and not (isinstance(split, ListConfig) and len(split) == 3 and all(map(_SHARE[1], split))):
        raise ConfigError(f"data.split={split}: wanted are three shares, of training, choices and report")
    if not isinstance(cfg.report, bool):
        raise ConfigError(f"report={cfg.report}: wanted is true or false")


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """The choices that make the run; of places only the ends, fingerprints say the rest."""
    settings: dict[str, Any] = OmegaConf.to_object(cfg)  # type: ignore[assignment]
    for key in ("train", "val", "votes"):
        settings["data"][key] = settings["data"][key] and Path(settings["data"][key]).name
    settings["init"] = settings["init"] and _tail(settings["init"])
    settings["teachers"] = [_tail(teacher) for teacher in settings["teachers"]]
    return {key: value for key, value in settings.items() if key not in ("resume", "out")}


def _tail(checkpoint: str) -> str:
    """A checkpoint's folder and name, which tell one run from another."""
    return "/".join(Path(checkpoint).parts[-2:])
