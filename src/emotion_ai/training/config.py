"""The structured config of a training run; `conf/train.yaml` and its groups hold the values."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from omegaconf import DictConfig, OmegaConf

from emotion_ai.class_set import ClassSet
from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.augment import Augmentation
from emotion_ai.data.splits import VAL_SHARE, DataConfig
from emotion_ai.errors import ConfigError
from emotion_ai.schema import Amount, Range, Share, bind

_FILES = ("train", "val", "test", "vote_file")
_BELOW_ONE = Annotated[float, Range(ge=0, lt=1)]


@dataclass(frozen=True)
class KeypointTask:
    """Settings of `task=keypoints`.

    Attributes:
        smooth_l1_beta: error in pixels above which the loss grows linearly (Girshick 2015, arXiv:1504.08083).
    """

    name: Literal["keypoints"]
    smooth_l1_beta: Amount
    augment: Augmentation


@dataclass(frozen=True)
class EmotionTask:
    """Settings of `task=emotion`.

    Attributes:
        class_weight_power: exponent of the inverse class frequency; 0 weighs all faces alike, 1 all classes.
        label_smoothing: Szegedy et al. 2016, arXiv:1512.00567.
        mixup: each face is blended with another of its batch, and their targets alike, by shares of the Beta(mixup,
            mixup) distribution (Zhang et al. 2018, arXiv:1710.09412); 0 blends none.
        vote_weight: share of FER+ votes in the targets, with `data.vote_file`.
        dropout: before the last layer.
        confident_accuracy: validation accuracy of the predictions that the abstention threshold keeps.
        neutral_risk: share of neutral faces that may be named as an emotion, where Neutral is one of the classes.
    """

    name: Literal["emotion"]
    class_weight_power: Amount
    label_smoothing: Share
    mixup: Amount
    vote_weight: Share
    dropout: _BELOW_ONE
    augment: Augmentation
    confident_accuracy: Annotated[float, Range(gt=0, le=1)] = 0.9
    neutral_risk: Annotated[float, Range(gt=0, le=1)] = 0.1


@dataclass(frozen=True)
class OneCycle:
    """One-cycle learning rate (Smith and Topin 2018, arXiv:1708.07120).

    Attributes:
        pct_start: share of the steps in which the rate rises.
        div_factor: the first rate is `optimizer.lr` divided by this.
        final_div_factor: the last rate is the first divided by this.
    """

    name: Literal["one_cycle"]
    pct_start: Annotated[float, Range(gt=0, lt=1)] = 0.2
    div_factor: Annotated[float, Range(ge=1)] = 10
    final_div_factor: Annotated[float, Range(ge=1)] = 10_000


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `optimizer.lr` to `final_factor` of it."""

    name: Literal["cosine"]
    final_factor: Share = 0.01


