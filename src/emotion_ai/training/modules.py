"""The networks as LightningModules: loss, metrics, optimizer. One class for each task."""

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import ConfigError
from emotion_ai.models.checkpoint import contract_record
from emotion_ai.models.network import FaceNetwork
from emotion_ai.training.augment import Augmentation
from emotion_ai.training.batches import Batch
from emotion_ai.training.random import mix, sample_keys


class FaceModule(pl.LightningModule):
    """What both tasks share: augmentation, optimizer, one-cycle schedule, and randomness from (seed, epoch, sample).

    Args:
        network: what is trained.
        augment: applied to training batches only.
        optimizer: {"name": "sgd" | "adamw", "lr": …, "weight_decay": …}.
        seed: of augmentation and dropout.
    """

    monitor: str
    mode: str

    def __init__(self, network: FaceNetwork, augment: Augmentation, optimizer: dict[str, Any], seed: int) -> None:
        super().__init__()
        self.network = network
        self.augment, self.optimizer_config, self.seed = augment, optimizer, seed
        self.record: dict[str, Any] = {}

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def measure(self, scores: Tensor, targets: Tensor) -> dict[str, Metric]:
        """Updates and returns this task's metrics, by name."""
        raise NotImplementedError

    def augmented(self, images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def training_step(self, batch: Batch, index: int) -> Tensor:
        images, targets, rows = batch
        keys = sample_keys(self.seed, self.current_epoch, rows)
        torch.manual_seed(int(mix(keys[0])))  # dropout, too, draws the same after a resume
        with torch.autocast(self.device.type, enabled=False):  # half precision would move the points
            images, targets = self.augmented(images, targets, keys)
        loss = self.loss(self.network.scores(images.contiguous(memory_format=torch.channels_last)), targets)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        self._judge(batch, "val")

    def test_step(self, batch: Batch, index: int) -> None:
        self._judge(batch, "test")

    def _judge(self, batch: Batch, split: str) -> None:
        images, targets, _ = batch
        scores = self.network.scores(images)
        size = len(images)
        self.log(f"{split}/loss", self.loss(scores, targets), batch_size=size, sync_dist=True)
        for name, metric in self.measure(scores, targets).items():
            self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)

    def configure_optimizers(self) -> Any:
        name, lr = self.optimizer_config["name"], self.optimizer_config["lr"]
        decay = self.optimizer_config["weight_decay"]
        # gains and offsets are not shrunk: decay is for directions that scale
        matrices = [p for p in self.parameters() if p.ndim > 1]
        vectors = [p for p in self.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        optimizer: torch.optim.Optimizer
        if name == "sgd":
            optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
        elif name == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=lr)
        else:
            raise ConfigError(f"optimizer.name={name}: choose sgd or adamw")
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, total_steps=steps, pct_start=0.2, cycle_momentum=False, div_factor=10
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["network"] = self.network.config
        checkpoint["contract"] = contract_record()
        checkpoint["record"] = self.record


class KeypointModule(FaceModule):
    """Smooth L1 on the annotated coordinates, in pixels; points that are not annotated weigh nothing.

    Args:
        beta: error in pixels above which the loss grows linearly (Girshick 2015, arXiv:1504.08083).
    """

    monitor, mode = "val/rmse", "min"

    def __init__(self, *args: Any, beta: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.beta = beta
        self.rmse = MeanSquaredError(squared=False)

    def augmented(self, images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        images, points = self.augment(images, targets, keys)
        assert points is not None
        return images, points

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        known = ~targets.isnan()
        errors = F.smooth_l1_loss(scores, targets.nan_to_num(), reduction="none", beta=self.beta)
        return (errors * known).sum() / known.sum().clamp(min=1)

    def measure(self, scores: Tensor, targets: Tensor) -> dict[str, Metric]:
        known = ~targets.isnan()
        if known.any():
            self.rmse.update(scores[known], targets[known])
        return {"rmse": self.rmse}


class EmotionModule(FaceModule):
    """Cross-entropy with label smoothing; rare classes weigh more.

    Args:
        class_counts: faces of each class in the training rows.
        balance: exponent of the inverse frequency; 0 weighs all faces alike, 1 all classes.
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567).
    """

    monitor, mode = "val/accuracy", "max"

    def __init__(self, *args: Any, class_counts: list[int], balance: float, smoothing: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        counts = torch.tensor(class_counts, dtype=torch.float32).clamp(min=1)
        weights = counts**-balance
        self.register_buffer("class_weights", weights * counts.sum() / (weights * counts).sum(), persistent=False)
        self.smoothing = smoothing
        self.accuracy = MulticlassAccuracy(len(EMOTIONS), average="micro")
        self.f1 = MulticlassF1Score(len(EMOTIONS), average="macro")

    def augmented(self, images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        return self.augment(images, None, keys)[0], targets

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(scores, targets, weight=self.class_weights, label_smoothing=self.smoothing)  # type: ignore[arg-type]

    def measure(self, scores: Tensor, targets: Tensor) -> dict[str, Metric]:
        self.accuracy.update(scores, targets)
        self.f1.update(scores, targets)
        return {"accuracy": self.accuracy, "macro_f1": self.f1}
