"""What a network is built from: the "network" entry of a checkpoint."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from emotion_ai.class_set import ClassSet
from emotion_ai.contract import EMOTIONS, TASKS, Task
from emotion_ai.errors import ConfigError


@dataclass(frozen=True)
class ModelSpec:
    """The settings that `FaceNetwork` is built from; `ModelSpec(**entry)` reads a checkpoint's "network" entry.

    Attributes:
        task: "keypoints" or "emotion".
        encoder: {"name": "residual", "widths": …, "depths": …, "stem_stride": …}, {"name": "resnet18"},
            {"name": "resnet50"} or {"library": "timm", "name": …, "size": …}.
        head: {"name": "regression"} or {"name": "heatmap"}; for keypoints.
        dropout: before the emotion head's linear layer; for emotion.
        mean, std: of the training pixels, 0-255.
        classes: names of the emotion head's outputs; None means the five emotions, as in checkpoints of older versions.
        aliases, colors: of classes, by name.
        emotion_temperature: divides the logits of the five emotions before their own softmax, where there are more
            classes; 1 where there are not.

    Raises:
        ConfigError: unknown task, or a number that is none.
    """

    task: Task
    encoder: dict[str, Any]
    head: dict[str, Any] = field(default_factory=lambda: {"name": "regression"})
    dropout: float = 0.0
    mean: float = 128.0
    std: float = 64.0
    classes: tuple[str, ...] | None = None
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    colors: dict[str, str] = field(default_factory=dict)
    emotion_temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"unknown task {self.task!r}; choose one of {', '.join(TASKS)}")
        if self.task == "emotion":
            object.__setattr__(self, "classes", tuple(self.classes or EMOTIONS))
            object.__setattr__(self, "aliases", {name: tuple(others) for name, others in self.aliases.items()})
            _ = self.class_set  # checks it
        for name in ("dropout", "mean", "std", "emotion_temperature"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"{name} must be a number, got {value!r}")
        if self.emotion_temperature <= 0:
            raise ConfigError(f"emotion_temperature must be above 0, got {self.emotion_temperature}")
        if self.std <= 0:
            raise ConfigError(f"std must be above 0, got {self.std}; the training pixels are all alike")

    @property
    def class_set(self) -> ClassSet:
        """The classes of an emotion network."""
        return ClassSet(self.classes or EMOTIONS, self.aliases, self.colors)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; keys in a fixed order. What checkpoints of older versions lack is left out where it is the same."""
        content = asdict(self)
        if self.classes in (None, EMOTIONS):
            del content["classes"]
        same = {"aliases": {}, "colors": {}, "emotion_temperature": 1.0}
        return {key: value for key, value in content.items() if key not in same or value != same[key]}
