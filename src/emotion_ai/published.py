"""The layout of a published folder: `<base>/<model>/<version>/assets.extra/…`, and what can be read from it.

Needs neither PyTorch, TensorFlow nor safetensors.
"""

import json
from pathlib import Path
from typing import Any

from emotion_ai.contract import TASKS, Task
from emotion_ai.errors import CheckpointError
from emotion_ai.files import open_regular

CONFIG_FILE = "models.config"
CONTAINER_BASE = "/models"  # where a container sees the folder
PREVIOUS_FILE = ".before.json"  # the version that each label named before
SERVER_FILE = ".server.json"  # labels that a server has confirmed, and versions that it could not load
LAST_FILE = ".last-version"  # the highest number ever published
LOCK_FILE = ".lock"
EXTRA = "assets.extra"
CHECKSUMS_FILE = f"{EXTRA}/SHA256SUMS"
PARITY_FILE = f"{EXTRA}/parity.json"
CONTRACT_FILE = f"{EXTRA}/contract.json"
CARD_FILE = f"{EXTRA}/MODEL_CARD.md"
REFERENCE_FILE = f"{EXTRA}/reference.parquet"
WARMUP_FILE = f"{EXTRA}/tf_serving_warmup_requests"
MODEL_TASKS: dict[str, tuple[Task, ...]] = {"keypoints": ("keypoints",), "emotion": ("emotion",), "face": TASKS}
"""The networks that each served model holds."""

MAX_VERSION = 10**18 - 1  # larger numbers may not fit into the server's int64
_MAX_HEADER = 10 * 2**20  # bytes; ours have some 10 kB


def checkpoint_file(task: Task) -> str:
    """Where a version's checkpoint lies, relative to its folder."""
    return f"{EXTRA}/{task}.safetensors"


def onnx_file(task: str) -> str:
    """Where a version's network lies as ONNX, relative to its folder."""
    return f"{EXTRA}/{task}.onnx"


def litert_file(task: str, kind: str) -> str:
    """Where a version's network lies as a LiteRT file, relative to its folder."""
    return f"{EXTRA}/litert/{task}_{kind}.tflite"


def list_versions(model: Path) -> list[int]:
    """Version numbers below a model's base path, ascending.

    Names that are not plain numbers are skipped, as TensorFlow Serving skips them; so are numbers with leading zeros,
    which it takes for the same version. A missing folder has no versions.
    """
    if not model.is_dir():
        return []
    return sorted(int(p.name) for p in model.iterdir() if _is_number(p.name) and p.is_dir())


def whole_versions(base: Path) -> list[int]:
    """Version numbers that all three models have, ascending.

    A version is one number of three models, and complete only with all of them. `face` is published last and removed
    first, so what has `face` has the others, unless somebody deleted them.
    """
    return sorted(set.intersection(*(set(list_versions(base / model)) for model in MODEL_TASKS)))


def partial_versions(base: Path) -> list[int]:
    """Version numbers that some models have and others have not, ascending: remains, which no command uses."""
    return sorted({n for model in MODEL_TASKS for n in list_versions(base / model)} - set(whole_versions(base)))


def read_header(checkpoint: Path) -> dict[str, Any]:
    """The metadata of a safetensors checkpoint: "network", "contract" and "record", parsed from JSON.

    Reads the file's header alone: eight bytes of length, then JSON
    (https://github.com/huggingface/safetensors#format).

    Raises:
        CheckpointError: the file is missing, damaged, or not one of ours.
    """
    try:
        with open_regular(checkpoint) as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _MAX_HEADER:
                raise ValueError(f"a header of {length} bytes")
            metadata = json.loads(file.read(length))["__metadata__"]
        return {key: json.loads(metadata[key]) for key in ("network", "contract", "record")}
    except FileNotFoundError as error:
        raise CheckpointError(f"{checkpoint}: no such checkpoint; check the path") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{checkpoint}: not a readable checkpoint of emotion-ai ({error!r})") from error


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= len(str(MAX_VERSION)) and name == str(int(name))
