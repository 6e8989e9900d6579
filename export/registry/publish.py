"""A version is complete or invisible: staged beside the models, proven, synced, then renamed into place."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_ai.contract import SERVABLES, TASKS, Task
from emotion_ai.errors import ExportError
from emotion_ai_export.registry.model_config import ModelConfig, parse, render

CONFIG_FILE = "models.config"
CHECKSUMS_FILE = "assets.extra/SHA256SUMS"
PARTS: dict[str, tuple[Task, ...]] = {"keypoints": ("keypoints",), "emotion": ("emotion",), "face": TASKS}
"""Whose networks a servable holds."""
CONTAINER_BASE = "/models"
FIRST_LABEL = "stable"
TARGETS = ("host", "container")
_STAGING = ".staging-"


@contextmanager
def locked(base: Path) -> Iterator[None]:
    """Holds the base path's lock, and clears what a killed holder left.

    Raises:
        ExportError: another holds it, or the folder cannot be written.
    """
    try:
        lock = (base / ".lock").open("w")
    except OSError as error:
        raise ExportError(f"{base}: cannot be written ({error.strerror}); give another out=") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ExportError(f"{base}: another export, promotion or pruning is at work there; wait for it") from error
        for stale in base.glob(f"{_STAGING}*"):
            shutil.rmtree(stale)
        yield


@contextmanager
def publisher(base: Path) -> Iterator[Path]:
    """Holds the base path's lock and gives a staging folder on its file system.

    Raises:
        ExportError: another publisher is at work, or the folder cannot be written.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{base}: cannot be written ({error.strerror}); give another out=") from error
    with locked(base):
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=base))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def versions_of(model: Path) -> list[int]:
    """Version numbers below a model's base path, ascending; other names are skipped, as the server does."""
    if not model.is_dir():
        return []
    return sorted(int(p.name) for p in model.iterdir() if p.is_dir() and p.name.isascii() and p.name.isdigit())


def next_version(base: Path) -> int:
    """One number serves the three models: the highest present plus one."""
    return max((version for name in SERVABLES for version in versions_of(base / name)), default=0) + 1


def write_checksums(version: Path) -> None:
    """`assets.extra/SHA256SUMS` of all other files of a version, as `sha256sum --check` reads them."""
    target = version / CHECKSUMS_FILE
    files = sorted(p for p in version.rglob("*") if p.is_file() and p != target)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(version).as_posix()}\n" for p in files]
    target.write_text("".join(lines))


def put_in_place(staging: Path, base: Path, version: int) -> list[Path]:
    """Renames `staging/<model>` to `base/<model>/<version>`, `face` last; a crash in between leaves a gap.

    Raises:
        ExportError: a version of that number exists.
    """
    placed = []
    for name in SERVABLES:
        _sync(staging / name)
    for name in SERVABLES:
        target = base / name / str(version)
        if target.exists():
            raise ExportError(f"{target}: exists already; versions are never overwritten")
        target.parent.mkdir(exist_ok=True)
        os.rename(staging / name, target)
        _sync_entry(target.parent)
        placed.append(target)
    return placed


def write_config(base: Path, target: str) -> Path:
    """Rewrites `models.config`: labelled versions and the newest, labels as they were.

    Args:
        base: where the models lie.
        target: "host" names absolute paths, "container" those below /models.

    Raises:
        ExportError: an unknown target, or an existing file that cannot be read.
    """
    if target not in TARGETS:
        raise ExportError(f"target={target}: choose one of {', '.join(TARGETS)}")
    path = base / CONFIG_FILE
    labels = {c.name: c.labels for c in parse(path.read_text())} if path.exists() else {}
    configs = []
    for name in SERVABLES:
        present = versions_of(base / name)
        kept = {label: v for label, v in labels.get(name, {}).items() if v in present}
        if name not in labels and present:
            kept = {FIRST_LABEL: present[-1]}  # so that the first version stays served until a promotion moves it
        root = CONTAINER_BASE if target == "container" else str(base.resolve())
        configs.append(ModelConfig(name, f"{root}/{name}", tuple(sorted({*kept.values(), *present[-1:]})), kept))
    replace_file(path, render(configs))
    return path


def remove_version(base: Path, model: str, version: int) -> None:
    """Takes a version away as a whole, then deletes its files."""
    gone = Path(tempfile.mkdtemp(prefix=_STAGING, dir=base))
    os.rename(base / model / str(version), gone / str(version))
    _sync_entry(base / model)
    shutil.rmtree(gone)


def replace_file(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all, and lastingly."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)
    _sync_entry(path.parent)


def _sync(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        _sync_entry(path)


def _sync_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
