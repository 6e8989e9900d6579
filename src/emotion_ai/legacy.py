"""Old names of settings and of keys in records, and their translation. Kept for one release.

Old command lines, run.json files and checkpoints are all read through this module.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

SETTINGS = {
    "batch": "batch_size",
    "ema": "ema_decay",
    "init": "init_from",
    "distil": "distill_weight",
    "distil_shift": "teacher_shift_px",
    "report": "test",
    "data.select": "data.val",
    "data.votes": "data.vote_file",
    "data.without_twins": "data.without_duplicates",
    "model.dropout": "task.dropout",
    "task.votes": "task.vote_weight",
    "task.smoothing": "task.label_smoothing",
    "task.balance": "task.class_weight_power",
    "task.beta": "task.smooth_l1_beta",
    "task.optimizer.name": "optimizer",
    "task.optimizer.lr": "optimizer.lr",
    "task.optimizer.weight_decay": "optimizer.weight_decay",
}
"""Dotted keys of the training and evaluation configs, old to new."""

_OVERRIDE = re.compile(r"(?P<prefix>\+\+|\+|~|)(?P<key>[\w./]+)(?P<rest>=.*|)", re.DOTALL)
_SWEEP = re.compile(r"(choice|range|interval|shuffle)\(")
_OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adamw": {"_target_": "torch.optim.AdamW", "betas": [0.9, 0.999]},
    "sgd": {"_target_": "torch.optim.SGD", "momentum": 0.9, "nesterov": True},
}
_SCHEDULER = {"name": "one_cycle", "pct_start": 0.2, "div_factor": 10, "final_div_factor": 10000}
"""What older versions had in code; now settings."""


def translate_overrides(overrides: Sequence[str]) -> tuple[list[str], str | None]:
    """Hydra overrides with current names, and a one-line notice if any had an old one.

    `data.val=FILE` without `data.test` is the old spelling of `data.test=FILE`.
    """
    keys = [match["key"] if (match := _OVERRIDE.fullmatch(text)) else "" for text in overrides]
    translated, notices = [], []
    for text, key in zip(overrides, keys, strict=True):
        match = _OVERRIDE.fullmatch(text)
        new = SETTINGS.get(key)
        if key == "data.val" and match and "data.test" not in keys and not is_share(match["rest"][1:]):
            new = "data.test"
        if match is None or new is None:
            translated.append(text)
            continue
        prefix = "" if new == "optimizer" else match["prefix"]  # a config group takes no ++
        translated.append(f"{prefix}{new}{match['rest']}")
        notices.append(f"{key} is now {new}")
    return translated, "; ".join(notices) or None


def is_share(text: str) -> bool:
    """Whether an override's value is a number, or a sweep over numbers, and not a file."""
    if _SWEEP.match(text):
        return True
    try:
        [float(part) for part in text.split(",")]
    except ValueError:
        return False
    return True


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's recorded settings with current names. Current records come back unchanged."""
    new: dict[str, Any] = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    data, task, model = (new.get(section, {}) for section in ("data", "task", "model"))
    if "select" in data and "val" in data:  # data.val named the file of the test split
        data["test"] = data.pop("val")
    if optimizer := task.pop("optimizer", None):
        rates = {key: value for key, value in optimizer.items() if key != "name"}
        new["optimizer"] = _OPTIMIZERS.get(optimizer.get("name", "adamw"), {}) | rates
        new |= {"scheduler": _SCHEDULER, "compile": False}
        task["augment"] = dict(task.get("augment", {})) | {"erasing_size": [0.1, 0.4]}
        if task.get("name") == "emotion":
            task["confident_accuracy"] = 0.9
    if task.get("name") == "keypoints":
        model.pop("dropout", None)  # had no effect
    for old, current in SETTINGS.items():
        section, _, key = old.rpartition(".")
        holder = new.get(section) if section else new
        if isinstance(holder, dict) and key in holder:
            target_section, _, target_key = current.rpartition(".")
            target = new.setdefault(target_section, {}) if target_section else new
            target[target_key] = holder.pop(key)
    return new


def upgrade_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A run record with current names: "data" has train, val and test. Current records come back unchanged."""
    new = dict(record)
    if "config" in new:
        new["config"] = upgrade_config(new["config"])
    if "data" in new:
        names = {
            "select": "val",
            "report": "test",
            "training_twins_of_report_removed": "training_duplicates_of_test_removed",
        }
        new["data"] = {names.get(key, key): value for key, value in new["data"].items()}
    return new
