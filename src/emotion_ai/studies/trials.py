"""The trials of a sweep: where they are stored, what they try, and how a training run reports to its trial."""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
import pytorch_lightning as pl
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import Trial, TrialState
from sqlalchemy import URL

from emotion_ai.errors import ConfigError
from emotion_ai.schema import Range, bind

_COUNT = Annotated[int, Range(ge=1)]


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

    def distributions(self) -> dict[str, BaseDistribution]:
        """What each setting may be, by dotted key.

        Raises:
            ConfigError: no setting, or bounds that make no sense.
        """
        found = dict(_distributions(self.space))
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


def _distributions(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, BaseDistribution]]:
    for name, node in space.items():
        key = f"{prefix}{name}"
        if not isinstance(node, Mapping):
            raise ConfigError(f"sweep.space.{key}={node}: give {key}.low and .high, or {key}.choices")
        if node.keys() & {"low", "high", "choices"}:
            try:
                yield key, _distribution(node, f"sweep.space.{key}.")
            except ValueError as error:
                raise ConfigError(f"sweep.space.{key}: {error}") from error
        else:
            yield from _distributions(node, f"{key}.")


def _distribution(node: Mapping[str, Any], path: str) -> BaseDistribution:
    if "choices" in node:
        return CategoricalDistribution(bind(_Choices, node, path).choices)
    numbers = bind(_Numbers, node, path)
    if not (math.isfinite(numbers.low) and math.isfinite(numbers.high)):
        raise ValueError("low and high must be finite")
    bounds = (numbers.low, numbers.high, *(() if numbers.step is None else (numbers.step,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as a step that does not divide the range
        try:
            if all(type(bound) is int for bound in bounds):
                return IntDistribution(int(numbers.low), int(numbers.high), numbers.log, int(numbers.step or 1))
            return FloatDistribution(numbers.low, numbers.high, numbers.log, numbers.step)
        except UserWarning as error:
            raise ValueError(" ".join(str(error).split())) from error


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


def next_trial(study: optuna.Study, own: dict[str, Any], seed: int, settings: SweepConfig) -> int:
    """The number of a new trial. What it tries depends on the seed, its number and the trials before alone.

    It is drawn in a copy and stored as a whole: a kill leaves no trial with a part of its settings.

    Args:
        own: the recipe's values, which the first trial has if they lie in the space.
    """
    number, space = len(study.trials), settings.distributions()
    params = own
    if number or not _contains(space, own):
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed + number)
        if settings.sampler == "tpe":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                sampler = optuna.samplers.TPESampler(
                    n_startup_trials=settings.start, multivariate=True, seed=seed + number
                )
        copy = optuna.create_study(sampler=sampler, direction=study.direction)
        copy.add_trials([trial for trial in study.trials if trial.state != TrialState.WAITING])
        params = copy.ask(space).params
    study.enqueue_trial(params)
    return study.ask(space).number


def _contains(space: dict[str, BaseDistribution], values: dict[str, Any]) -> bool:
    try:
        optuna.trial.create_trial(params=values, distributions=space, value=0.0)
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
