"""The training stage: a plain function of a config."""

import logging
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, RichProgressBar, Timer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from emotion_ai.contract import EMOTIONS
from emotion_ai.data.augment import Augmentation
from emotion_ai.data.batches import Batches
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.splits import DataSplits, build_splits
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.calibration import FOLDS
from emotion_ai.files import write_json
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.provenance import environment
from emotion_ai.training.calibrate import calibrate
from emotion_ai.training.modules import EmotionModule, FaceModule, KeypointModule
from emotion_ai.training.settings import check, settings_of

# TensorBoard's own switch for doing without TensorFlow, which it would otherwise import where it is installed
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its notices of what it has not found


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a killed run leaves the previous checkpoint whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        partial = f"{path}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        os.replace(partial, path)


def train(cfg: DictConfig) -> dict[str, float]:
    """Trains one network; leaves `best.ckpt`, `last.ckpt`, `network.safetensors`, logs and `run.json` in `cfg.out`.

    The best weights are those of the best epoch on the `select` faces, and `network.safetensors` has them calibrated
    there; `report` faces are looked at once, at the end, and not at all with `report=false`.

    Returns:
        Metrics of the best weights, "val/…" on the `select` faces and "test/…" on the `report` faces.

    Raises:
        DataError: a dataset that cannot be used.
        CheckpointError: the checkpoint to resume from is damaged or of another task.
        ConfigError: settings that do not fit together, or an output folder that is in use.
    """
    check(cfg)
    out = Path(cfg.out)
    settings = settings_of(cfg)
    last = _start(out, cfg.resume, settings)
    sets = sets_of(cfg)
    if cfg.task.name == "emotion" and len(sets.select) < FOLDS:  # known now, not only when calibration fails
        raise ConfigError(f"{len(sets.select)} faces are left to choose by, wanted are {FOLDS}; give more data")
    pl.seed_everything(cfg.seed, verbose=False)
    module = build_module(cfg, sets)
    module.record = {"config": settings, "data": sets.as_dict(), **environment()}
    mean, timer = EMAWeightAveraging(decay=cfg.ema), Timer()
    best = ModelCheckpoint(out, "best", monitor=module.monitor, mode=module.mode, save_on_train_epoch_end=True)
    # save_last=True would only follow the best
    last_epoch = ModelCheckpoint(out, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    trainer = pl.Trainer(
        **OmegaConf.to_object(cfg.trainer),  # type: ignore[arg-type]
        max_epochs=cfg.epochs,
        default_root_dir=out,
        logger=[CSVLogger(out, name="csv"), TensorBoardLogger(out, name="tensorboard")],
        callbacks=[
            RichProgressBar(),
            mean,
            timer,
            EarlyStopping(module.monitor, mode=module.mode, patience=cfg.patience),
            best,
            last_epoch,
        ],
        plugins=[WholeFileCheckpointIO()],
        use_distributed_sampler=False,  # Batches gives each process its own share
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=1,
    )

    def batches(faces: FaceDataset, shuffle_seed: int | None = None) -> Batches:
        device, rank, world = trainer.strategy.root_device, trainer.global_rank, trainer.world_size
        return Batches(faces, cfg.batch, device, lambda: trainer.current_epoch, shuffle_seed, rank, world)

    with warnings.catch_warnings():
        # the arrays are in memory: there is no loader whose workers could be more
        warnings.filterwarnings("ignore", ".*(num_workers|treespec|is not empty).*")
        trainer.fit(
            module,
            batches(soft_targets(sets.train, cfg.task.get("votes", 0.0)), shuffle_seed=cfg.seed),
            batches(sets.select),
            ckpt_path=last,
            weights_only=True,
        )
        network, _ = load_network(best.best_model_path, module.network.task)
        module.network.load_state_dict(network.state_dict())
        module.network.eval()
        calibration = calibrate(module.network, sets.select)
        trainer.callbacks.remove(mean)  # type: ignore[attr-defined]  # it would judge the last epoch's mean instead
        metrics = dict(trainer.validate(module, batches(sets.select), verbose=False)[0])
        if cfg.report:
            metrics |= trainer.test(module, batches(sets.report), verbose=False)[0]
    if trainer.is_global_zero:
        record = module.record | {"metrics": metrics, "calibration": calibration, "epochs": trainer.current_epoch}
        save_network(module.network, out / "network.safetensors", record)
        write_json(out / "run.json", record | {"seconds": round(timer.time_elapsed("train"), 1)})
    return metrics


def sets_of(cfg: DictConfig) -> DataSplits:
    """The faces that a run learns from, chooses by and reports."""
    return build_splits(
        task=cfg.task.name,
        train=cfg.data.train,
        val=cfg.data.val,
        labels=cfg.data.labels,
        votes=cfg.data.votes,
        count=cfg.data.count,
        select=cfg.data.select,
        split=OmegaConf.to_object(cfg.data.split) if cfg.data.split is not None else None,  # type: ignore[arg-type]
        folds_count=cfg.data.folds,
        fold=cfg.data.fold,
        seed=cfg.seed,
    )


def soft_targets(faces: FaceDataset, share: float) -> FaceDataset:
    """Faces with what is learnt instead of their labels where there are votes: distributions, float32 (N, 5).

    A labelled face has its label and the votes for the five, mixed by `share`; its label alone where nobody saw
    any of the five. A face whose label is none of the five has its votes, which add up to less than 1: it weighs less.

    Raises:
        ConfigError: a share that is none.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"task.votes={share}: wanted is a share from 0 to 1")
    if faces.votes is None:
        return faces
    labelled, seen = faces.targets >= 0, faces.votes.sum(1, keepdims=True)
    labels = np.eye(len(EMOTIONS), dtype=np.float32)[faces.targets]
    votes = np.where(seen > 0, faces.votes / np.maximum(seen, 1e-9), labels)
    mixed = np.where(labelled[:, None], (1 - share) * labels + share * votes, faces.votes)
    return replace(faces, targets=mixed.astype(np.float32))


def build_module(cfg: DictConfig, sets: DataSplits) -> FaceModule:
    """The task's LightningModule with a fresh network, normalised by the training faces."""
    if cfg.task.name == "emotion" and len(sets.train) == 0:
        raise ConfigError("no training faces are left; give more data")
    settings = {
        "task": cfg.task.name,
        "encoder": OmegaConf.to_object(cfg.model.encoder),
        "head": OmegaConf.to_object(cfg.model.head) if "head" in cfg.model else None,
        "dropout": cfg.model.dropout,
        "mean": round(float(sets.train.images.mean()), 2),
        "std": round(float(sets.train.images.std()), 2),
    }
    if cfg.init is None:
        network = FaceNetwork(**settings)
    else:
        start, record = load_network(cfg.init, cfg.task.name)
        _unseen(f"init={cfg.init}", record, cfg, sets)
        network = _started(cfg.init, start, settings)
    network.to(memory_format=torch.channels_last)
    teachers = []
    for path in cfg.teachers:
        teacher, record = load_network(path, cfg.task.name)
        _unseen(f"the teacher {path}", record, cfg, sets)
        teachers.append(teacher)
    shared = {
        "network": network,
        "augment": Augmentation(**cfg.task.augment),
        "optimizer": OmegaConf.to_object(cfg.task.optimizer),
        "seed": cfg.seed,
        "teachers": teachers,
        "distil": cfg.distil,
        "distil_shift": cfg.distil_shift,
    }
    if cfg.task.name == "keypoints":
        return KeypointModule(**shared, beta=cfg.task.beta)
    labels = sets.train.targets
    counts = np.bincount(labels[labels >= 0], minlength=len(EMOTIONS)).tolist()
    own = {name: cfg.task[name] for name in ("balance", "smoothing", "mixup")}
    return EmotionModule(**shared, class_counts=counts, **own)


def _unseen(which: str, record: dict[str, Any], cfg: DictConfig, sets: DataSplits) -> None:
    """Refuses a network that learnt from the same files split otherwise: it has seen faces that choices or the report
    use."""
    if "data" not in record:
        return
    fingerprints = [record["data"][name]["fingerprint"] for name in ("train", "report")]
    if fingerprints[0] not in (sets.train.fingerprint, sets.report.fingerprint):
        return
    before, now = record["config"], settings_of(cfg)
    names = ("select", "split", "folds", "fold")
    changed = [f"data.{name}={before['data'][name]}" for name in names if before["data"][name] != now["data"][name]]
    if before["seed"] != cfg.seed:
        changed.append(f"seed={before['seed']}")
    if fingerprints != [sets.train.fingerprint, sets.report.fingerprint]:
        changed.append(f"data.val={before['data']['val'] or 'null'}")
    if changed:
        raise ConfigError(
            f"{which}: learnt from these files split otherwise, and so from faces that choices or the report use; "
            f"give what it had: {', '.join(changed)}"
        )


def _started(checkpoint: str, start: FaceNetwork, settings: dict[str, Any]) -> FaceNetwork:
    """A network of these settings with a checkpoint's weights, and its normalisation."""
    network = FaceNetwork(**(settings | {"mean": start.mean, "std": start.std}))
    if any(network.config[key] != start.config[key] for key in ("encoder", "head")):
        raise ConfigError(f"init={checkpoint}: holds another network than model= says; give the same model")
    network.load_state_dict(start.state_dict())
    return network


def _start(out: Path, resume: bool, settings: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from, if any; the folder is otherwise fresh."""
    last = out / "last.ckpt"
    if resume and last.is_file():
        before = load_network(last, settings["task"]["name"])[1]["config"]
        if changed := sorted(key for key in settings if settings[key] != before.get(key)):
            raise ConfigError(f"{last}: was trained with another {', '.join(changed)}; resume with the same settings")
        return last
    if last.exists() and not resume:
        raise ConfigError(f"{out}: holds a run already; add resume=true to go on with it, or give another out=")
    for stale in out.glob("best*.ckpt"):  # of a run that was killed before its first epoch was complete
        stale.unlink()
    return None
