"""The two networks: one encoder each, and a head for the points or for the emotion.

Both take gray faces as they come, float32 or uint8 (N, 1, 96, 96), 0-255; normalisation is part of the graph.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from emotion_ai.contract import EMOTIONS, FRAME, KEYPOINTS, MEAN_FACE, TASKS, Task
from emotion_ai.errors import ConfigError
from emotion_ai.models.encoder import ResidualBlock, ResidualEncoder

_HALF = FRAME / 2


class TorchvisionEncoder(nn.Module):
    """torchvision's ResNet-18 or ResNet-50 without its classifier, its first convolution taking one channel."""

    def __init__(self, name: Literal["resnet18", "resnet50"]) -> None:
        super().__init__()
        net = {"resnet18": resnet18, "resnet50": resnet50}[name](weights=None)
        net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.num_features = net.fc.in_features
        self.map_size = FRAME // 32
        self.layers = nn.Sequential(*list(net.children())[:-2])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class KeypointHead(nn.Module):
    """One convolution over the whole map: a linear layer in either memory layout. Answers in pixels."""

    def __init__(self, features: int, map_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, 2 * len(KEYPOINTS), map_size)
        nn.init.zeros_(self.conv.weight)
        with torch.no_grad():  # an untrained network answers with the mean face
            self.conv.bias.copy_((torch.tensor(MEAN_FACE).flatten() - _HALF) / _HALF)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) * _HALF + _HALF
        return x.reshape(-1, len(KEYPOINTS), 2)


class EmotionHead(nn.Module):
    """Mean over the map, dropout, a linear layer. Answers in logits."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, len(EMOTIONS))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x.mean((2, 3))))


class FaceNetwork(nn.Module):
    """An encoder and the head of one task.

    `scores` gives what the loss wants, `forward` what is served: keypoints float32 (N, 15, 2) in pixels of the frame,
    or probabilities float32 (N, 5) in the order of `contract.EMOTIONS`.

    Args:
        task: "keypoints" or "emotion".
        encoder: {"name": "residual", "widths": …, "depths": …, "stem_stride": …}, {"name": "resnet18"} or
            {"name": "resnet50"}.
        dropout: before the emotion head's linear layer; the keypoint head has none.
        mean, std: of the training pixels, 0-255.

    Raises:
        ConfigError: unknown task or encoder, or settings that do not fit together.
    """

    def __init__(
        self, task: Task, encoder: dict[str, Any], dropout: float = 0.0, mean: float = 128.0, std: float = 64.0
    ) -> None:
        super().__init__()
        if task not in TASKS:
            raise ConfigError(f"unknown task {task!r}; choose one of {', '.join(TASKS)}")
        self.task: Task = task
        self.config = {"task": task, "encoder": dict(encoder), "dropout": dropout, "mean": mean, "std": std}
        self.mean, self.std = mean, std
        self.encoder = build_encoder(**encoder)
        self.head = (
            KeypointHead(self.encoder.num_features, self.encoder.map_size)
            if task == "keypoints"
            else EmotionHead(self.encoder.num_features, dropout)
        )
        for module in self.encoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock):
                module.zero_init_last()

    def scores(self, images: Tensor) -> Tensor:
        features = self.encoder((images.float() - self.mean) / self.std)
        with torch.autocast(images.device.type, enabled=False):  # half precision would cost 0.2 pixels here
            return self.head(features.float())

    def forward(self, images: Tensor) -> Tensor:
        scores = self.scores(images)
        return scores if self.task == "keypoints" else scores.softmax(1)


def build_encoder(name: str, **settings: Any) -> ResidualEncoder | TorchvisionEncoder:
    """The encoder of that name; every encoder has `num_features` channels and a square map of `map_size`."""
    try:
        if name == "residual":
            return ResidualEncoder(**settings)
        if name in ("resnet18", "resnet50"):
            return TorchvisionEncoder(name, **settings)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.encoder {name}: {error}") from error
    raise ConfigError(f"unknown encoder {name!r}; choose residual, resnet18 or resnet50")
