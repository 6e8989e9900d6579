"""Sweeps: an Optuna study over the settings of `train`, judged on the validation split."""

import math
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import optuna
import torch
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from rich.progress import Progress
from rich.table import Table

from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.evaluation.plots import save, trials_plot
from emotion_ai.files import locked_folder, write_json
from emotion_ai.schema import bind
from emotion_ai.studies.runs import run
from emotion_ai.studies.trials import SweepConfig, next_trial, open_study, open_trial, with_settings
from emotion_ai.terminal import Console
from emotion_ai.training.config import TrainConfig, changed_settings, recorded_settings
from emotion_ai.training.modules import EmotionModule, KeypointModule

_MODULES: dict[str, type[EmotionModule | KeypointModule]] = {"emotion": EmotionModule, "keypoints": KeypointModule}


@dataclass(frozen=True)
class _Sweep:
    """What each trial needs: the recipe, the sweep's settings and space, and the metric with its direction."""

    recipe: DictConfig
    settings: SweepConfig
    space: dict[str, BaseDistribution]
    metric: str
    mode: str

    @property
    def out(self) -> Path:
        return Path(self.recipe.out)

    def study(self) -> optuna.Study:
        return open_study(self.out, self.mode, self.settings)


def sweep(cfg: DictConfig) -> dict[str, Any]:
    """Trains trials in `out/trial-0000`, …; leaves `study.db`, `sweep.json` and `sweep.png` in `cfg.out`.

    The first trial is the recipe unchanged, if its values lie in the space. Started again with the same `out`, finished
    trials are kept and killed ones resumed; with one worker, or `sampler=random`, the trials are those of a sweep that
    nobody stopped. `sweep.trials` and `sweep.workers` may be others than before. The test split is not used.

    Returns:
        What the best trial tried, by dotted key.

    Raises:
        ConfigError: settings that do not fit, a folder in use or with another sweep, or no trial that succeeded.
        EmotionAIError: as `train` does, of the recipe itself.
    """
    settings = bind(SweepConfig, OmegaConf.to_container(cfg.sweep, resolve=True), "sweep.")  # type: ignore[arg-type]
    recipe = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "sweep"])
    OmegaConf.update(recipe, "test", False)
    config = TrainConfig.of(recipe)
    module = _MODULES[config.task.name]
    this = _Sweep(recipe, settings, settings.distributions(recipe), module.monitor, module.mode)
    with locked_folder(this.out):
        study = this.study()
        _check_same(study, {"sweep": asdict(settings), "train": recorded_settings(recipe)})
        console = Console()
        with Progress(console=console, disable=settings.workers == 1) as progress:  # else each training has its own bar
            bar = progress.add_task("trials", total=settings.trials)
            for trial in _finished(study, this):
                console.print(f"trial {trial.number} of {settings.trials}: {_words(trial)}")
                progress.update(bar, completed=sum(one.state.is_finished() for one in study.trials))
                _write(study, this)
        return _show(study, this, console)


def _check_same(study: optuna.Study, settings: dict[str, Any]) -> None:
    free = {"trials": None, "workers": None}
    settings = settings | {"sweep": settings["sweep"] | free}
    before = study.user_attrs.get("settings")
    if before is None:
        study.set_user_attr("settings", settings)
    elif changed := changed_settings(settings, before):
        raise ConfigError(f"the sweep in this folder was made with {', '.join(changed)}; give another out=")


def _finished(study: optuna.Study, this: _Sweep) -> Iterator[FrozenTrial]:
    """Trains what is left of the trials, and yields each as it ends."""
    killed = [trial.number for trial in study.trials if trial.state == TrialState.RUNNING]
    own = {key: OmegaConf.select(this.recipe, key) for key in this.space}
    workers = this.settings.workers

    def numbers() -> Iterator[int]:
        yield from killed
        while len(study.trials) < this.settings.trials:
            yield next_trial(study, this.space, own, this.recipe.seed, this.settings)

    if workers == 1:
        yield from (_end(study, number, _run(number, this)) for number in numbers())
        return
    waiting, running = numbers(), _Workers(this)
    try:
        while True:
            while len(running) < workers and (number := next(waiting, None)) is not None:
                running.start(number)
            if not len(running):
                return
            yield from (_end(study, number, outcome) for number, outcome in running.ended())
    finally:
        running.stop()


@dataclass(frozen=True)
class _Outcome:
    """How a trial ended: its state, its validation metric, and the error of one that failed."""

    state: TrialState
    value: float | None = None
    error: str = ""


