"""Encoders of other libraries, torchvision and timm, without their classifiers: normalised gray crops in, maps out."""

import math
from difflib import get_close_matches
from types import ModuleType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from emotion_ai.contract import CROP_SIZE
from emotion_ai.errors import ConfigError
from emotion_ai.extras import load

LARGEST = 1024
"""Side of the images that an encoder may see."""


class TorchvisionEncoder(nn.Module):
    """torchvision's ResNet-18 or ResNet-50 without its classifier; the first convolution takes one channel."""

    first_convolutions = ("conv1",)
    ignored = ("fc.",)

    def __init__(self, name: Literal["resnet18", "resnet50"]) -> None:
        super().__init__()
        net = {"resnet18": resnet18, "resnet50": resnet50}[name](weights=None)
        net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.num_features = net.fc.in_features
        self.map_size = CROP_SIZE // 32
        layers = list(net.named_children())[:-2]
        self.layers = nn.Sequential(*(layer for _, layer in layers))
        self._names = [name for name, _ in layers]

    def library_tensors(self) -> dict[str, Tensor]:
        """Its weights and statistics by torchvision's names; changing them changes the encoder."""
        found = {}
        for key, tensor in self.layers.state_dict().items():
            place, _, rest = key.partition(".")
            found[f"{self._names[int(place)]}.{rest}"] = tensor
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TimmEncoder(nn.Module):
    """An image model of timm without its classifier: what its `forward_features` returns, as a square map.

    Class tokens are left out. Nothing is downloaded, and timm's initialisation is kept.

    Args:
        name: as in `timm.list_models()`; a tag of pretrained weights, as in "resnet18.a1_in1k", decides the own size.
        size: side of the images that the model sees, 96 to 1024; crops are enlarged to it (half-pixel bilinear). None
            is the model's own.

    Attributes:
        size: the side in use.
        first_convolutions: layers that see the image.
        ignored: beginnings of the names of layers after the features, which are left out.

    Raises:
        ConfigError: an unknown model, one that does not take the size, or features that are no square map.
        MissingExtraError: timm is not installed.
    """

    enlarge: Tensor

    def __init__(self, name: str, size: int | None = CROP_SIZE) -> None:
        super().__init__()
        timm = load("timm")
        settings = _pretrained_settings(timm, name)
        own = settings.input_size[-1]
        if size is not None and (type(size) is not int or not CROP_SIZE <= size <= LARGEST):
            raise ConfigError(
                f"model.encoder.size must be null or an integer from {CROP_SIZE} to {LARGEST}, got {size!r}"
            )
        self.size: int = own if size is None else size
        arguments = {"img_size": self.size} if settings.fixed_input_size else {}
        try:
            self.net: Any = timm.create_model(name, pretrained=False, in_chans=1, **arguments)
            used = self._used_parameters()
            self.ignored = tuple(f"{removed}." for removed in _remove_unused(self.net, used))
            with torch.no_grad():
                features = self._dry_run()
        except Exception as error:  # of any kind: the models check little themselves
            lines = str(error).strip().splitlines() or [type(error).__name__]
            better = "choose another encoder" if self.size == own else f"give model.encoder.size=null, its own {own}"
            raise ConfigError(
                f"model.encoder.name={name}: does not take images of {self.size}x{self.size} in one channel "
                f"({lines[0]}); {better}"
            ) from error
        self.layout, self.prefix, self.num_features, self.map_size = _layout(name, self.net, features)
        first = settings.first_conv or next((n for n, m in self.net.named_modules() if isinstance(m, nn.Conv2d)), ())
        self.first_convolutions: tuple[str, ...] = (first,) if isinstance(first, str) else tuple(first)
        if self.size != CROP_SIZE:
            self.register_buffer("enlarge", _bilinear(self.size), persistent=False)

    def library_tensors(self) -> dict[str, Tensor]:
        """Its weights and statistics by timm's names; changing them changes the encoder."""
        return self.net.state_dict()

    def _dry_run(self) -> Any:
        training = self.net.training
        self.net.eval()
        features = self.net.forward_features(torch.zeros(1, 1, self.size, self.size))
        self.net.train(training)
        return features

    def _used_parameters(self) -> set[str]:
        """Names of the parameters that the features depend on."""
        with torch.enable_grad():
            features = self._dry_run()
            parameters = dict(self.net.named_parameters())
            if not isinstance(features, Tensor):
                return set(parameters)
            gradients = torch.autograd.grad(features.sum(), list(parameters.values()), allow_unused=True)
        return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}

    def forward(self, x: Tensor) -> Tensor:
        if self.size != CROP_SIZE:
            with torch.autocast(x.device.type, enabled=False):  # half precision would round the pixels
                x = self.enlarge @ x @ self.enlarge.T
        x = self.net.forward_features(x)
        if self.layout == "tokens":
            x = x[:, self.prefix :].reshape(-1, self.map_size, self.map_size, self.num_features)
        return x if self.layout == "NCHW" else x.permute(0, 3, 1, 2)


