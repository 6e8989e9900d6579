"""Batches of faces that stay on the device as uint8 and are brought to the frame there."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.dataset import FaceDataset

Batch = tuple[Tensor, Tensor, Tensor]
"""images float32 (B, 1, 96, 96), targets, row numbers int64 (B,)."""


def resize_to_crops(images: Tensor) -> Tensor:
    """The one resize, batched: uint8 (B, H, W) to float32 (B, 1, 96, 96), half-pixel bilinear, antialiased."""
    frames = images[:, None].float()
    if frames.shape[-2:] == (CROP_SIZE, CROP_SIZE):
        return frames
    return F.interpolate(frames, (CROP_SIZE, CROP_SIZE), mode="bilinear", antialias=True, align_corners=False)


class Batches:
    """Iterates over the faces once; in an order of its own for each epoch when `shuffle_seed` is given.

    Args:
        faces: what to iterate over.
        batch: faces in a batch, on each device.
        device: where the arrays stay.
        epoch: tells the current epoch.
        shuffle_seed: None keeps the order and the last, smaller batch; otherwise smaller batches are left out.
        rank, world: which share of every epoch is this process's.
    """

    def __init__(
        self,
        faces: FaceDataset,
        batch: int,
        device: torch.device,
        epoch: Callable[[], int],
        shuffle_seed: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.images = torch.from_numpy(faces.images).to(device)
        self.targets = torch.from_numpy(faces.targets).to(device)
        self.batch, self.epoch, self.shuffle_seed = min(batch, len(faces)), epoch, shuffle_seed
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        share = len(self.images) // self.world
        return share // self.batch if self.shuffle_seed is not None else -(-share // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.images)
        if self.shuffle_seed is None:
            order = torch.arange(count)
        else:
            generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + self.epoch())
            order = torch.randperm(count, generator=generator)
        share = order[self.rank : count - count % self.world : self.world].to(self.images.device)
        for start in range(0, len(self) * self.batch, self.batch):
            rows = share[start : start + self.batch]
            yield resize_to_crops(self.images[rows]), self.targets[rows], rows
