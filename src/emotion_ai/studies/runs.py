"""Training runs of a series. Each is trained once, however often the series is started."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from emotion_ai.errors import ConfigError
from emotion_ai.provenance import RunRecord
from emotion_ai.training import train as training
from emotion_ai.training.config import TrainConfig, changed_settings, recorded_settings
from emotion_ai.training.run_folder import check_same_data


def run(cfg: DictConfig) -> RunRecord:
    """The record of the training run in `cfg.out`, which is read if it is finished, resumed if it was killed.

    Raises:
        ConfigError: the folder holds a run with other settings or data, or the trainer takes several processes.
        CheckpointError: the record is damaged.
        EmotionAIError: as `train` does.
    """
    path = Path(cfg.out) / "run.json"
    network = path.with_name("network.safetensors")
    if "ddp" in str(cfg.trainer.get("strategy")):
        raise ConfigError("trainer=ddp: a series of runs takes one process; give trainer=cpu or trainer=gpu")
    finished = path.is_file() and network.is_file()
    if not finished:
        training.train(OmegaConf.merge(cfg, {"resume": True}))  # type: ignore[arg-type]
    record = RunRecord.read(path)
    if changed := changed_settings(recorded_settings(cfg), record.config):
        raise ConfigError(f"{path}: was made with {', '.join(changed)}; delete its folder or give another out")
    if finished:
        check_same_data({path: record}, training.load_splits(TrainConfig.of(cfg)).record())
    return record
