"""The customary training pipeline: a DataLoader with workers, one sample at a time, torchvision's transforms."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from emotion_ai.contract import CROP_SIZE, FLIP
from emotion_ai.data.augment import Augmentation
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.training.train import Run


class CustomaryFaces(Dataset[tuple[Tensor, Any]]):
    """One augmented face at a time: float32 (1, 96, 96), 0-255, and its target.

    Args:
        faces: to read from memory.
        augment: how far each may be changed; torchvision's transforms come as close to ours as they can.
    """

    def __init__(self, faces: FaceDataset, augment: Augmentation) -> None:
        self.faces, self.augment = faces, augment
        self.resize = v2.Resize((CROP_SIZE, CROP_SIZE), antialias=True)
        self.move = v2.RandomAffine(
            augment.rotation,
            translate=(augment.shift, augment.shift),
            scale=(1 / (1 + augment.scale), 1 + augment.scale),
            interpolation=InterpolationMode.BILINEAR,
        )
        light: list[Callable[..., Any]] = [v2.ToDtype(torch.float32, scale=True)]
        if augment.blur:
            light.append(v2.GaussianBlur(5, (0.1, 1.4)))
        if augment.brightness or augment.contrast:
            light.append(v2.ColorJitter(augment.brightness, augment.contrast))
        if augment.noise:
            light.append(v2.GaussianNoise(sigma=augment.noise / 2 / 255))
        if augment.erasing:
            small, large = augment.erasing_size
            light.append(v2.RandomErasing(augment.erasing, scale=(small**2, large**2), value=0.5))
        self.light = v2.Compose(light)

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        image: Any = self.resize(tv_tensors.Image(torch.from_numpy(self.faces.images[index])[None]))
        target: Any = self.faces.targets[index]
        flipped = bool(torch.rand(()) < self.augment.flip)
        if self.faces.task == "keypoints":
            target = tv_tensors.KeyPoints(torch.from_numpy(target), canvas_size=(CROP_SIZE, CROP_SIZE))
        if flipped:
            image, target = v2.functional.horizontal_flip(image), self._mirrored(target)
        image, target = self.move(image, target)
        return self.light(image).as_subclass(Tensor) * 255, self._plain(target)

    def _mirrored(self, target: Any) -> Any:
        return v2.functional.horizontal_flip(target)[list(FLIP)] if self.faces.task == "keypoints" else target

    def _plain(self, target: Any) -> Any:
        return target.as_subclass(Tensor) if isinstance(target, Tensor) else target


class CustomaryTraining:
    """Plain PyTorch: the same network, loss, optimizer and averaging as of a run, fed by a DataLoader.

    Args:
        run: whose network is trained.
        workers: of the DataLoader.
        half: the precision of autocast; None is 32 bits.
        channels_last: memory layout; False is PyTorch's default.
    """

    def __init__(self, run: Run, workers: int, half: torch.dtype | None, channels_last: bool) -> None:
        self.device = run.trainer.strategy.root_device
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.module, self.half, self.layout = run.module.to(self.device).to(memory_format=layout), half, layout
        self.module.train()
        settings = {key: value for key, value in run.config.optimizer.items() if key != "_target_"}
        self.optimizer = torch.optim.AdamW(self.module.network.parameters(), **settings)
        averaging = get_ema_multi_avg_fn(run.config.ema_decay)
        self.average = AveragedModel(self.module.network, multi_avg_fn=averaging, use_buffers=True)
        self.loader = DataLoader(
            CustomaryFaces(run.splits.train, run.config.task.augment),
            run.config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )

    def epoch(self) -> None:
        """Trains on all faces once."""
        for images, targets in self.loader:
            images = images.to(self.device, non_blocking=True, memory_format=self.layout)
            targets = targets.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, self.half) if self.half else nullcontext():
                loss = self.module.loss(self.module.outputs(images), targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.average.update_parameters(self.module.network)
