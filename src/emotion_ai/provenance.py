"""Where results come from: versions, processor and source revision."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "numpy")


def environment() -> dict[str, Any]:
    """Versions, processor and git revision; the revision is None outside a checkout, or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        revision = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        revision = ""
    return {
        "revision": revision or None,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
