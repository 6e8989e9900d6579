"""The two networks: an encoder each, with a head for keypoints or for emotion.

Both take gray faces float32 or uint8 (N, 1, 96, 96), 0-255; normalisation is part of the graph.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from emotion_ai.contract import CROP_SIZE, FLIP, KEYPOINTS, MEAN_FACE, Task
from emotion_ai.errors import ConfigError
from emotion_ai.models.encoder import ResidualBlock, ResidualEncoder
from emotion_ai.models.facemesh import FaceMeshEncoder
from emotion_ai.models.library import TimmEncoder, TorchvisionEncoder
from emotion_ai.models.spec import ModelSpec

_HALF = CROP_SIZE / 2
_REACH = 1.25

Encoder = ResidualEncoder | TorchvisionEncoder | TimmEncoder | FaceMeshEncoder


class RegressionHead(nn.Module):
    """Keypoints in pixels by one convolution over the whole map: a linear layer in either memory layout."""

    def __init__(self, features: int, map_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, 2 * len(KEYPOINTS), map_size)
        nn.init.zeros_(self.conv.weight)
        with torch.no_grad():  # an untrained network predicts the mean face
            self.conv.bias.copy_((torch.tensor(MEAN_FACE).flatten() - _HALF) / _HALF)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) * _HALF + _HALF
        return x.reshape(-1, len(KEYPOINTS), 2)


class HeatmapHead(nn.Module):
    """Keypoints in pixels: for each point, the mean of a distribution over the map's cells.

    Soft-argmax, or integral regression (Sun et al. 2018, arXiv:1711.08229). Cells count at `_REACH` times their
    distance from the centre, so that points near and beyond the crop's border can be reached.
    """

    def __init__(self, features: int, map_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            features, len(KEYPOINTS), 1, bias=False
        )  # a bias, equal for all cells, would change nothing
        nn.init.normal_(self.conv.weight, std=0.01)
        cells = (torch.arange(map_size) - (map_size - 1) / 2) * _REACH * CROP_SIZE / map_size + (CROP_SIZE - 1) / 2
        self.register_buffer("across", cells[None, None, None, :], persistent=False)
        self.register_buffer("down", cells[None, None, :, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv(x)
        weights = (logits - logits.amax((2, 3), keepdim=True)).exp()
        total = weights.mean((2, 3), keepdim=True)
        means = [(weights * cells).mean((2, 3), keepdim=True) / total for cells in (self.across, self.down)]
        return torch.cat([mean.reshape(-1, len(KEYPOINTS), 1) for mean in means], -1)


class DeviationHead(nn.Module):
    """Standard deviations of the keypoints' coordinates, in pixels, from the map's mean."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * len(KEYPOINTS))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3))).exp().reshape(-1, len(KEYPOINTS), 2)

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiplies all standard deviations by `factor`."""
        self.linear.bias.add_(math.log(factor))


class EmotionHead(nn.Module):
    """Logits by the map's mean, dropout and a linear layer."""

    def __init__(self, features: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x.mean((2, 3))))

    @torch.no_grad()
    def apply_temperature(self, temperature: float) -> None:
        """Divides the logits by `temperature` (Guo et al. 2017, arXiv:1706.04599)."""
        self.linear.weight.div_(temperature)
        self.linear.bias.div_(temperature)


