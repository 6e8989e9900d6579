"""Residual encoders: 96x96 gray faces in, feature maps out.

Lineage: He et al. 2016 (arXiv:1512.03385) for the basic block, Hu et al. 2018 (arXiv:1709.01507) for
squeeze-and-excitation, Goyal et al. 2017 (arXiv:1706.02677) for the zero-initialised last gain.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the mean of all channels."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3), keepdim=True)
        gate = self.expand(self.act(self.reduce(gate)))
        return x * torch.sigmoid(gate)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with squeeze-and-excitation, added to the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.se = SqueezeExcite(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride) if stride != 1 else nn.Identity(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
        self.act2 = nn.ReLU(inplace=True)

    def zero_init_last(self) -> None:
        """Starts the block as its shortcut."""
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.se(self.bn2(self.conv2(x)))
        return self.act2(x + shortcut)


class ResidualEncoder(nn.Module):
    """The default encoder: a strided stem, then one stage per width.

    Args:
        widths: channels of each stage.
        depths: residual blocks of each stage.
        stem_stride: 2 keeps 48x48 features for the first stage, 4 starts at 24x24.
        strides: 1 or 2 for each stage; by default every stage after the first halves the map.
    """

    def __init__(
        self,
        widths: Sequence[int],
        depths: Sequence[int],
        stem_stride: int = 2,
        strides: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        strides = [1] + [2] * (len(widths) - 1) if strides is None else list(strides)
        if len(widths) != len(depths):
            raise ValueError(f"widths has {len(widths)} stages but depths has {len(depths)}; give one depth per width")
        if len(strides) != len(widths) or not set(strides) <= {1, 2}:
            raise ValueError(f"strides is {strides}; give 1 or 2 for each of the {len(widths)} widths")
        if stem_stride not in (2, 4):
            raise ValueError(f"stem_stride must be 2 or 4, got {stem_stride}")
        stem = [nn.Conv2d(1, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        if stem_stride == 4:
            stem += [
                nn.Conv2d(widths[0], widths[0], 3, 2, 1, bias=False),
                nn.BatchNorm2d(widths[0]),
                nn.ReLU(inplace=True),
            ]
        self.stem = nn.Sequential(*stem)
        blocks: list[nn.Module] = []
        channels = widths[0]
        for width, depth, stride in zip(widths, depths, strides, strict=True):
            for index in range(depth):
                blocks.append(ResidualBlock(channels, width, stride if index == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.num_features = channels
        self.map_size = 96 // stem_stride // math.prod(strides)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))
