"""From settings and data to the module that is trained: a fresh or loaded network, and its teachers."""

from typing import Any

import numpy as np
import torch

from emotion_ai.data.image_arrays import mean_and_deviation
from emotion_ai.data.splits import DataSplits
from emotion_ai.errors import ConfigError
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai.models.facemesh import FaceMeshEncoder
from emotion_ai.models.pretrained import load_encoder_weights
from emotion_ai.provenance import RunRecord
from emotion_ai.training.config import KeypointTask, TrainConfig, data_settings
from emotion_ai.training.modules import EmotionModule, FaceModule, KeypointModule, Teachers


def build_module(config: TrainConfig, splits: DataSplits) -> FaceModule:
    """The task's LightningModule; its network is normalised by the training faces.

    Raises:
        CheckpointError: `init_from`, a teacher or the encoder's weights cannot be loaded.
        ConfigError: one of them is another network, or has seen faces of the val or test split.
    """
    task = config.task
    if task.name == "emotion" and len(splits.train) == 0:
        raise ConfigError("no training faces are left; give more data")
    mean, deviation = mean_and_deviation(splits.train.images)
    arguments: dict[str, Any] = {
        "task": task.name,
        "encoder": config.model.encoder,
        "head": config.model.head,
        "dropout": 0.0 if isinstance(task, KeypointTask) else task.dropout,
        "mean": round(mean, 2),
        "std": round(deviation, 2),
    }
    if not isinstance(task, KeypointTask):
        known = splits.train.classes
        aliases = {name: tuple(others) for name, others in known.aliases.items()}
        arguments |= {"classes": known.names, "aliases": aliases, "colors": config.classes.colors or {}}
    if config.init_from is None:
        network = FaceNetwork(**arguments)
        if config.model.weights is not None:
            load_encoder_weights(network.encoder, config.model.weights)
    elif config.init_from.endswith(".tflite"):
        network = init_from_facemesh(config.init_from, arguments)
    else:
        start = _load_unseen(config.init_from, "init_from", config, splits)
        network = init_from_checkpoint(config.init_from, start, arguments)
    network.to(memory_format=torch.channels_last)
    teachers = tuple(_load_unseen(path, "teacher", config, splits) for path in config.teachers)
    for path, teacher in zip(config.teachers, teachers, strict=True):
        _check_teacher_classes(path, teacher, network)
    shared: dict[str, Any] = {
        "network": network,
        "augment": task.augment,
        "seed": config.seed,
        "optimizer": config.optimizer,
        "scheduler": config.scheduler,
        "teachers": Teachers(teachers, config.distill_weight, config.teacher_shift_px),
    }
    if isinstance(task, KeypointTask):
        return KeypointModule(**shared, smooth_l1_beta=task.smooth_l1_beta)
    labels = splits.train.targets
    return EmotionModule(
        **shared,
        class_counts=np.bincount(labels[labels >= 0], minlength=len(splits.train.classes)).tolist(),
        class_weight_power=task.class_weight_power,
        label_smoothing=task.label_smoothing,
        mixup=task.mixup,
    )


def _check_teacher_classes(path: str, teacher: FaceNetwork, network: FaceNetwork) -> None:
    """Checks that a teacher has the network's classes, or the five emotions of a network with more."""
    known, wanted = teacher.spec.classes, network.spec.classes
    if known != wanted and not (known and wanted and known == wanted[: network.spec.class_set.emotions]):
        raise ConfigError(f"teacher={path}: has other classes ({', '.join(known or ())}) than classes.names")


def _load_unseen(path: str, which: str, config: TrainConfig, splits: DataSplits) -> FaceNetwork:
    network, record = load_network(path, config.task.name)
    check_no_leakage(f"{which}={path}", record, config, splits)
    return network


def check_no_leakage(which: str, record: RunRecord, config: TrainConfig, splits: DataSplits) -> None:
    """Checks that a network was not trained on faces that are now in the val or test split.

    Raises:
        ConfigError: it was trained on the same files with another split.
    """
    if record.data is None or record.data.train.fingerprint not in (splits.train.fingerprint, splits.test.fingerprint):
        return
    before, now = record.config["data"], data_settings(config)
    names = [name for name in ("val", "split", "folds", "fold") if before.get(name) != now[name]]
    changed = [f"data.{name}={'null' if before.get(name) is None else before[name]}" for name in names]
    if record.config["seed"] != config.seed:
        changed.append(f"seed={record.config['seed']}")
    test = record.data.test.fingerprint if record.data.test else None
    if (record.data.train.fingerprint, test) != (splits.train.fingerprint, splits.test.fingerprint):
        changed.append(f"data.test={before.get('test') or 'null'}")
    if changed:
        raise ConfigError(
            f"{which}: trained on these files with another split, so it has seen faces of the val or test split; "
            f"use the same settings: {', '.join(changed)}"
        )


def init_from_checkpoint(path: str, start: FaceNetwork, arguments: dict[str, Any]) -> FaceNetwork:
    """A network with these arguments, and a checkpoint's weights and normalisation.

    Raises:
        ConfigError: the checkpoint has another encoder or head, or none of the classes.
    """
    network = FaceNetwork(**(arguments | {"mean": start.mean, "std": start.std}))
    if any(network.config[key] != start.config[key] for key in ("encoder", "head")):
        raise ConfigError(f"init_from={path}: holds another network than model=; give the same model")
    state = start.state_dict()
    if network.spec.classes != start.spec.classes:
        state |= _head_of_classes(path, start, network)
    network.load_state_dict(state)
    return network


def init_from_facemesh(path: str, arguments: dict[str, Any]) -> FaceNetwork:
    network = FaceNetwork(**(arguments | {"mean": FaceMeshEncoder.MEAN, "std": FaceMeshEncoder.STD}))
    if not isinstance(network.encoder, FaceMeshEncoder):
        raise ConfigError(f"init_from={path}: a .tflite file is for model=facemesh; give it, or another file")
    network.encoder.load_tflite(path)
    return network


def _head_of_classes(path: str, start: FaceNetwork, network: FaceNetwork) -> dict[str, torch.Tensor]:
    """The head's tensors for the network's classes: rows of the classes that `start` has, zeros for the others."""
    known = start.spec.class_set
    places = [known.index(name) for name in network.spec.class_set.names]
    if all(place is None for place in places):
        raise ConfigError(f"init_from={path}: has the classes {', '.join(known.names)}, none of them wanted")
    tensors = {}
    for name, tensor in start.head.state_dict(prefix="head.").items():
        tensors[name] = torch.stack([torch.zeros_like(tensor[0]) if p is None else tensor[p] for p in places])
    return tensors
