"""The layout of a published folder: `<base>/<model>/<version>/assets.extra/…`, and what can be read from it.

Needs neither PyTorch, TensorFlow nor safetensors.
"""

import json
from pathlib import Path
from typing import Any

from emotion_ai.contract import TASKS, Task
from emotion_ai.errors import CheckpointError

CONFIG_FILE = "models.config"
EXTRA = "assets.extra"
CHECKSUMS_FILE = f"{EXTRA}/SHA256SUMS"
PARITY_FILE = f"{EXTRA}/parity.json"
CARD_FILE = f"{EXTRA}/MODEL_CARD.md"
WARMUP_FILE = f"{EXTRA}/tf_serving_warmup_requests"
MODEL_TASKS: dict[str, tuple[Task, ...]] = {"keypoints": ("keypoints",), "emotion": ("emotion",), "face": TASKS}
"""The networks that each served model holds."""

_MAX_HEADER = 10 * 2**20  # bytes; ours have some 10 kB


def checkpoint_file(task: Task) -> str:
    """Where a version's checkpoint lies, relative to its folder."""
    return f"{EXTRA}/{task}.safetensors"


def list_versions(model: Path) -> list[int]:
    """Version numbers below a model's base path, ascending.

    Names that are not plain numbers are skipped, as TensorFlow Serving skips them. A missing folder has no versions.
    """
    if not model.is_dir():
        return []
    return sorted(int(p.name) for p in model.iterdir() if p.name.isascii() and p.name.isdigit() and p.is_dir())


def read_header(checkpoint: Path) -> dict[str, Any]:
    """The metadata of a safetensors checkpoint: "network", "contract" and "record", parsed from JSON.

    Reads the file's header alone: eight bytes of length, then JSON
    (https://github.com/huggingface/safetensors#format).

    Raises:
        CheckpointError: the file is missing, damaged, or not one of ours.
    """
    try:
        with checkpoint.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _MAX_HEADER:
                raise ValueError(f"a header of {length} bytes")
            metadata = json.loads(file.read(length))["__metadata__"]
        return {key: json.loads(metadata[key]) for key in ("network", "contract", "record")}
    except FileNotFoundError as error:
        raise CheckpointError(f"{checkpoint}: no such checkpoint; check the path") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{checkpoint}: not a readable checkpoint of emotion-ai ({error!r})") from error
