"""The networks as LightningModules: loss and metrics. One class for each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.utilities import dim_zero_cat

from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.augment import Augmentation
from emotion_ai.data.batches import Batch
from emotion_ai.data.keyed_random import mix, sample_keys
from emotion_ai.evaluation.calibration import fit_temperature
from emotion_ai.models.checkpoint import contract_record
from emotion_ai.models.network import FaceNetwork
from emotion_ai.provenance import RunRecord
from emotion_ai.training.config import Scheduler
from emotion_ai.training.optim import build_optimizer, build_scheduler, follow


@dataclass(frozen=True)
class Teachers:
    """Networks to distill from (Hinton et al. 2015, arXiv:1503.02531).

    Student and teacher see the same augmented crop (Beyer et al. 2022, arXiv:2106.05237), the teacher also mirrored and
    shifted.

    Attributes:
        weight: share of the distillation loss.
        shift_px: shifts of the teacher's view, up to this either way on each axis.
    """

    networks: tuple[FaceNetwork, ...] = ()
    weight: float = 0.0
    shift_px: int = 0


class FaceModule(pl.LightningModule):
    """What both tasks share: augmentation, distillation, optimizer, and randomness from (seed, epoch, sample).

    Args:
        network: the network to train.
        augment: applied to training batches only.
        seed: of augmentation and dropout.
        optimizer: `_target_` and arguments; None for a module that is not trained by Lightning.
        scheduler: of the learning rate.
        teachers: to distill from.
    """

    monitor: str
    mode: str

    def __init__(
        self,
        network: FaceNetwork,
        augment: Augmentation,
        seed: int,
        optimizer: Mapping[str, Any] | None = None,
        scheduler: Scheduler | None = None,
        teachers: Teachers | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.augment: Callable[[Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor | None]] = augment
        self.seed = seed
        self.optimizer_settings, self.scheduler_settings = optimizer, scheduler
        self.teachers = teachers or Teachers()  # no submodules: they are neither trained nor saved
        self.record = RunRecord()
        self._evaluated: list[tuple[Tensor, Tensor]] = []

    def outputs(self, images: Tensor) -> Any:
        """What loss and metrics are computed from."""
        raise NotImplementedError

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def outputs_and_loss(self, images: Tensor, targets: Tensor) -> tuple[Any, Tensor]:
        outputs = self.outputs(images)
        return outputs, self.loss(outputs, targets)

    def compile_step(self) -> None:
        """Compiles what a training step computes on the device, for batches of one size. Validation stays as it is."""
        self.augment = torch.compile(self.augment.__call__, dynamic=False)  # type: ignore[operator]
        self.outputs_and_loss = torch.compile(self.outputs_and_loss, dynamic=False)  # type: ignore[method-assign]

    def weight(self, targets: Tensor) -> Tensor:
        """What the loss is a mean over, float32: labelled coordinates, or faces by the weight of their class."""
        raise NotImplementedError

    def teacher_loss(self, outputs: Any, predictions: Tensor, targets: Tensor) -> Tensor:
        """Distance to a teacher's predictions."""
        raise NotImplementedError

    def predicted(self, outputs: Any) -> Tensor:
        """What the metrics take of the outputs."""
        raise NotImplementedError

    def update_metrics(self, predicted: Tensor, targets: Tensor, split: str) -> dict[str, Metric]:
        """Updates this task's metrics and returns them by name."""
        raise NotImplementedError

    def augmented(self, images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def training_step(self, batch: Batch, index: int) -> Tensor:
        images, targets, rows = batch
        keys = sample_keys(self.seed, self.current_epoch, torch.from_numpy(rows))  # on the processor
        torch.manual_seed(int(mix(keys[0])))  # dropout, too, draws the same numbers after a resume
        with torch.autocast(self.device.type, enabled=False):  # half precision would move the points
            images, targets = self.augmented(images, targets, keys.to(self.device, non_blocking=True))
        images = images.contiguous(memory_format=torch.channels_last)
        outputs, loss = self.outputs_and_loss(images, targets)
        loss = loss * self._share(targets)
        if self.teachers.networks:
            teacher_targets = self.teacher_targets(images, int(mix(keys[-1])))
            loss = torch.lerp(loss, self.teacher_loss(outputs, teacher_targets, targets), self.teachers.weight)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images))
        return loss

    def _share(self, targets: Tensor) -> Tensor | float:
        """What this process's targets weigh, relative to the mean over all processes, whose gradients are averaged."""
        if self.trainer.world_size == 1:
            return 1.0
        own = self.weight(targets)
        mean: Tensor = self.trainer.strategy.reduce(own.clone(), reduce_op="mean")
        return own / mean.clamp(min=1e-6)

    @torch.no_grad()
    def teacher_targets(self, images: Tensor, draw: int) -> Tensor:
        """One teacher's predictions for one view of the crops, moved back to the crops.

        `draw` picks teacher, shift and mirror image uniformly: the mean over draws is that over all of them. Shifts are
        whole pixels, the border replicated; they average out the effect of the network's strides.
        """
        reach = self.teachers.shift_px
        draw, mirror = divmod(draw, 2)
        draw, index = divmod(draw, len(self.teachers.networks))
        sides = 2 * reach + 1
        down, across = (step - reach for step in divmod(draw % sides**2, sides))
        teacher = self.teachers.networks[index].to(self.device)
        view = F.pad(images, (reach, reach, reach, reach), mode="replicate")
        view = view[:, :, reach - down : reach - down + CROP_SIZE, reach - across : reach - across + CROP_SIZE]
        predictions: Tensor = (teacher.mirrored(view) if mirror else teacher(view)).float()
        if self.network.task == "emotion":
            return predictions
        return torch.stack([predictions[..., 0] - across, predictions[..., 1] - down], -1)

    def validation_step(self, batch: Batch, index: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, index: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, split: str) -> None:
        images, targets, _ = batch
        outputs = self.outputs(images)
        self.log(f"{split}/loss", self.loss(outputs, targets), batch_size=len(images), sync_dist=True)
        self._evaluated.append((self.predicted(outputs), targets))

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _log_metrics(self, split: str) -> None:
        """Computes the metrics of all batches at once: with each batch they would wait for a GPU several times."""
        if not self._evaluated:
            return
        predicted, targets = (torch.cat(parts) for parts in zip(*self._evaluated, strict=True))
        self._evaluated.clear()
        for name, metric in self.update_metrics(predicted, targets, split).items():
            self.log(f"{split}/{name}", metric, prog_bar=True)

    def configure_optimizers(self) -> Any:
        assert self.optimizer_settings is not None
        assert self.scheduler_settings is not None
        optimizer = build_optimizer(self, self.optimizer_settings, clipped=bool(self.trainer.gradient_clip_val))
        steps = self.trainer.estimated_stepping_batches
        scheduler = build_scheduler(optimizer, self.scheduler_settings, steps, self.monitor, self.mode)
        return optimizer if scheduler is None else {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for state in checkpoint.get("lr_schedulers", []):  # the length of the run is a setting of today
            for key in ("total_steps", "_schedule_phases"):
                state.pop(key, None)

    def on_train_start(self) -> None:
        if self.trainer.global_step:
            for config in self.trainer.lr_scheduler_configs:
                follow(config.scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["network"] = self.network.config
        checkpoint["contract"] = contract_record()
        checkpoint["record"] = self.record.as_dict()


class KeypointModule(FaceModule):
    """Smooth L1 on the annotated coordinates, in pixels; points without a label are ignored.

    Standard deviations are fitted by the Gaussian negative log-likelihood of the errors (Nix and Weigend 1994,
    doi:10.1109/ICNN.1994.374138), whose gradient reaches neither the points nor the encoder.

    Args:
        smooth_l1_beta: error in pixels above which the loss grows linearly (Girshick 2015, arXiv:1504.08083).
    """

    monitor, mode = "val/rmse", "min"

    def __init__(self, *args: Any, smooth_l1_beta: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.smooth_l1_beta = smooth_l1_beta
        self.rmse = MeanSquaredError(squared=False)

    def augmented(self, images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        images, points = self.augment(images, targets, keys)
        assert points is not None
        return images, points

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.uncertainty(images)

    def loss(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        points, deviations = outputs
        known = ~targets.isnan()
        targets, count = targets.nan_to_num(), known.sum().clamp(min=1)
        errors = F.smooth_l1_loss(points, targets, reduction="none", beta=self.smooth_l1_beta)
        variances = deviations.square().clamp(min=1e-6)
        # PyTorch's own function checks the variances, and waits for a GPU
        nll = 0.5 * (variances.log() + (points.detach() - targets) ** 2 / variances)
        return ((errors + nll) * known).sum() / count

    def weight(self, targets: Tensor) -> Tensor:
        return (~targets.isnan()).sum().float()

    def teacher_loss(self, outputs: tuple[Tensor, Tensor], predictions: Tensor, targets: Tensor) -> Tensor:
        return F.smooth_l1_loss(outputs[0], predictions, beta=self.smooth_l1_beta)

    def predicted(self, outputs: tuple[Tensor, Tensor]) -> Tensor:
        return outputs[0]

    def update_metrics(self, predicted: Tensor, targets: Tensor, split: str) -> dict[str, Metric]:
        known = ~targets.isnan()
        if known.any():
            self.rmse.update(predicted[known], targets[known])
        return {"rmse": self.rmse}


class CalibratedLoss(Metric):
    """Mean negative log-likelihood of the labels after temperature scaling.

    It ranks epochs more finely than accuracy does, and does not penalize networks trained on soft targets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Takes logits float (N, K) and classes int64 (N,)."""
        self.logits.append(logits.detach().float())  # type: ignore[operator, union-attr]
        self.labels.append(labels)  # type: ignore[operator, union-attr]

    def compute(self) -> Tensor:
        logits, labels = dim_zero_cat(self.logits), dim_zero_cat(self.labels)  # type: ignore[arg-type]
        if not logits.isfinite().all():
            return logits.new_tensor(torch.inf)
        return F.cross_entropy(logits / fit_temperature(logits.cpu().numpy(), labels.cpu().numpy()), labels)


class EmotionModule(FaceModule):
    """Cross-entropy with label smoothing and class weights. Targets are classes, or distributions (N, K).

    Args:
        class_counts: training faces of each class.
        class_weight_power, label_smoothing, mixup: as in `EmotionTask`.
    """

    monitor, mode = "val/calibrated_loss", "min"
    class_weights: Tensor

    def __init__(
        self,
        *args: Any,
        class_counts: list[int],
        class_weight_power: float,
        label_smoothing: float,
        mixup: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.mixup, self.label_smoothing = mixup, label_smoothing
        counts = torch.tensor(class_counts, dtype=torch.float32).clamp(min=1)
        weights = counts**-class_weight_power
        self.register_buffer("class_weights", weights * counts.sum() / (weights * counts).sum(), persistent=False)
        self.classes = self.network.spec.class_set
        self.accuracy = MulticlassAccuracy(len(self.classes), average="micro")
        self.f1 = MulticlassF1Score(len(self.classes), average="macro")
        self.emotion_accuracy = MulticlassAccuracy(self.classes.emotions, average="micro")
        self.calibrated_loss = CalibratedLoss()

    def augmented(self, images: Tensor, targets: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        images = self.augment(images, None, keys)[0]
        if not self.mixup:
            return images, targets
        targets = self.distributions(targets)
        shares = torch.distributions.Beta(self.mixup, self.mixup).sample((len(images), 1))
        shares = shares.to(images.device, non_blocking=True)
        images = torch.lerp(images.roll(1, 0), images, shares[:, :, None, None])
        return images, torch.lerp(targets.roll(1, 0), targets, shares)

    def outputs(self, images: Tensor) -> Tensor:
        return self.network.scores(images)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.ndim == 2:
            return F.cross_entropy(outputs, targets, weight=self.class_weights, label_smoothing=self.label_smoothing)
        # what PyTorch computes for classes, too, but after a search for ignored ones, for which it waits for a GPU
        logs, weights = outputs.log_softmax(1), self.class_weights
        named = F.nll_loss(logs, targets, weights)
        spread = -(logs * weights).sum(1).sum() / weights.gather(0, targets).sum()
        return (1 - self.label_smoothing) * named + spread * (self.label_smoothing / outputs.shape[1])

    def weight(self, targets: Tensor) -> Tensor:
        if targets.ndim == 2:  # distributions: faces alone count
            return torch.full((), float(len(targets)), device=targets.device)
        return self.class_weights[targets].sum()

    def teacher_loss(self, outputs: Tensor, predictions: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy. A teacher of the five emotions divides the targets' share of these among them."""
        if predictions.shape[1] < len(self.classes):
            targets = self.distributions(targets)
            emotions, others = targets.split([self.classes.emotions, len(self.classes) - self.classes.emotions], 1)
            predictions = torch.cat([predictions * emotions.sum(1, keepdim=True), others], 1)
        return F.cross_entropy(outputs, predictions)

    def distributions(self, targets: Tensor) -> Tensor:
        """Targets as distributions, float32 (N, K)."""
        return F.one_hot(targets, len(self.classes)).float() if targets.ndim == 1 else targets

    def predicted(self, outputs: Tensor) -> Tensor:
        return outputs

    def update_metrics(self, predicted: Tensor, targets: Tensor, split: str) -> dict[str, Metric]:
        self.accuracy.update(predicted, targets)
        self.f1.update(predicted, targets)
        metrics: dict[str, Metric] = {"accuracy": self.accuracy, "macro_f1": self.f1}
        count = self.classes.emotions
        if count < len(self.classes) and (rows := targets < count).any():
            self.emotion_accuracy.update(predicted[rows, :count], targets[rows])
            metrics["emotion_accuracy"] = self.emotion_accuracy
        if split == "val":
            self.calibrated_loss.update(predicted, targets)
            metrics["calibrated_loss"] = self.calibrated_loss
        return metrics
