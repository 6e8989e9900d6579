"""Augmentation of whole batches on the device: each sample draws its own parameters once, image and points share them.

Images are float32 (B, 1, 96, 96), 0-255; points float32 (B, 15, 2) in pixels of the crop, NaN where unknown.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion_ai.contract import CROP_SIZE, FLIP
from emotion_ai.data.keyed_random import uniform
from emotion_ai.errors import ConfigError
from emotion_ai.schema import Amount, Share, check

_CENTRE = (CROP_SIZE - 1) / 2
_BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # binomial, sigma 1 pixel


@dataclass(frozen=True)
class Augmentation:
    """How far each sample may be changed; 0 switches a change off.

    Attributes:
        flip: probability of a mirror image, left and right points exchanged.
        rotation: degrees, up to this either way.
        scale: factors between 1/(1+scale) and 1+scale.
        shift: share of the crop's side, up to this either way on each axis.
        brightness: share of 255, up to this either way.
        contrast: factors between 1/(1+contrast) and 1+contrast, about the sample's mean.
        blur: up to this share of a two-fold binomial blur (sigma 1.4 pixels) mixed in.
        noise: standard deviation of up to this, 0-255.
        erasing: probability of one gray rectangle (random erasing, Zhong et al. 2017, arXiv:1708.04896).
        erasing_size: smallest and largest side of the rectangle, as shares of the crop's.
    """

    flip: Share = 0.0
    rotation: Amount = 0.0
    scale: Amount = 0.0
    shift: Amount = 0.0
    brightness: Amount = 0.0
    contrast: Amount = 0.0
    blur: Share = 0.0
    noise: Amount = 0.0
    erasing: Share = 0.0
    erasing_size: tuple[Share, Share] = (0.1, 0.4)

    def __post_init__(self) -> None:
        check(self, "augment.")
        small, large = self.erasing_size
        if small > large:
            raise ConfigError(f"augment.erasing_size must be [smallest, largest], got [{small}, {large}]")

    def __call__(self, images: Tensor, points: Tensor | None, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """The changed batch; points that left the crop become NaN.

        Args:
            images: float32 (B, 1, 96, 96), 0-255.
            points: float32 (B, 15, 2), or None.
            keys: int64 (B,), from `keyed_random.sample_keys`.
        """
        matrices, flipped = self.draw(keys)
        images = warp_images(images, matrices)
        if points is not None:
            points = warp_points(points, matrices, flipped)
            inside = ((points >= -0.5) & (points < CROP_SIZE - 0.5)).all(-1, keepdim=True)
            points = torch.where(inside, points, torch.nan)
        return self._photometric(images, keys), points

    def draw(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Affine matrices (B, 2, 3) from source to destination pixels, and which samples are mirrored, bool (B,)."""
        u = uniform(keys, 5, stream=0)
        flipped = u[:, 0] < self.flip
        angle = torch.deg2rad((2 * u[:, 1] - 1) * self.rotation)
        factor = (1 + self.scale) ** (2 * u[:, 2] - 1)
        shift = (2 * u[:, 3:5] - 1) * self.shift * CROP_SIZE
        return affine(angle, factor, shift, flipped), flipped

    def _photometric(self, images: Tensor, keys: Tensor) -> Tensor:
        u = uniform(keys, 4, stream=1)[:, :, None, None, None]
        if self.blur:
            images = torch.lerp(images, blurred(images), u[:, 0] * self.blur)
        if self.contrast:
            mean = images.mean((1, 2, 3), keepdim=True)
            images = (images - mean) * (1 + self.contrast) ** (2 * u[:, 1] - 1) + mean
        if self.brightness:
            images = images + (2 * u[:, 2] - 1) * self.brightness * 255
        if self.noise:
            pixels = uniform(keys, 2 * CROP_SIZE * CROP_SIZE, stream=2).reshape(-1, 2, CROP_SIZE, CROP_SIZE)
            triangular = (pixels[:, :1] - pixels[:, 1:]) * 6**0.5  # standard deviation 1
            images = images + triangular * u[:, 3] * self.noise
        if self.erasing:
            images = erase(images, uniform(keys, 6, stream=3), self.erasing, self.erasing_size)
        return images.clamp(0, 255)


def affine(angle: Tensor, factor: Tensor, shift: Tensor, flipped: Tensor) -> Tensor:
    """Mirror, rotate, scale about the crop's centre, then shift: float32 (B, 2, 3), source to destination pixels."""
    cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
    sign = torch.where(flipped, -1.0, 1.0)
    linear = torch.stack([torch.stack([cos * sign, -sin], -1), torch.stack([sin * sign, cos], -1)], -2)
    centre = torch.full((2,), _CENTRE, device=angle.device)
    offset = centre + shift - linear @ centre
    return torch.cat([linear, offset[:, :, None]], -1)


def warp_images(images: Tensor, matrices: Tensor) -> Tensor:
    """Images whose pixel p moved to matrix·p; bilinear, the border replicated."""
    inverse = torch.linalg.inv_ex(matrices[:, :, :2]).inverse  # without the check, which waits for a GPU
    steps = torch.arange(CROP_SIZE, device=images.device, dtype=images.dtype)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)
    source = (grid[None] - matrices[:, None, :, 2]) @ inverse.transpose(1, 2)
    normalised = ((2 * source + 1) / CROP_SIZE - 1).reshape(-1, CROP_SIZE, CROP_SIZE, 2)
    return F.grid_sample(images, normalised, mode="bilinear", padding_mode="border", align_corners=False)


def warp_points(points: Tensor, matrices: Tensor, flipped: Tensor) -> Tensor:
    """Points moved as the pixels are; those of mirrored faces exchange left and right."""
    moved = points @ matrices[:, :, :2].transpose(1, 2) + matrices[:, None, :, 2]
    exchanged = torch.stack([moved[:, point] for point in FLIP], 1)  # indexing by a list waits for a GPU
    return torch.where(flipped[:, None, None], exchanged, moved)


def blurred(images: Tensor) -> Tensor:
    """The binomial blur applied twice, the border replicated."""
    for _ in range(2):
        for axis, pad in ((3, (2, 2, 0, 0)), (2, (0, 0, 2, 2))):
            wide = F.pad(images, pad, mode="replicate")
            # sums of slices: a convolution of one channel is many times slower on a processor
            images = sum(w * wide.narrow(axis, i, images.shape[axis]) for i, w in enumerate(_BLUR))  # type: ignore[assignment]
    return images


def erase(images: Tensor, u: Tensor, probability: float, size_range: tuple[float, float]) -> Tensor:
    """Covers one rectangle with one gray, with that probability; u holds six numbers in [0, 1) for each sample."""
    steps = torch.arange(CROP_SIZE, device=images.device)
    small, large = size_range
    size = (small + (large - small) * u[:, 1:3]) * CROP_SIZE
    start = u[:, 3:5] * (CROP_SIZE - size)
    inside = (steps >= start[..., None]) & (steps < (start + size)[..., None])
    mask = inside[:, 0, None, :] & inside[:, 1, :, None] & (u[:, 0] < probability)[:, None, None]
    return torch.where(mask[:, None], 255 * u[:, 5, None, None, None], images)
