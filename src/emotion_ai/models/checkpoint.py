"""Networks on disk, as safetensors files or Lightning checkpoints; neither kind is unpickled as code."""

from collections.abc import Mapping
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from emotion_ai.contract import CROP_SIZE, EMOTIONS, KEYPOINTS, Task
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.files import atomic_path
from emotion_ai.models.network import FaceNetwork
from emotion_ai.models.spec import ModelSpec
from emotion_ai.provenance import RunRecord
from emotion_ai.published import read_header

WEIGHTS = Path(__file__).parents[1] / "assets" / "weights"


class LoadedNetwork(NamedTuple):
    """A checkpoint's network, in evaluation mode on the CPU, and the record of its training."""

    network: FaceNetwork
    record: RunRecord


def bundled(task: Task) -> Path:
    """The path of the weights that come with the package."""
    return WEIGHTS / f"{task}.safetensors"


def contract_record() -> dict[str, Any]:
    """The crop size, keypoints and classes, written into every checkpoint to document its outputs."""
    return {"frame": CROP_SIZE, "keypoints": list(KEYPOINTS), "emotions": list(EMOTIONS)}


def save_network(network: FaceNetwork, path: Path, record: RunRecord) -> None:
    """Writes one safetensors file: weights, spec, contract and training record."""
    metadata = {"network": network.spec.as_dict(), "contract": contract_record(), "record": record.as_dict()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_bytes(save(tensors, {key: dumps(value) for key, value in metadata.items()}))


def load_network(checkpoint: str | Path, task: Task) -> LoadedNetwork:
    """Reads a checkpoint, of this or an older version.

    Args:
        checkpoint: "bundled", a `.safetensors` file, or a Lightning `.ckpt` file.
        task: the expected task.

    Raises:
        CheckpointError: missing, damaged, of another task, of another contract, or with weights that are not finite.
    """
    path = bundled(task) if checkpoint == "bundled" else Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give 'bundled', a .safetensors or a .ckpt file")
    saved = _read_safetensors(path) if path.suffix == ".safetensors" else _read_ckpt(path)
    if saved.spec.get("task") != task:
        raise CheckpointError(f"{path}: holds a network for {saved.spec.get('task')!r}, expected {task!r}")
    if saved.contract != contract_record():
        raise CheckpointError(f"{path}: has another crop size, other points or other classes; train it again")
    try:
        spec = ModelSpec(**saved.spec)
        if sum(spec.encoder.get("depths", [])) > len(saved.state):  # rather than build a billion blocks
            raise ValueError(f"depths={spec.encoder['depths']} with {len(saved.state)} tensors")
        with torch.device("meta"):  # settings that do not fit cost no memory
            _check_shapes(FaceNetwork.from_spec(spec), saved.state)
        network = FaceNetwork.from_spec(spec)
        network.load_state_dict(saved.state)
    except (ConfigError, LookupError, ArithmeticError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [repr(error)])[-1].strip()
        raise CheckpointError(f"{path}: the weights do not match the network's settings ({first})") from error
    if bad := [name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()]:
        raise CheckpointError(f"{path}: weights that are not finite ({bad[0]}); train again, with a lower optimizer.lr")
    try:
        record = RunRecord.from_dict(saved.record)
        _ = record.thresholds(spec.classes or ()), record.neutral_lead  # checks them
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: has an unreadable training record ({error}); export it again") from error
    return LoadedNetwork(network.eval(), record)


def read_ckpt(path: Path) -> dict[str, Any]:
    """What a Lightning checkpoint holds, on the CPU.

    Raises:
        CheckpointError: damaged, or something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for damaged archives
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({first})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}; it was not written by emotion-ai train")
    return content


@dataclass(frozen=True)
class _Saved:
    """The parts of a checkpoint file."""

    state: dict[str, Tensor]
    spec: dict[str, Any]
    contract: dict[str, Any]
    record: dict[str, Any]

    @classmethod
    def of(cls, path: Path, state: Any, content: dict[str, Any]) -> Self:
        """Checks that every part is there and of the right kind.

        Raises:
            CheckpointError: one is not.
        """
        parts = {"weights": state} | {name: content.get(name) for name in ("network", "contract", "record")}
        for name, part in parts.items():
            if part is None:
                raise CheckpointError(f"{path}: has no {name!r}; it was not written by emotion-ai train")
            if not isinstance(part, dict):
                raise CheckpointError(f"{path}: its {name!r} is a {type(part).__name__} and not a table; it is damaged")
        return cls(*parts.values())


def _read_safetensors(path: Path) -> _Saved:
    header = read_header(path)
    try:
        return _Saved.of(path, load_file(path), header)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: a damaged safetensors file ({error}); download or export it again") from error


def _read_ckpt(path: Path) -> _Saved:
    content = read_ckpt(path)
    state = content.get("state_dict")
    if isinstance(state, dict):
        state = {key.removeprefix("network."): v for key, v in state.items() if str(key).startswith("network.")}
    return _Saved.of(path, state, content)


def _check_shapes(network: FaceNetwork, state: Mapping[str, Tensor]) -> None:
    for name, wanted in network.state_dict().items():
        if name in state and state[name].shape != wanted.shape:
            raise ValueError(f"{name} has the shape {list(state[name].shape)}, expected {list(wanted.shape)}")
