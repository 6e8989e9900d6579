"""The trials of a sweep: where they are stored, what they try, and how a training run reports to its trial."""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigTypeError
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import Trial, TrialState, create_trial
from sqlalchemy import URL

from emotion_ai.errors import ConfigError
from emotion_ai.schema import Range, bind
from emotion_ai.training.config import TrainConfig

_COUNT = Annotated[int, Range(ge=1)]
_SHARED = ("out", "resume", "test", "logger", "seed", "data", "classes")  # the last three decide the validation split


@dataclass(frozen=True)
class SweepConfig:
    """Settings of a sweep; `conf/sweep/default.yaml` holds the values.

    Attributes:
        trials: at the end, those of earlier starts included.
        workers: trials at the same time.
        sampler: "tpe" (Bergstra et al. 2011, NeurIPS 24) or "random".
        prune: ends a trial that is worse than the median of the earlier ones at the same epoch.
        prune_after: epochs of a trial before it may be pruned.
        start: trials before the sampler learns from them and any is pruned.
        space: nested as the settings are; `low` and `high` with `log` or `step`, or `choices`.
    """

    trials: _COUNT
    workers: _COUNT
    sampler: Literal["tpe", "random"]
    prune: bool
    prune_after: Annotated[int, Range(ge=0)]
    start: _COUNT
    space: dict[str, Any]

    def distributions(self, recipe: DictConfig) -> dict[str, BaseDistribution]:
        """What each setting of a recipe may be, by dotted key: whole numbers if its own value and the bounds are whole.

        Raises:
            ConfigError: no setting, one that the recipe lacks or that trials share, or values that it cannot have.
        """
        found = {key: _distribution(key, tried, recipe) for key, tried in _tried(self.space)}
        if not found:
            raise ConfigError("sweep.space is empty; give e.g. +sweep.space.optimizer.lr.low=1e-4 and .high=1e-2")
        return found


@dataclass(frozen=True)
class _Numbers:
    low: float
    high: float
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class _Choices:
    choices: tuple[Any, ...]


def _tried(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, _Numbers | _Choices]]:
    for name, node in space.items():
        key = f"{prefix}{name}"
        if not isinstance(node, Mapping):
            raise ConfigError(f"sweep.space.{key}={node}: give {key}.low and .high, or {key}.choices")
        if "choices" in node and node.keys() & {"low", "high"}:
            raise ConfigError(
                f"sweep.space.{key} has bounds and choices; take them away by ~sweep.space.{key}, then give one"
            )
        if node.keys() & {"low", "high", "choices"}:
            path = f"sweep.space.{key}."
            yield key, bind(_Choices, node, path) if "choices" in node else bind(_Numbers, node, path)
        else:
            yield from _tried(node, f"{key}.")


def _distribution(key: str, tried: _Numbers | _Choices, recipe: DictConfig) -> BaseDistribution:
    try:
        own = OmegaConf.select(recipe, key, default=...)
        if own is ...:
            raise ValueError(f"the recipe has no setting {key}")
        if key.split(".")[0] in _SHARED:
            raise ValueError("is the same in all trials; leave it out")
        if not _is_scalar(own):
            raise ValueError("is a list or a group; give its entries, each by its own key")
        found = _choice(tried) if isinstance(tried, _Choices) else _number(tried, own)
        for value in found.choices if isinstance(found, CategoricalDistribution) else (found.low, found.high):
            TrainConfig.of(with_settings(recipe, {key: value}))
    except (ValueError, ConfigError, ConfigTypeError) as error:
        raise ConfigError(f"sweep.space.{key}: {' '.join(str(error).split())}") from error
    return found


