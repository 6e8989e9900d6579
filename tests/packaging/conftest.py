"""The distributions, built once from a copy of the checkout and without the network."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emotion_ai_export.registry.publish import publisher, put_in_place, write_config

ROOT = Path(__file__).parents[2]
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "conf", "export", "src")


@pytest.fixture(scope="session")
def distributions(built_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A folder with the source distribution and the wheel that is built from it."""

    def build(folder: Path) -> None:
        checkout = folder / "checkout"
        checkout.mkdir()
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignore)
            else:
                shutil.copy(ROOT / name, checkout)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(checkout)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=250)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
        shutil.rmtree(checkout)

    return built_once("distributions", build)


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> Path:
    (wheel,) = distributions.glob("*.whl")
    return wheel


@pytest.fixture
def published(folders: dict[str, Path], tmp_path: Path) -> Path:
    """Three versions of small random networks."""
    base = tmp_path / "models"
    for number in (1, 2, 3):
        with publisher(base) as staging:
            for name, folder in folders.items():
                shutil.copytree(folder, staging / name)
            put_in_place(staging, base, number)
            write_config(base, "host")
    return base
