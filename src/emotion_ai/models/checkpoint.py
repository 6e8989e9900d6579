"""Weights on disk. Both kinds load without unpickling code: safetensors files, and Lightning's checkpoints through
`weights_only=True`."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from emotion_ai.contract import CROP_SIZE, EMOTIONS, KEYPOINTS, Task
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models.network import FaceNetwork

WEIGHTS = Path(__file__).parents[1] / "assets" / "weights"


def bundled(task: Task) -> Path:
    """Where the weights that come with the package lie."""
    return WEIGHTS / f"{task}.safetensors"


def contract_record() -> dict[str, Any]:
    """Written into every checkpoint, so that a file says by itself what its outputs mean."""
    return {"frame": CROP_SIZE, "keypoints": list(KEYPOINTS), "emotions": list(EMOTIONS)}


def save_network(network: FaceNetwork, path: Path, record: dict[str, Any]) -> None:
    """Writes weights, the network's config, the contract and `record` (metrics, data, seed) as one safetensors file."""
    metadata = {"network": network.config, "contract": contract_record(), "record": record}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, {key: json.dumps(value) for key, value in metadata.items()})
    partial.chmod(0o644)  # a server of another user reads it too
    partial.replace(path)


def load_network(checkpoint: str | Path, task: Task) -> tuple[FaceNetwork, dict[str, Any]]:
    """The network of a checkpoint, in evaluation mode on the CPU, and the record that was saved with it.

    Args:
        checkpoint: "bundled", a `.safetensors` file, or a Lightning `.ckpt` file.
        task: what the network must be for.

    Raises:
        CheckpointError: missing, damaged, of another task, or of another contract.
    """
    path = bundled(task) if checkpoint == "bundled" else Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give 'bundled', a .safetensors or a .ckpt file")
    state, config, contract, record = _read_safetensors(path) if path.suffix == ".safetensors" else _read_ckpt(path)
    if config.get("task") != task:
        raise CheckpointError(f"{path}: holds a network for {config.get('task')!r}, but {task!r} is wanted")
    if contract != contract_record():
        raise CheckpointError(f"{path}: was made for another frame, other points or other classes; train it anew")
    try:
        network = FaceNetwork(**config)
        network.load_state_dict(state)
    except (ConfigError, RuntimeError, TypeError) as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{path}: its weights do not fit its own config ({first})") from error
    return network.eval(), record


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return state, *(json.loads(metadata[key]) for key in ("network", "contract", "record"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); fetch or export it again") from error
    except KeyError as error:
        raise CheckpointError(f"{path}: has no {error} in its metadata; it was not written by emotion-ai") from error


def _read_ckpt(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state = {k.removeprefix("network."): v for k, v in saved["state_dict"].items() if k.startswith("network.")}
        return state, saved["network"], saved["contract"], saved["record"]
    except KeyError as error:
        raise CheckpointError(f"{path}: has no {error}; it was not written by emotion-ai train") from error
    except Exception as error:  # torch raises half a dozen kinds for damaged archives
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({first})") from error
