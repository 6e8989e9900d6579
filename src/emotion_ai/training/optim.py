"""Optimizer and learning-rate schedule from their settings."""

import math
from collections.abc import Mapping
from typing import Any

import hydra.utils
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from emotion_ai.errors import ConfigError
from emotion_ai.training.config import Cosine, OneCycle, Plateau, Scheduler

_FUSED = ("torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD")
"""Optimizers with an implementation that changes all parameters at once."""


def build_optimizer(module: nn.Module, settings: Mapping[str, Any], clipped: bool = False) -> Optimizer:
    """The optimizer that `_target_` names, over the module's parameters.

    Weight decay applies to matrices and kernels only, not to gains and offsets. On a GPU the optimizer is fused, unless
    the settings say otherwise.

    Args:
        clipped: gradients are clipped, which Lightning does not do for a fused optimizer.

    Raises:
        ConfigError: a target that cannot be imported, or that refuses an argument.
    """
    decay = settings.get("weight_decay", 0.0)
    groups = [
        {"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    on_gpu = next(module.parameters()).device.type == "cuda"
    if on_gpu and not clipped and settings["_target_"] in _FUSED and settings.keys().isdisjoint({"fused", "foreach"}):
        settings = {**settings, "fused": True}
    optimizer: Optimizer = build(settings, "optimizer", groups)
    return optimizer


def build_scheduler(
    optimizer: Optimizer, settings: Scheduler, steps: float, monitor: str, mode: str
) -> dict[str, Any] | None:
    """Lightning's description of the schedule; None for a constant rate.

    Args:
        steps: of the whole run.
        monitor, mode: the metric that `plateau` watches, and "min" or "max".

    Raises:
        ConfigError: a schedule over an unlimited number of steps.
    """
    schedule: LRScheduler | ReduceLROnPlateau
    rate: float = optimizer.param_groups[0]["lr"]
    if isinstance(settings, Plateau):
        schedule = ReduceLROnPlateau(optimizer, mode, settings.factor, settings.patience)  # type: ignore[arg-type]
        return {"scheduler": schedule, "interval": "epoch", "monitor": monitor}
    if not isinstance(settings, OneCycle | Cosine):
        return None
    if steps == float("inf"):
        raise ConfigError(f"scheduler={settings.name} needs a limited number of steps; choose scheduler=none")
    if isinstance(settings, OneCycle):
        total = max(int(steps), 3)  # torch refuses shorter cycles
        schedule = OneCycleLR(
            optimizer,
            rate,
            total_steps=total,
            pct_start=max(settings.pct_start, 2 / total),
            cycle_momentum=False,
            div_factor=settings.div_factor,
            final_div_factor=settings.final_div_factor,
        )
    else:
        total, low = max(int(steps), 1), settings.final_factor
        # torch's CosineAnnealingLR derives each rate from the one before, which a resumed run may have to change
        schedule = LambdaLR(
            optimizer, lambda step: low + (1 - low) * (1 + math.cos(math.pi * min(step / total, 1))) / 2
        )
    return {"scheduler": schedule, "interval": "step"}


def follow(scheduler: LRScheduler | ReduceLROnPlateau) -> None:
    """Sets the optimizer's rate to that of the schedule's current step, after the schedule's length has changed."""
    if isinstance(scheduler, OneCycleLR | LambdaLR):
        scheduler.last_epoch -= 1
        scheduler.step()


def build(settings: Mapping[str, Any], name: str, *arguments: Any) -> Any:
    """The object that a `_target_` node describes.

    Raises:
        ConfigError: a target that cannot be imported, or that refuses an argument.
    """
    try:
        return hydra.utils.instantiate({"_convert_": "all", **settings}, *arguments)
    except Exception as error:  # the target's own, or Hydra's around it
        cause = error.__cause__ or error
        raise ConfigError(f"{name}: {' '.join(str(cause).split())}") from error
