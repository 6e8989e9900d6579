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
        encoder: {"name": "residual", "widths": …, "depths": …, "stem_stride": …}, {"name": "resnet18"} or
            {"name": "resnet50"}.
        head: {"name": "regression"} or {"name": "heatmap"}; for keypoints.
        dropout: before the emotion head's linear layer; for emotion.
        mean, std: of the training pixels, 0-255.
        classes: names of the emotion head's outputs; None means the five emotions, as in checkpoints of older versions.

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

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"unknown task {self.task!r}; choose one of {', '.join(TASKS)}")
        if self.task == "emotion":
            object.__setattr__(self, "classes", tuple(self.classes or EMOTIONS))
        for name in ("dropout", "mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"{name} must be a number, got {value!r}")
        if self.std <= 0:
            raise ConfigError(f"std must be above 0, got {self.std}; the training pixels are all alike")

    @property
    def class_set(self) -> ClassSet:
        """The classes of an emotion network."""
        return ClassSet.of(self.classes or EMOTIONS)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; keys in a fixed order. The five emotions are left out, as in checkpoints of older versions."""
        content = asdict(self)
        if self.classes in (None, EMOTIONS):
            del content["classes"]
        return content
