"""The networks as LightningModules: loss, metrics, optimizer. One class for each task."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.utilities import dim_zero_cat

from emotion_ai.contract import CROP_SIZE, EMOTIONS
from emotion_ai.data.augment import Augmentation
from emotion_ai.data.batches import Batch
from emotion_ai.data.keyed_random import mix, sample_keys
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.calibration import fit_temperature
from emotion_ai.models.checkpoint import contract_record
from emotion_ai.models.network import FaceNetwork


class FaceModule(pl.LightningModule):
    """What both tasks share: augmentation, optimizer, one-cycle schedule, and randomness from (seed, epoch, sample).

    Args:
        network: what is trained.
        augment: applied to training batches only.
        optimizer: {"name": "sgd" | "adamw", "lr": …, "weight_decay": …}.
        seed: of augmentation and dropout.
        teachers: networks whose answers to the augmented faces, and to their mirror images, are targets, too (Hinton et
            al. 2015, arXiv:1503.02531; the same view for both as in Beyer et al. 2022, arXiv:2106.05237).
        distil: the teachers' share of the loss.
        distil_shift: pixels, up to so many either way on each axis, by which the teachers' view is shifted.
    """

    monitor: str
    mode: str

    def __init__(
        self,
        network: FaceNetwork,
        augment: Augmentation,
        optimizer: dict[str, Any],
        seed: int,
        teachers: Sequence[FaceNetwork] = (),
        distil: float = 0.0,
        distil_shift: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= distil_shift < CROP_SIZE:
            raise ConfigError(f"distil_shift={distil_shift}: wanted are pixels of the {CROP_SIZE}x{CROP_SIZE} frame")
        if bool(teachers) != bool(distil) or not 0 <= distil <= 1:
            raise ConfigError(
                f"distil={distil} with {len(teachers)} teachers: give teachers and a share up to 1, or none"
            )
        self.network = network
        self.augment, self.optimizer_config, self.seed = augment, optimizer, seed
        self.teachers, self.distil = tuple(teachers), distil  # a tuple: they are no part of what is trained and saved
        self.distil_shift = distil_shift
        self.record: dict[str, Any] = {}

    def answers(self, images: Tensor) -> Any:
        """What the loss and the metrics are computed from."""
        raise NotImplementedError

    def loss(self, answers: Any, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def teacher_loss(self, answers: Any, taught: Tensor) -> Tensor:
        """Distance to the teachers' mean answer."""
        raise NotImplementedError

    def measure(self, answers: Any, targets: Tensor, choosing: bool) -> dict[str, Metric]:
        """Updates and returns this task's metrics, by name; `choosing` where the faces are those that choices use."""
        raise NotImplementedError

    def augmented(self, images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def training_step(self, batch: Batch, index: int) -> Tensor:
        images, targets, rows = batch
        keys = sample_keys(self.seed, self.current_epoch, rows)
        torch.manual_seed(int(mix(keys[0])))  # dropout, too, draws the same after a resume
        with torch.autocast(self.device.type, enabled=False):  # half precision would move the points
            images, targets = self.augmented(images, targets, keys)
        images = images.contiguous(memory_format=torch.channels_last)
        answers = self.answers(images)
        loss = self.loss(answers, targets)
        if self.teachers:
            taught = self._taught(images, int(mix(keys[-1])))
            loss = torch.lerp(loss, self.teacher_loss(answers, taught), self.distil)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images))
        return loss

    @torch.no_grad()
    def _taught(self, images: Tensor, draw: int) -> Tensor:
        """One teacher's answer to one view of the faces; on average that of all to all shifted and mirrored views.

        Whole pixels are shifted, the border replicated: what is averaged out is how the network's strides fall.
        """
        draw, mirror = divmod(draw, 2)
        draw, index = divmod(draw, len(self.teachers))
        sides = 2 * self.distil_shift + 1
        down, across = (step - self.distil_shift for step in divmod(draw % sides**2, sides))
        teacher, reach = self.teachers[index].to(self.device), self.distil_shift
        view = F.pad(images, (reach, reach, reach, reach), mode="replicate")
        view = view[:, :, reach - down : reach - down + CROP_SIZE, reach - across : reach - across + CROP_SIZE]
        answers = (teacher.mirrored(view) if mirror else teacher(view)).float()
        if self.network.task == "emotion":
            return answers
        return answers - torch.tensor([across, down], device=answers.device)

    def validation_step(self, batch: Batch, index: int) -> None:
        self._judge(batch, "val")

    def test_step(self, batch: Batch, index: int) -> None:
        self._judge(batch, "test")

    def _judge(self, batch: Batch, split: str) -> None:
        images, targets, _ = batch
        answers = self.answers(images)
        size = len(images)
        self.log(f"{split}/loss", self.loss(answers, targets), batch_size=size, sync_dist=True)
        for name, metric in self.measure(answers, targets, split == "val").items():
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
        steps = max(int(self.trainer.estimated_stepping_batches), 3)  # of fewer, torch makes no cycle
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, total_steps=steps, pct_start=max(0.2, 2 / steps), cycle_momentum=False, div_factor=10
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["network"] = self.network.config
        checkpoint["contract"] = contract_record()
        checkpoint["record"] = self.record


