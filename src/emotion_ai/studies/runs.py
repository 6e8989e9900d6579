"""Training runs that belong to a series: each is finished once, however often the series is started."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from emotion_ai.errors import ConfigError
from emotion_ai.training.settings import settings_of
from emotion_ai.training.train import train


def run(cfg: DictConfig) -> dict[str, Any]:
    """The record of the training run in `cfg.out`: a finished one is read, a killed one goes on from its last epoch.

    Raises:
        ConfigError: the folder holds a run with other settings, or the trainer takes several processes.
        EmotionAIError: as `train` does.
    """
    path = Path(cfg.out) / "run.json"
    if "ddp" in str(cfg.trainer.get("strategy")):
        raise ConfigError("trainer=ddp: a series of runs takes one process; give trainer=cpu or trainer=gpu")
    if not path.is_file():
        train(OmegaConf.merge(cfg, {"resume": True}))  # type: ignore[arg-type]
    record: dict[str, Any] = json.loads(path.read_text())
    settings = settings_of(cfg)
    if changed := sorted(key for key in settings if settings[key] != record["config"].get(key)):
        raise ConfigError(f"{path}: was made with another {', '.join(changed)}; delete its folder or give another out")
    return record