@dataclass(frozen=True)
class Plateau:
    """Multiplies the rate by `factor` after `patience` epochs without a better validation metric."""

    name: Literal["plateau"]
    factor: Annotated[float, Range(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Range(ge=0)] = 3


@dataclass(frozen=True)
class Constant:
    """`optimizer.lr` throughout."""

    name: Literal["none"]


Scheduler = OneCycle | Cosine | Plateau | Constant


@dataclass(frozen=True)
class ModelConfig:
    """The network: arguments of `build_encoder` and, for keypoints, `build_head`.

    Attributes:
        weights: a `.safetensors` file that the encoder starts from; in the config, `encoder.weights`.
    """

    encoder: dict[str, Any]
    head: dict[str, Any] | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not isinstance(self.weights, str):
            raise ConfigError(f"model.encoder.weights must be text or null, got {self.weights}")


@dataclass(frozen=True)
class ClassesConfig:
    """The classes of an emotion network, in the order of its outputs.

    Attributes:
        names: None takes the names of the training data's class folders.
        aliases: other spellings in the data, by name; those of the usual datasets are known.
        colors: "#rrggbb" in pictures, by name.
    """

    names: tuple[str, ...] | None
    aliases: dict[str, list[str]] | None = None
    colors: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if self.names is None and self.aliases:
            raise ConfigError("classes.aliases belong to classes.names; give both, or neither")
        _ = self.class_set  # checks it

    @property
    def class_set(self) -> ClassSet | None:
        """The classes; None until the training data is loaded."""
        if self.names is None:
            return None
        aliases = {name: tuple(others) for name, others in (self.aliases or {}).items()}
        return ClassSet(self.names, aliases, self.colors or {})


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        patience: epochs without a better validation metric before training stops; None never stops.
        init_from: a checkpoint to start from, or FaceMesh's `.tflite` file for its encoder.
        teachers: checkpoints to distill from.
        distill_weight: their share of the loss.
        teacher_shift_px: teachers see the crop shifted by up to this, either way on each axis.
        compile: the network with torch.compile.
        test: evaluate on the test split at the end.
        optimizer: `_target_` is a torch optimizer, the rest its arguments.
        trainer: arguments of Lightning's Trainer.
        logger, callbacks: by any name, `_target_` and arguments.
    """

    seed: Annotated[int, Range(ge=0, le=2**31 - 1)]
    epochs: Annotated[int, Range(ge=1)]
    batch_size: Annotated[int, Range(ge=1)]
    ema_decay: _BELOW_ONE
    patience: Annotated[int, Range(ge=0)] | None
    init_from: str | None
    teachers: tuple[str, ...]
    distill_weight: Share
    teacher_shift_px: Annotated[int, Range(ge=0, le=CROP_SIZE // 2)]
    compile: bool
    test: bool
    out: str
    resume: bool
    task: KeypointTask | EmotionTask
    data: DataConfig
    classes: ClassesConfig
    model: ModelConfig
    optimizer: dict[str, Any]
    scheduler: Scheduler
    trainer: dict[str, Any]
    logger: dict[str, Any]
    callbacks: dict[str, Any]

    def __post_init__(self) -> None:
        if bool(self.teachers) != bool(self.distill_weight):
            raise ConfigError(
                f"distill_weight={self.distill_weight} with {len(self.teachers)} teachers: give both, or neither"
            )
        if self.teacher_shift_px and not self.teachers:
            raise ConfigError(f"teacher_shift_px={self.teacher_shift_px} has no effect without teachers; leave it out")
        if self.model.weights and self.init_from:
            raise ConfigError("model.encoder.weights and init_from both give weights to start from; give one of them")
        if self.task.name == "emotion" and self.model.head is not None:
            raise ConfigError("model.head is for task=keypoints; choose another model, such as model=emotion")
        if "_target_" not in self.optimizer:
            raise ConfigError("optimizer._target_ is missing; choose optimizer=adamw or optimizer=sgd")
        bind(
            _Rates, {key: self.optimizer[key] for key in ("lr", "weight_decay") if key in self.optimizer}, "optimizer."
        )

    @classmethod
    def of(cls, cfg: DictConfig) -> Self:
        """The typed settings of a composed config.

        Raises:
            ConfigError: an unknown or missing key, a value of the wrong type or out of range, or settings that
                contradict each other.
        """
        if missing := missing_settings(cfg):
            raise ConfigError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=...")
        values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
        data = values["data"]
        if isinstance(data.get("val"), str) and data.get("test") is None:  # of an older version
            data |= {"val": VAL_SHARE, "test": data["val"]}
        data |= {key: find_data(data[key]) for key in _FILES if isinstance(data.get(key), str)}
        # no argument of the encoder: a checkpoint is rebuilt without the file
        values["model"]["weights"] = values["model"]["encoder"].pop("weights", None)
        return bind(cls, values)


def missing_settings(cfg: DictConfig) -> list[str]:
    """Dotted keys that must still be given, sorted.

    A recipe marks a key that has a default elsewhere with "<required>": OmegaConf keeps the default under "???".
    """
    return sorted(OmegaConf.missing_keys(cfg) | {str(key) for key in cfg if cfg._get_node(key) == "<required>"})


@dataclass(frozen=True)
class _Rates:
    lr: Amount
    weight_decay: Amount = 0.0


def find_data(path: str) -> str:
    """A path as it is; one such as "$EMOTION_AI_DATA/fer2013.csv*" is searched below that folder, at any depth.

    Raises:
        ConfigError: the variable is not set, or nothing matches.
    """
    folder, _, pattern = path.partition("/")
    if folder != "$EMOTION_AI_DATA":
        return path
    base = os.environ.get("EMOTION_AI_DATA")
    if not base:
        raise ConfigError(f"{path}: EMOTION_AI_DATA is not set; set it to the folder of the datasets, or give a path")
    found = sorted(file for file in Path(base).rglob(pattern) if file.is_file())
    if not found:
        raise ConfigError(f"no {pattern} below EMOTION_AI_DATA={base}; check the folder, or give a path")
    return str(found[0])


def data_settings(config: TrainConfig) -> dict[str, Any]:
    """The data settings for a record: of files only the names are kept."""
    data = asdict(config.data)
    for key in _FILES:
        data[key] = Path(data[key]).name if isinstance(data[key], str) else data[key]
    return data | {"split": list(config.data.split) if config.data.split else None}


def recorded_settings(cfg: DictConfig) -> dict[str, Any]:
    """The settings that decide a run's weights, nested, for its record. Of paths only the ends are kept."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    config = TrainConfig.of(cfg)
    settings["data"] = data_settings(config)
    settings["init_from"] = config.init_from and _tail(config.init_from)
    if config.model.weights:
        settings["model"]["encoder"]["weights"] = _tail(config.model.weights)
    settings["teachers"] = [_tail(teacher) for teacher in config.teachers]
    return {key: value for key, value in settings.items() if key not in ("resume", "out", "logger", "callbacks")}


def changed_settings(now: Mapping[str, Any], before: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings that differ, as "key=value" with the value from before, sorted by key."""
    changed = []
    for key in sorted(now.keys() | before.keys()):
        new, old = now.get(key), before.get(key)
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            changed += changed_settings(new, old, f"{prefix}{key}.")
        elif new != old:
            changed.append(f"{prefix}{key}={'null' if old is None else old}")
    return changed


def _tail(checkpoint: str) -> str:
    """A checkpoint's folder and name, which tell one run from another."""
    return "/".join(Path(checkpoint).parts[-2:])