class FaceNetwork(nn.Module):
    """An encoder with the head of one task.

    `scores` returns what the loss takes, `forward` what is served: keypoints float32 (N, 15, 2) in pixels of the crop,
    or probabilities float32 (N, K) in the order of `classes`. `uncertainty` adds standard deviations, `classified` the
    probabilities of the five emotions alone.

    Args:
        task, encoder, head, dropout, mean, std: as in `ModelSpec`; the default head is regression.
        classes: as in `ModelSpec`, and so are the arguments of its other fields.

    Raises:
        ConfigError: unknown task, encoder or head, or settings that do not fit together.
    """

    def __init__(
        self,
        task: Task,
        encoder: dict[str, Any],
        head: dict[str, Any] | None = None,
        dropout: float = 0.0,
        mean: float = 128.0,
        std: float = 64.0,
        classes: Sequence[str] | None = None,
        **others: Any,
    ) -> None:
        super().__init__()
        names = None if classes is None else tuple(classes)
        head = dict(head or {"name": "regression"})
        self.half_precision: torch.dtype | None = None  # of the encoder, set by `Placement`
        self.spec = ModelSpec(task, dict(encoder), head, dropout, mean, std, names, **others)
        self.encoder = build_encoder(**encoder)
        features = self.encoder.num_features
        if isinstance(self.encoder, TimmEncoder):  # a later timm may have another size as a model's own
            self.spec = replace(self.spec, encoder=self.spec.encoder | {"size": self.encoder.size})
        else:
            initialize(self.encoder)
        self.head: RegressionHead | HeatmapHead | EmotionHead
        if task == "keypoints":
            self.head = build_head(**self.spec.head, features=features, map_size=self.encoder.map_size)
            self.deviations = DeviationHead(features)
        else:
            self.head = EmotionHead(features, dropout, len(self.spec.class_set))

    @classmethod
    def from_spec(cls, spec: ModelSpec) -> Self:
        return cls(**spec.as_dict())

    @property
    def task(self) -> Task:
        return self.spec.task

    @property
    def config(self) -> dict[str, Any]:
        """The spec as checkpoints store it."""
        return self.spec.as_dict()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def mean(self) -> float:
        return self.spec.mean

    @property
    def std(self) -> float:
        return self.spec.std

    def features(self, images: Tensor) -> Tensor:
        kind = torch.float64 if next(self.parameters()).dtype == torch.float64 else torch.float32
        images, half = (images.to(kind) - self.mean) / self.std, self.half_precision
        with nullcontext() if half is None else torch.autocast(images.device.type, half):
            return self.encoder(images).to(kind)

    def scores(self, images: Tensor) -> Tensor:
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):  # half precision would cost 0.2 pixels here
            return self.head(features)

    def uncertainty(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints and their standard deviations, float32 (N, 15, 2) each, in pixels of the crop.

        The deviation head's gradient stops at the features, so it does not affect the keypoints' accuracy.
        """
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.head(features), self.deviations(features.detach())

    def classified(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of the five emotions, given that it is one of them, float32 (N, 5), and of all classes (N, K).

        A network whose classes are others has the latter twice.
        """
        scores, count = self.scores(images), self.spec.class_set.emotions
        expressions = scores.softmax(1)
        if count == len(self.spec.class_set):
            return expressions, expressions
        return (scores[:, :count] / self.spec.emotion_temperature).softmax(1), expressions

    def calibrate_emotions(self, temperature: float) -> None:
        """Sets the temperature of the five emotions' own probabilities."""
        self.spec = replace(self.spec, emotion_temperature=temperature)

    def mirrored(self, images: Tensor) -> Tensor:
        """The predictions for the mirror images, in the coordinates of the original images."""
        predictions: Tensor = self(images.flip(-1))
        if self.task == "emotion":
            return predictions
        moved = torch.stack([CROP_SIZE - 1 - predictions[..., 0], predictions[..., 1]], -1)
        return torch.stack([moved[:, point] for point in FLIP], 1)  # indexing by a list waits for a GPU

    def forward(self, images: Tensor) -> Tensor:
        scores = self.scores(images)
        return scores if self.task == "keypoints" else scores.softmax(1)


def build_head(name: str, features: int, map_size: int, **unknown: Any) -> RegressionHead | HeatmapHead:
    """The keypoint head of that name.

    Raises:
        ConfigError: an unknown name, or settings.
    """
    if name not in ("regression", "heatmap") or unknown:
        raise ConfigError(f"model.head {name!r} {unknown or ''}: choose regression or heatmap, without settings")
    return RegressionHead(features, map_size) if name == "regression" else HeatmapHead(features, map_size)


def build_encoder(name: str, library: str | None = None, **settings: Any) -> Encoder:
    """The encoder of that name; every encoder has `num_features` channels and a square map of `map_size`.

    Args:
        library: "timm" for a model of timm; None for the others.

    Raises:
        ConfigError: an unknown name, or settings that do not fit together.
        MissingExtraError: the library is not installed.
    """
    if library not in (None, "timm"):
        raise ConfigError(f"model.encoder.library must be timm or null, got {library!r}")
    try:
        if library == "timm":
            return TimmEncoder(name, **settings)
        if name == "residual":
            return ResidualEncoder(**settings)
        if name in ("resnet18", "resnet50"):
            return TorchvisionEncoder(name, **settings)  # type: ignore[arg-type]
        if name == "facemesh":
            return FaceMeshEncoder(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.encoder {name}: {error}") from error
    raise ConfigError(
        f"unknown encoder {name!r}; choose residual, resnet18, resnet50 or facemesh, or model=timm for those of timm"
    )


def initialize(encoder: nn.Module) -> None:
    """Draws the kernels anew (He et al. 2015, arXiv:1502.01852), and starts residual blocks as their shortcuts."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, ResidualBlock):
            module.zero_init_last()
