"""The commands that are Hydra applications: train, cross-validate, evaluate and export."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from emotion_ai.cli.console import fail
from emotion_ai.cli.signals import terminable
from emotion_ai.errors import TERMINATED, ConfigError, EmotionAIError
from emotion_ai.extras import load
from emotion_ai.terminal import Console

HYDRA_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Context settings of a Typer command whose arguments are Hydra's."""


def run_stage(
    config: str, module: str, function: str, defaults: Sequence[str] = (), short: Mapping[str, str] | None = None
) -> None:
    """Runs a stage as a Hydra application; its arguments are those after the stage's name, and `defaults`. `short` has
    further names of settings: Hydra itself takes `data=FILE` for a choice of the group `data`.

    Errors in settings, Hydra's own included, are one line on stderr, and exit with 2. Ctrl-C exits with 130 and SIGTERM
    with 143; a training command then says how to continue.
    """
    hydra, overrides = load("hydra"), load("emotion_ai.cli.overrides")
    run = getattr(load(module), function)
    original = sys.argv
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise errors rather than print them

    def application(cfg: Any) -> Any:
        sys.argv = original  # Lightning starts further processes with the same command
        try:
            if missing := sorted(load("omegaconf").OmegaConf.missing_keys(cfg)):
                raise ConfigError(f"emotion-ai {config}: {', '.join(missing)} must be given, e.g. {missing[0]}=...")
            return run(cfg)
        except (EmotionAIError, OSError) as error:
            fail(error)
        except (KeyboardInterrupt, SystemExit) as stop:
            if config == "train" and (isinstance(stop, KeyboardInterrupt) or stop.code == TERMINATED):
                note(overrides.how_to_continue(str(cfg.out), resume=function == "train_command"))
            raise

    def note(text: str) -> None:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # one of several processes speaks
            Console(stderr=True, soft_wrap=True).print(f"note: {text}", highlight=False)

    typed = [_in_full(argument, short or {}) for argument in original[2:]]
    given = {argument.partition("=")[0] for argument in typed}
    missing = [default for default in defaults if default.partition("=")[0] not in given]
    arguments, notice = overrides.prepare([*missing, *typed])
    if notice:
        note(notice)
    sys.argv = [original[0], *arguments]
    try:
        with terminable():
            hydra.main(version_base="1.3", config_path="pkg://emotion_ai_conf", config_name=config)(application)()
    except (load("hydra.errors").HydraException, load("omegaconf.errors").OmegaConfBaseException) as error:
        raise overrides.explained(error, config, arguments) from error
    finally:
        sys.argv = original


def _in_full(argument: str, names: Mapping[str, str]) -> str:
    name, equals, value = argument.partition("=")
    return f"{names.get(name, name)}{equals}{value}"


def train() -> None:
    """Train a network: experiment=keypoints|emotion data.train=FILE trainer=cpu|cpu_bf16|gpu|mps|ddp."""
    run_stage("train", "emotion_ai.cli.train", "train_command")


def cross_validate() -> None:
    """Train and test every fold: as train, with data.folds=5 and out=DIR; started again, it resumes."""
    run_stage("train", "emotion_ai.studies.cross_validation", "cross_validate")


def sweep() -> None:
    """Search settings of train with Optuna, on the validation split: as train, with out=DIR sweep.trials=20.

    Started again with the same out=, it resumes. sweep.space says what is tried.
    """
    run_stage("train", "emotion_ai.studies.sweep", "sweep", ["sweep=default"])


def evaluate() -> None:
    """Evaluate a checkpoint: task=keypoints|emotion checkpoint=bundled|FILE data.path=FILE."""
    run_stage("evaluate", "emotion_ai.evaluation.stage", "evaluate")


def export() -> None:
    """Publish checkpoints as proven SavedModels: out=DIR checkpoint=bundled, or keypoints=FILE emotion=FILE."""
    run_stage("export", "emotion_ai_export.convert.stage", "export", short={"data": "data.path"})
