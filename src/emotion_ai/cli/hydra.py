"""The commands that are Hydra applications: train, cross-validate, evaluate and export."""

import sys
from typing import Any

from emotion_ai.cli.console import fail
from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.extras import load

HYDRA_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Context settings of a Typer command whose arguments are Hydra's."""


def run_stage(config: str, module: str, function: str) -> None:
    """Runs a stage as a Hydra application; its arguments are those after the stage's name."""
    hydra = load("hydra")
    run = getattr(load(module), function)
    original = sys.argv
    sys.argv = [original[0], *original[2:]]

    def application(cfg: Any) -> Any:
        sys.argv = original  # Lightning starts further processes with the same command
        try:
            if missing := sorted(load("omegaconf").OmegaConf.missing_keys(cfg)):
                raise ConfigError(f"emotion-ai {config}: {', '.join(missing)} must be given, e.g. {missing[0]}=...")
            return run(cfg)
        except EmotionAIError as error:
            fail(error)

    hydra.main(version_base="1.3", config_path="pkg://emotion_ai_conf", config_name=config)(application)()


def train() -> None:
    """Train a network: experiment=keypoints|emotion data.train=FILE trainer=cpu|cpu_bf16|gpu|ddp."""
    run_stage("train", "emotion_ai.training.train", "train")


def cross_validate() -> None:
    """Train and judge every fold: as train, with data.folds=5 and out=DIR, which takes up what is there."""
    run_stage("train", "emotion_ai.studies.cross_validation", "cross_validate")


def evaluate() -> None:
    """Judge a checkpoint: task=keypoints|emotion checkpoint=bundled|FILE data.path=FILE."""
    run_stage("evaluate", "emotion_ai.evaluation.stage", "evaluate")


def export() -> None:
    """Publish checkpoints as proven SavedModels: out=DIR checkpoint=bundled, or keypoints=FILE emotion=FILE."""
    run_stage("export", "emotion_ai_export.convert.stage", "export")
