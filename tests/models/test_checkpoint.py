"""Checkpoints whose content is damaged are refused in one line that names the file."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from emotion_ai.contract import Task
from emotion_ai.errors import CheckpointError
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.provenance import RunRecord
from emotion_ai.published import read_header

Parts = dict[str, Any]


def at(*keys: str, value: Any) -> Callable[[Parts], None]:
    """Sets one value of a checkpoint's parts."""

    def change(parts: Parts) -> None:
        for key in keys[:-1]:
            parts = parts[key]
        parts[keys[-1]] = value

    return change


def without(part: str, name: str) -> Callable[[Parts], None]:
    return lambda parts: parts[part].pop(name)


DAMAGE: dict[str, Callable[[Parts], object]] = {
    "network is a list": at("network", value=[1]),
    "network is null": at("network", value=None),
    "contract is text": at("contract", value="all"),
    "record is a number": at("record", value=3),
    "no network": lambda parts: parts.pop("network"),
    "no task": without("network", "task"),
    "no encoder": without("network", "encoder"),
    "unknown key": at("network", "colour", value="red"),
    "encoder is text": at("network", "encoder", value="residual"),
    "encoder is a list": at("network", "encoder", value=[1, 2]),
    "encoder has no name": lambda parts: parts["network"]["encoder"].pop("name"),
    "head is a number": at("network", "head", value=7),
    "widths are text": at("network", "encoder", "widths", value="wide"),
    "widths are empty": at("network", "encoder", "widths", value=[]),
    "widths are negative": at("network", "encoder", "widths", value=[-8, -16]),
    "widths are fractions": at("network", "encoder", "widths", value=[8.5, 16.5]),
    "widths are huge": at("network", "encoder", "widths", value=[10**9, 10**9]),
    "depths are huge": at("network", "encoder", "depths", value=[10**9, 10**9]),
    "depths are text": at("network", "encoder", "depths", value=["a", "b"]),
    "strides are null": at("network", "encoder", "strides", value=[None, None]),
    "dropout is text": at("network", "dropout", value="none"),
    "mean is text": at("network", "mean", value="grey"),
    "std is zero": at("network", "std", value=0),
    "std is NaN": at("network", "std", value=float("nan")),
    "mean is a list": at("network", "mean", value=[1]),
    "other weights": at("weights", "head.linear.weight", value=torch.zeros(7, 3)),
    "a weight is missing": without("weights", "head.linear.weight"),
    "NaN": at("weights", "head.linear.bias", value=torch.full((5,), torch.nan)),
    "infinity": at("weights", "head.linear.bias", value=torch.full((5,), torch.inf)),
    "metrics are a list": at("record", "metrics", value=[1]),
    "a metric is text": at("record", "metrics", value={"val/accuracy": "high"}),
    "the threshold is a list": at("record", "calibration", value={"uncertain_below": [1]}),
    "config is text": at("record", "config", value="default"),
    "data is a list": at("record", "data", value=[1]),
    "a split is text": at("record", "data", value={"how": "x", "train": "faces"}),
    "a split lacks a key": at("record", "data", value={"how": "x", "train": {"faces": 3}}),
}


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused(
    damage: str, kind: str, tmp_path: Path, networks: dict[Task, FaceNetwork]
) -> None:
    path = tmp_path / "network.safetensors"
    save_network(networks["emotion"], path, RunRecord(config={"seed": 0}))
    parts: Parts = {**read_header(path), "weights": load_file(path)}
    DAMAGE[damage](parts)
    weights = parts.pop("weights")
    if kind == "ckpt":
        path = path.with_suffix(".ckpt")
        torch.save(parts | {"state_dict": {f"network.{name}": value for name, value in weights.items()}}, path)
    else:
        path.write_bytes(save(weights, {name: json.dumps(value) for name, value in parts.items()}))
    with pytest.raises(CheckpointError) as refused:
        load_network(path, "emotion")
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"PK\x03\x04 not an archive",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 4) + b"[1]",
        struct.pack("<Q", 20_000) + b"[" * 20_000,
        struct.pack("<Q", 20) + b'{"__metadata__":null}',
        struct.pack("<Q", 18) + b'{"__metadata__":1}',
    ],
    ids=range(9),
)
def test_a_file_of_another_kind_is_refused(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"file.{kind}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        load_network(path, "emotion")
    assert str(path) in str(refused.value)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Attack()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_network(tmp_path / "evil.ckpt", "emotion")
    assert not (tmp_path / "ran").exists()