def _run(number: int, this: _Sweep) -> _Outcome:
    study = this.study()
    trial = open_trial(study, number)
    cfg = with_settings(this.recipe, trial.params | {"out": str(this.out / f"trial-{number:04d}")})
    try:
        if trial.should_prune():  # it was killed at that moment
            return _Outcome(TrialState.PRUNED)
        report = {"_target_": "emotion_ai.studies.trials.Report", "out": str(this.out), "number": number}
        report |= {"sweep": asdict(this.settings)}
        OmegaConf.update(cfg, "callbacks.sweep", report, force_add=True)
        value = run(cfg).metrics[this.metric]
    except optuna.TrialPruned:
        return _Outcome(TrialState.PRUNED)
    except EmotionAIError as error:
        if number == 0:  # most likely of the recipe itself
            raise
        return _Outcome(TrialState.FAIL, error=str(error))
    if not math.isfinite(value):
        return _Outcome(TrialState.FAIL, error=f"{this.metric} is {value}")
    return _Outcome(TrialState.COMPLETE, value)


def _end(study: optuna.Study, number: int, outcome: _Outcome) -> FrozenTrial:
    if outcome.error:
        open_trial(study, number).set_user_attr("error", outcome.error)
    return study.tell(number, outcome.value, outcome.state)


class _Workers:
    """Processes that train one trial each, and end with this one."""

    def __init__(self, this: _Sweep) -> None:
        quiet: DictConfig = OmegaConf.merge(this.recipe, {"trainer": {"enable_progress_bar": False}})  # type: ignore[assignment]
        self._this = replace(this, recipe=quiet)
        self._places = list(range(this.settings.workers))
        self._running: dict[Connection, tuple[int, int, Any]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        place = self._places.pop(0)
        process = context.Process(target=_work, args=(theirs, place, number, self._this), daemon=True)
        process.start()
        theirs.close()
        self._running[ours] = (number, place, process)

    def ended(self) -> Iterator[tuple[int, _Outcome]]:
        """Waits for trials that end; their numbers and outcomes.

        Raises:
            ConfigError: a process was killed.
        """
        ready = wait(list(self._running))
        for ours in [connection for connection in self._running if connection in ready]:
            number, place, process = self._running.pop(ours)
            self._places.append(place)
            try:
                outcome = ours.recv()
            except EOFError:
                process.join()
                raise ConfigError(
                    f"the process of trial {number} ended with {process.exitcode}; if memory ran out, give fewer "
                    "sweep.workers; the same command continues"
                ) from None
            process.join()
            if isinstance(outcome, Exception):
                raise outcome
            yield number, outcome

    def stop(self) -> None:
        for _, _, process in self._running.values():
            process.terminate()
            process.join()


def _work(ours: Connection, place: int, number: int, this: _Sweep) -> None:
    """A worker's process: its share of the processor, or one of the GPUs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    torch.set_num_threads(max((os.cpu_count() or 1) // this.settings.workers, 1))
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if gpus == [""]:
        gpus = [str(index) for index in range(torch.cuda.device_count())]
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    try:
        ours.send(_run(number, this))
    except (EmotionAIError, OSError) as error:
        ours.send(error)


def _words(trial: FrozenTrial) -> str:
    tried = _settings_of(trial.params)
    if trial.state == TrialState.FAIL:
        return f"failed with {tried}: {trial.user_attrs['error']}"
    if trial.state == TrialState.PRUNED:
        return f"pruned after epoch {trial.last_step} with {tried}"
    return f"{trial.value:.4f} with {tried}"


def _write(study: optuna.Study, this: _Sweep) -> None:
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "tried": trial.params,
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "epochs": [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
            **({"error": trial.user_attrs["error"]} if "error" in trial.user_attrs else {}),
        }
        for trial in study.trials
    ]
    write_json(this.out / "sweep.json", {"metric": this.metric, "mode": this.mode, "trials": trials})
    done = [trial for trial in study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if done:
        log = {key for key, distribution in this.space.items() if getattr(distribution, "log", False)}
        save(trials_plot(done, this.metric, this.mode, log), this.out / "sweep.png")


def _show(study: optuna.Study, this: _Sweep, console: Console) -> dict[str, Any]:
    """Prints the best trials; what the best one tried."""
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if not complete:
        raise ConfigError(f"{this.out}: no trial succeeded; sweep.json has their errors")
    _write(study, this)
    ranked = sorted(complete, key=lambda trial: (trial.value or 0.0) * (1 if this.mode == "min" else -1))
    table = Table("trial", this.metric, "tried", title=f"best of {len(study.trials)} trials", title_justify="left")
    for trial in ranked[:5]:
        table.add_row(str(trial.number), f"{trial.value:.4f}", _settings_of(trial.params))
    console.print(table)
    console.wrote(this.out / "sweep.json", "all trials")
    console.wrote(this.out / "sweep.png", "the same as a picture")
    return ranked[0].params


def _settings_of(params: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())
