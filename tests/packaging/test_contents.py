"""The wheel holds every file of every package: what works in an editable install works when installed."""

import contextlib
import email
import re
import subprocess
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = {
    canonicalize_name(line.partition("==")[0]): line.partition("==")[2].split()[0]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if re.match(r"[a-z]", line)
}
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
        "train", "grpc", "serve", "export", "record", "sweep", "score", "timm", "video", "web", "all", "docs", "dev",
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


def test_constraints_meet_every_direct_requirement() -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    for requirement in map(Requirement, lines):
        if requirement.name != "emotion-ai":
            assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_every_pin_has_hashes() -> None:
    text = (ROOT / "constraints.txt").read_text()
    blocks = [block for block in re.split(r"\n(?=[a-z])", text) if not block.startswith("#")]
    assert len(blocks) == len(PINNED)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in blocks)


def test_installed_requirements_are_pinned() -> None:
    """The packages of this environment need nothing that constraints.txt lacks: it is installed without a resolver."""
    unused = {"tensorflow-addons"}  # in the metadata of onnx-tf
    for name in PINNED:
        with contextlib.suppress(PackageNotFoundError):  # of another platform or Python
            for requirement in map(Requirement, requires(name) or []):
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    needed = canonicalize_name(requirement.name)
                    assert needed in unused or PINNED[needed] in requirement.specifier, (name, requirement)


def test_nothing_else_lies_at_the_top() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {path for path in listed.splitlines() if "/" not in path and not path.startswith(".")}
    assert files == {
        *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md"),
        *("constraints.txt", "mkdocs.yml", "pyproject.toml"),
    }
