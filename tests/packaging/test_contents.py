"""The wheel holds every file of every package: what works in an editable install works when installed."""

import email
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CACHES = {"__pycache__", ".mypy_cache", ".ruff_cache"}


def tree() -> set[str]:
    """All files of the packages, as paths below `src`; its links to `conf` and `export` are followed."""
    packages = [path for path in (ROOT / "src").iterdir() if path.is_dir() and path.suffix != ".egg-info"]
    files = [file for package in packages for file in (package.resolve()).rglob("*") if file.is_file()]
    names = {package.resolve(): package.name for package in packages}
    found = set()
    for file in files:
        package = next(folder for folder in names if file.is_relative_to(folder))
        path = Path(names[package]) / file.relative_to(package)
        if not CACHES & set(path.parts):
            found.add(path.as_posix())
    return found


def test_the_wheel_holds_the_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == tree()
    assert {"emotion_ai/py.typed", "emotion_ai_export/py.typed", "emotion_ai_conf/train.yaml"} <= names


def test_the_source_distribution_holds_the_tree(distributions: Path) -> None:
    (file,) = distributions.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {f"src/{path}" for path in tree()} <= names
    assert {"LICENSE", "README.md", "pyproject.toml"} <= names


def test_the_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == PROJECT["version"]
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "train", "grpc", "serve", "export", "web", "all", "docs", "dev",
    }  # fmt: skip
    requirements = metadata.get_all("Requires-Dist", [])
    assert not [line for line in requirements if "tensorflow-addons" in line or "onnx-tf" in line]


@pytest.mark.parametrize(
    ("extra", "absent"),
    [("serve", ("torch", "onnx", "safetensors")), ("grpc", ("tensorflow", "torch")), ("train", ("tensorflow", "onnx"))],
)
def test_an_extra_does_without(extra: str, absent: tuple[str, ...]) -> None:
    extras = PROJECT["optional-dependencies"]

    def names(extra: str) -> set[str]:
        found = set()
        for line in extras[extra]:
            if line.startswith("emotion-ai["):
                for other in line.removeprefix("emotion-ai[").removesuffix("]").split(","):
                    found |= names(other)
            else:
                found.add(line.split(">")[0].split("=")[0].split("[")[0])
        return found

    assert not names(extra) & set(absent)


def test_constraints_pin_every_direct_dependency() -> None:
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    names = {line.split(">")[0].split("=")[0].split("[")[0] for line in lines}
    assert names - {"emotion-ai"} <= pinned