def _choice(tried: _Choices) -> CategoricalDistribution:
    if not all(map(_is_scalar, tried.choices)) or len(set(tried.choices)) < len(tried.choices):
        raise ValueError("choices must be different numbers, texts, true, false or null; no lists, groups or nan")
    return CategoricalDistribution(tried.choices)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _number(tried: _Numbers, own: Any) -> IntDistribution | FloatDistribution:
    if isinstance(own, bool | str):
        raise ValueError(f"the recipe's value {own} is no number; give choices")
    if not math.isfinite(tried.high - tried.low):
        raise ValueError("low and high must be finite")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as a step that does not divide the range
        try:
            if not any(isinstance(value, float) for value in (own, tried.low, tried.high, tried.step)):
                step = 1 if tried.step is None else tried.step
                return IntDistribution(tried.low, tried.high, tried.log, step)  # type: ignore[arg-type]
            return FloatDistribution(tried.low, tried.high, tried.log, tried.step)
        except UserWarning as error:
            raise ValueError(error) from error


def with_settings(recipe: DictConfig, settings: Mapping[str, Any]) -> DictConfig:
    """A copy of a recipe with other values, by dotted key."""
    cfg = copy.deepcopy(recipe)
    for key, value in settings.items():
        OmegaConf.update(cfg, key, value)
    return cfg


def open_study(out: Path, mode: str, settings: SweepConfig) -> optuna.Study:
    """The study in `out/study.db`, which is made if it is missing.

    Args:
        mode: "min" or "max".

    Raises:
        ConfigError: the file cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    address = URL.create("sqlite", database=str(out / "study.db")).render_as_string()
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if settings.prune:
        pruner = optuna.pruners.MedianPruner(settings.start, settings.prune_after)
    try:
        storage = optuna.storages.RDBStorage(address, {"connect_args": {"timeout": 100}})
        return optuna.create_study(
            storage=storage,
            study_name="sweep",
            direction="minimize" if mode == "min" else "maximize",
            pruner=pruner,
            load_if_exists=True,
        )
    except Exception as error:  # SQLAlchemy's, of a damaged file or another program's
        raise ConfigError(f"{out / 'study.db'}: cannot be used ({str(error).splitlines()[0]})") from error


def open_trial(study: optuna.Study, number: int) -> Trial:
    """A stored trial that can be reported to."""
    return Trial(study, study.trials[number]._trial_id)


def next_trial(
    study: optuna.Study, space: dict[str, BaseDistribution], own: dict[str, Any], seed: int, settings: SweepConfig
) -> int:
    """The number of a new trial. What it tries depends on the seed, its number and the trials before alone.

    It is drawn in a copy and stored in one transaction: a kill leaves a whole trial, or none.

    Args:
        own: the recipe's values, which the first trial has if they lie in the space.
    """
    number = len(study.trials)
    params = own
    if number or not _contains(space, own):
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed + number)
        if settings.sampler == "tpe":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                sampler = optuna.samplers.TPESampler(
                    n_startup_trials=settings.start, multivariate=True, seed=seed + number
                )
        drawn = optuna.create_study(sampler=sampler, direction=study.direction)
        drawn.add_trials(study.trials)
        params = drawn.ask(space).params
    study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=space))
    return number


def _contains(space: dict[str, BaseDistribution], values: dict[str, Any]) -> bool:
    try:
        create_trial(params=values, distributions=space, value=0.0)
    except (ValueError, TypeError):
        return False
    return True


class Report(pl.Callback):
    """Reports the validation metric of each epoch to a trial, and ends a training run that is not promising.

    Args:
        out: the sweep's folder.
        number: of the trial.
        sweep: the sweep's settings.

    Raises:
        optuna.TrialPruned: from `fit`.
        ConfigError: from `fit`: the metric is not finite.
    """

    def __init__(self, out: str, number: int, sweep: dict[str, Any]) -> None:
        self.out, self.number, self.settings = Path(out), number, bind(SweepConfig, sweep, "sweep.")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        trial = open_trial(open_study(self.out, str(pl_module.mode), self.settings), self.number)
        metric = str(pl_module.monitor)
        value = float(trainer.callback_metrics[metric])
        if not math.isfinite(value):
            raise ConfigError(f"{metric} is {value} after epoch {trainer.current_epoch}; give a lower optimizer.lr")
        if trainer.current_epoch not in trial.study.trials[self.number].intermediate_values:
            trial.report(value, trainer.current_epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