def _pretrained_settings(timm: ModuleType, name: object) -> Any:
    """What timm records of a model: own size, first convolutions, and whether its size is fixed when it is built."""
    if not isinstance(name, str) or not timm.is_model(name):
        near = get_close_matches(str(name), timm.list_models(), 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() has the names"
        raise ConfigError(f"model.encoder.name={name}: timm has no such model; {hint}")
    try:
        settings = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        architecture = name.partition(".")[0]
        near = get_close_matches(name, timm.list_models(f"{architecture}.*", pretrained=True), 3, 0.0)
        raise ConfigError(
            f"model.encoder.name={name}: timm has no such weights; give {' or '.join([architecture, *near])}"
        ) from error
    if settings is None or settings.input_size[-2] != settings.input_size[-1]:
        raise ConfigError(f"model.encoder.name={name}: is not for square images; choose another encoder")
    return settings


def _remove_unused(module: nn.Module, used: set[str], prefix: str = "") -> list[str]:
    """Replaces the largest parts without a used parameter, and returns their names; other unused ones are frozen."""
    removed = []
    for name, parameter in module.named_parameters(recurse=False):
        if prefix + name not in used:
            parameter.requires_grad_(False)
    for name, child in list(module.named_children()):
        names = [f"{prefix}{name}.{inner}" for inner, _ in child.named_parameters()]
        if names and used.isdisjoint(names):
            setattr(module, name, nn.Identity())
            removed.append(prefix + name)
        else:
            removed += _remove_unused(child, used, f"{prefix}{name}.")
    return removed


def _layout(name: str, net: Any, features: Any) -> tuple[str, int, int, int]:
    """The layout of a model's features, the class tokens before them, their channels, and the side of their map."""
    shape = tuple(features.shape) if isinstance(features, Tensor) else ()
    if len(shape) == 4:
        last = getattr(net, "output_fmt", None)
        channels_last = last == "NHWC" if last is not None else net.num_features not in shape[1:3]
        channels, height, width = (shape[3], *shape[1:3]) if channels_last else shape[1:]
        if height == width:
            return "NHWC" if channels_last else "NCHW", 0, channels, height
    if len(shape) == 3 and shape[2] == net.num_features:
        prefix = getattr(net, "num_prefix_tokens", 0)
        side = math.isqrt(shape[1] - prefix)
        if side > 1 and side**2 == shape[1] - prefix:  # a single token is of the class
            return "tokens", prefix, shape[2], side
    found = f"of the shape {list(shape)}" if shape else f"a {type(features).__name__}"
    raise ConfigError(f"model.encoder.name={name}: its features are no square map ({found}); choose another encoder")


def _bilinear(size: int) -> Tensor:
    """The matrix (size, 96) that enlarges one axis as half-pixel bilinear interpolation does.

    A matrix product has the same weights everywhere; each runtime computes those of its own resize, in float32.
    """
    unit = torch.eye(CROP_SIZE, dtype=torch.float64)[None, None]
    return F.interpolate(unit, (size, CROP_SIZE), mode="bilinear", align_corners=False)[0, 0].float()
