"""K-fold cross-validation: each fold is the test split once."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.plots import folds_plot, save
from emotion_ai.evaluation.predictions import predict
from emotion_ai.evaluation.statistics import t_interval
from emotion_ai.evaluation.summary import summary_metrics
from emotion_ai.files import locked_folder, write_json
from emotion_ai.models import load_network
from emotion_ai.models.device import Placement
from emotion_ai.studies.runs import run
from emotion_ai.terminal import Console
from emotion_ai.training.config import TrainConfig, recorded_settings
from emotion_ai.training.train import load_splits


def cross_validate(cfg: DictConfig) -> dict[str, float]:
    """Trains `data.folds` networks into `out/fold-0`, …; leaves `cross_validation.json` and `.png` in `cfg.out`.

    Started again with the same `out`, it keeps finished folds and resumes a killed one. The mean has a t interval over
    folds, which is too narrow: training sets of two folds overlap (Bengio and Grandvalet 2004, JMLR 5). Pooled metrics
    are over all faces, each predicted by the network that did not see it, with a bootstrap interval over faces.

    Returns:
        The pooled metrics.

    Raises:
        ConfigError: no `data.folds`, another split beside it, a folder in use or with other runs.
        EmotionAIError: as `train` does.
    """
    config = TrainConfig.of(cfg)
    if config.data.folds is None:
        raise ConfigError("cross-validate: give the number of folds, e.g. data.folds=5")
    if config.init_from is not None or config.teachers:
        raise ConfigError("cross-validate: init_from and teachers may have seen the faces of a fold; leave them out")
    with locked_folder(Path(config.out)):
        return _cross_validate(cfg, config, config.data.folds)


def _cross_validate(cfg: DictConfig, config: TrainConfig, count: int) -> dict[str, float]:
    task, out = config.task.name, Path(config.out)
    console = Console()
    placement = Placement.of("cpu" if config.trainer.get("accelerator") == "cpu" else "auto")
    predictions, targets, folds = [], [], []
    for fold in range(count):
        console.rule(f"fold {fold + 1} of {count}")
        folder = out / f"fold-{fold}"
        one: DictConfig = OmegaConf.merge(cfg, {"out": str(folder), "data": {"fold": fold}})  # type: ignore[assignment]
        run(one)
        held_out = load_splits(TrainConfig.of(one)).test
        network, _ = load_network(folder / "network.safetensors", task)
        predictions.append(predict(placement.place(network), held_out.images))
        targets.append(held_out.targets)
        folds.append(summary_metrics(network.spec, predictions[-1], targets[-1], config.seed))
    pooled = summary_metrics(network.spec, np.concatenate(predictions), np.concatenate(targets), config.seed)  # type: ignore[arg-type]
    values = {name: [fold[name].value for fold in folds] for name in pooled if all(name in fold for fold in folds)}
    result = {
        name: {
            **{f"fold {index}": fold[name] for index, fold in enumerate(folds)},
            "mean of the folds": t_interval(values[name]),
            "pooled": pooled[name],
        }
        for name in values
    }
    spread = {name: float(np.std(values[name], ddof=1)) for name in values}
    figures = {
        name: {label: asdict(e) for label, e in rows.items()} | {"standard deviation over folds": spread[name]}
        for name, rows in result.items()
    }
    write_json(out / "cross_validation.json", {"task": task, "config": recorded_settings(cfg), "figures": figures})
    save(folds_plot(result, f"{task}: {count} folds"), out / "cross_validation.png")
    table = Table("metric", "mean of the folds (95 %, t)", "standard deviation", "pooled (95 %, bootstrap)", title=task)
    for name, rows in result.items():
        table.add_row(name, str(rows["mean of the folds"]), f"{spread[name]:.4f}", str(rows["pooled"]))
    console.print(table)
    console.wrote(out / "cross_validation.json")
    return {name: estimate.value for name, estimate in pooled.items()}
