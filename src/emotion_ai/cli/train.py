"""What `emotion-ai train` does with a composed config: one run, or one job of a sweep, and a table at its end."""

from collections.abc import Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig
from rich.table import Table

from emotion_ai.studies.runs import run
from emotion_ai.terminal import Console
from emotion_ai.training.train import train

_WRITTEN = {
    "network.safetensors": "weights of the best epoch, calibrated",
    "best.ckpt": "the same before calibration, for init_from and teachers",
    "last.ckpt": "last epoch, for resume=true",
    "run.json": "settings, data, metrics, versions",
    "csv": "metrics of every step",
    "tensorboard": "the same for TensorBoard",
}
_SPLITS = {"val": "val (chose the epoch)", "test": "test"}


def train_command(cfg: DictConfig) -> dict[str, float]:
    """Trains and prints the metrics. With `-m` a finished job is only read, and a killed one resumed."""
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    metrics = run(cfg).metrics if sweep else train(cfg)
    if getattr(rank_zero_only, "rank", 0) == 0:
        show_results(Console(), cfg.task.name, metrics, Path(cfg.out))
    return metrics


def show_results(console: Console, task: str, metrics: Mapping[str, float], out: Path) -> None:
    """Prints each metric with its split, and what lies in the run's folder."""
    table = Table(title=f"{task}: the network in {out.name}", title_justify="left")
    table.add_column("metric")
    table.add_column("split")
    table.add_column("value", justify="right")
    for key, value in metrics.items():
        split, _, name = key.rpartition("/")
        table.add_row(name + (" (px)" if name == "rmse" else ""), _SPLITS.get(split, split), f"{value:.4f}")
    console.print(table)
    written = {name: words for name, words in _WRITTEN.items() if (out / name).exists()}
    if not written:
        console.print("nothing is saved in a run of trainer.fast_dev_run")
    for name, words in written.items():
        console.wrote(out / name, words)
