"""Empty environments to install the wheel into."""

import json
import re
import subprocess
import sys
from pathlib import Path

from emotion_ai.vision.photo import PORTRAITS

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def install(folder: Path, requirement: str) -> Path:
    """An environment with this requirement alone, at the pinned versions; returns its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    versions = folder / "versions.txt"  # pip resolves no extras where constraints have hashes
    versions.write_text(re.sub(r" \\\n +--hash=\S+", "", CONSTRAINTS.read_text()))
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "-c", str(versions), requirement], check=True, timeout=1000)
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
