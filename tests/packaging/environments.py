"""Empty environments to install the wheel into."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from emotion_ai.vision.photo import PORTRAITS

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def install(folder: Path, wheel: Path, extra: str = "") -> Path:
    """An environment with the wheel and its pinned requirements, checked by hash; returns its folder of programs."""
    mark = hashlib.sha256(wheel.read_bytes()).hexdigest()
    requirement = f"emotion-ai{extra} @ {wheel.as_uri()}#sha256={mark}"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "-c", str(CONSTRAINTS), requirement], check=True, timeout=1000)
    return folder / "bin"


def run(program: Path, *arguments: str) -> str:
    result = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def absent(bin_folder: Path, *modules: str) -> bool:
    code = f"from importlib.util import find_spec; print([m for m in {modules} if find_spec(m)])"
    return run(bin_folder / "python", "-c", code).strip() == "[]"


def predict(bin_folder: Path, server: str) -> None:
    output = run(bin_folder / "emotion-ai", "predict", str(PORTRAITS[0]), "--server", server, "--json")
    (photo,) = json.loads(output)
    assert len(photo["faces"]) == 1
    assert len(photo["faces"][0]["points"]) == 15