class KeypointModule(FaceModule):
    """Smooth L1 on the annotated coordinates, in pixels; points that are not annotated weigh nothing.

    The deviations learn by the Gaussian likelihood of the errors (Nix and Weigend 1994, doi:10.1109/ICNN.1994.374138),
    which reaches neither the points nor the encoder.

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

    def answers(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.uncertainty(images)

    def loss(self, answers: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        points, deviations = answers
        known = ~targets.isnan()
        targets, count = targets.nan_to_num(), known.sum().clamp(min=1)
        errors = F.smooth_l1_loss(points, targets, reduction="none", beta=self.beta)
        surprise = F.gaussian_nll_loss(points.detach(), targets, deviations.square(), reduction="none")
        return ((errors + surprise) * known).sum() / count

    def teacher_loss(self, answers: tuple[Tensor, Tensor], taught: Tensor) -> Tensor:
        return F.smooth_l1_loss(answers[0], taught, beta=self.beta)

    def measure(self, answers: tuple[Tensor, Tensor], targets: Tensor, choosing: bool) -> dict[str, Metric]:
        known = ~targets.isnan()
        if known.any():
            self.rmse.update(answers[0][known], targets[known])
        return {"rmse": self.rmse}


class CalibratedLoss(Metric):
    """Mean negative log-likelihood of the labels after temperature scaling: how good the network is once calibrated.

    It tells epochs apart more finely than accuracy does, and does not punish what was learnt from soft targets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Takes logits float (N, 5) and classes int64 (N,)."""
        self.logits.append(logits.detach().float())  # type: ignore[operator, union-attr]
        self.labels.append(labels)  # type: ignore[operator, union-attr]

    def compute(self) -> Tensor:
        logits, labels = dim_zero_cat(self.logits), dim_zero_cat(self.labels)  # type: ignore[arg-type]
        if not logits.isfinite().all():
            return logits.new_tensor(torch.inf)
        return F.cross_entropy(logits / fit_temperature(logits.cpu().numpy(), labels.cpu().numpy()), labels)


class EmotionModule(FaceModule):
    """Cross-entropy with label smoothing; rare classes weigh more. Targets are classes, or distributions (N, 5).

    Args:
        class_counts: faces of each class in the training rows.
        balance: exponent of the inverse frequency; 0 weighs all faces alike, 1 all classes.
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567).
        mixup: each face is blended with another of its batch, and their targets alike, by shares of the Beta(mixup,
            mixup) distribution (Zhang et al. 2018, arXiv:1710.09412); 0 blends none.
    """

    monitor, mode = "val/calibrated_loss", "min"

    def __init__(
        self, *args: Any, class_counts: list[int], balance: float, smoothing: float, mixup: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if mixup < 0:
            raise ConfigError(f"task.mixup={mixup}: wanted is 0 or more")
        self.mixup = mixup
        counts = torch.tensor(class_counts, dtype=torch.float32).clamp(min=1)
        weights = counts**-balance
        self.register_buffer("class_weights", weights * counts.sum() / (weights * counts).sum(), persistent=False)
        self.smoothing = smoothing
        self.accuracy = MulticlassAccuracy(len(EMOTIONS), average="micro")
        self.f1 = MulticlassF1Score(len(EMOTIONS), average="macro")
        self.calibrated_loss = CalibratedLoss()

    def augmented(self, images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        images = self.augment(images, None, keys)[0]
        if not self.mixup:
            return images, targets
        if targets.ndim == 1:
            targets = F.one_hot(targets, len(EMOTIONS)).float()
        shares = torch.distributions.Beta(self.mixup, self.mixup).sample((len(images), 1)).to(images.device)
        images = torch.lerp(images.roll(1, 0), images, shares[:, :, None, None])
        return images, torch.lerp(targets.roll(1, 0), targets, shares)

    def answers(self, images: Tensor) -> Tensor:
        return self.network.scores(images)

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(answers, targets, weight=self.class_weights, label_smoothing=self.smoothing)  # type: ignore[arg-type]

    def teacher_loss(self, answers: Tensor, taught: Tensor) -> Tensor:
        return F.cross_entropy(answers, taught)

    def measure(self, answers: Tensor, targets: Tensor, choosing: bool) -> dict[str, Metric]:
        self.accuracy.update(answers, targets)
        self.f1.update(answers, targets)
        metrics: dict[str, Metric] = {"accuracy": self.accuracy, "macro_f1": self.f1}
        if choosing:
            self.calibrated_loss.update(answers, targets)
            metrics["calibrated_loss"] = self.calibrated_loss
        return metrics
