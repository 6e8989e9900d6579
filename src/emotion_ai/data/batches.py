"""Batches of faces that stay on the device as uint8 and are resized to crops there."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.errors import ImageError

Batch = tuple[Tensor, Tensor, NDArray[np.int64]]
"""images float32 (B, 1, 96, 96), targets, row numbers int64 (B,), which stay on the processor."""


def resize_to_crops(images: Tensor) -> Tensor:
    """The one resize, batched: uint8 (B, H, W) to float32 (B, 1, 96, 96), half-pixel bilinear, antialiased.

    Raises:
        ImageError: the images are not uint8 (B, H, W).
    """
    if images.dtype != torch.uint8 or images.ndim != 3:
        raise ImageError(f"images must be uint8 (B, H, W), got {images.dtype} {tuple(images.shape)}")
    crops = images[:, None].float()
    if crops.shape[-2:] == (CROP_SIZE, CROP_SIZE):
        return crops
    return F.interpolate(crops, (CROP_SIZE, CROP_SIZE), mode="bilinear", antialias=True, align_corners=False)


def image_tensor(images: NDArray[np.uint8]) -> Tensor:
    """The images as a tensor that shares their memory; it must not be written to, as they may be mapped from a file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(images)


class Batches:
    """Iterates over the faces once; with `shuffle_seed`, in another order each epoch.

    The arrays are on the device as uint8, at their own size. One process keeps all of them there. Of several processes
    each has its share alone, and fetches another one for each epoch.

    Args:
        faces: what to iterate over.
        batch_size: faces in a batch, on each device.
        device: where the arrays are.
        epoch: returns the current epoch.
        shuffle_seed: None keeps the order and the last, smaller batch; otherwise smaller batches are left out.
        rank, world: this process's number and the number of processes, which share every epoch: together, their batches
            are those of one process with batches that are `world` times as large.
    """

    def __init__(
        self,
        faces: FaceDataset,
        batch_size: int,
        device: torch.device,
        epoch: Callable[[], int],
        shuffle_seed: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.faces, self.device = faces, device
        self.batch_size = min(batch_size, max(len(faces) // world, 1))
        self.epoch, self.shuffle_seed = epoch, shuffle_seed
        self.rank, self.world = rank, world
        self._kept = None
        if world == 1:
            self._kept = self._on_device(slice(None))
        elif shuffle_seed is None:
            self._kept = self._on_device(slice(rank, None, world))

    def __len__(self) -> int:
        if self.shuffle_seed is None:
            return -(-len(range(self.rank, len(self.faces), self.world)) // self.batch_size)
        return len(self.faces) // self.world // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        rows = self._order()[self.rank :: self.world]
        images, targets = self._kept or self._on_device(rows)
        kept_whole = self.shuffle_seed is not None and self.world == 1
        places = torch.from_numpy(rows).to(self.device, non_blocking=True) if kept_whole else None
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            batch = slice(start, start + self.batch_size)
            chosen = batch if places is None else places[batch]
            yield resize_to_crops(images[chosen]), targets[chosen], rows[batch]

    def _order(self) -> NDArray[np.int64]:
        """Row numbers in the order of this epoch, for all processes."""
        if self.shuffle_seed is None:
            return np.arange(len(self.faces))
        generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + self.epoch())
        return torch.randperm(len(self.faces), generator=generator).numpy()

    def _on_device(self, rows: NDArray[np.int64] | slice) -> tuple[Tensor, Tensor]:
        """Images and targets of some faces."""
        images, targets = image_tensor(self.faces.images[rows]), torch.from_numpy(self.faces.targets[rows])
        return images.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
