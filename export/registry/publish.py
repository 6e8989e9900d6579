"""Publishing: a version is staged beside the models, checked, synced to disk and renamed into place as a whole."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.files import sync_path
from emotion_ai.published import CHECKSUMS_FILE, CONFIG_FILE, list_versions
from emotion_ai_export.registry.model_config import ModelConfig, read_config, replace_config

CONTAINER_BASE = "/models"
FIRST_LABEL = "stable"
TARGETS = ("host", "container")
_STAGING = ".staging-"


@contextmanager
def locked(base: Path) -> Iterator[None]:
    """Holds the lock of a published folder, and deletes what a killed holder left behind.

    Raises:
        ExportError: another process holds the lock, or the folder is not writable.
    """
    try:
        lock = (base / ".lock").open("w")
    except OSError as error:
        raise ExportError(f"{base}: not writable ({error.strerror}); choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ExportError(f"{base}: another export, promote or prune is running there; wait for it") from error
        for stale in base.glob(f"{_STAGING}*"):
            shutil.rmtree(stale)
        yield


@contextmanager
def publisher(base: Path) -> Iterator[Path]:
    """Holds the lock of a published folder and yields a staging folder on the same file system.

    Raises:
        ExportError: another process holds the lock, or the folder is not writable.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{base}: not writable ({error.strerror}); choose another folder with out=") from error
    with locked(base):
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=base))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def published_numbers(base: Path) -> list[int]:
    """Every version number that at least one of the three models has, ascending."""
    return sorted({number for name in SERVABLES for number in list_versions(base / name)})


def next_version(base: Path) -> int:
    """The highest number of all three models plus one; they share their numbers."""
    return max(published_numbers(base), default=0) + 1


def write_checksums(version: Path) -> None:
    """Writes `assets.extra/SHA256SUMS` over all other files of a version, in the format of `sha256sum --check`."""
    target = version / CHECKSUMS_FILE
    files = sorted(p for p in version.rglob("*") if p.is_file() and p != target)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(version).as_posix()}\n" for p in files]
    target.write_text("".join(lines))


def put_in_place(staging: Path, base: Path, version: int) -> list[Path]:
    """Renames `staging/<model>` to `base/<model>/<version>`, `face` last. A crash in between leaves a gap.

    Raises:
        ExportError: that version exists.
    """
    placed = []
    for name in SERVABLES:
        for path in [staging / name, *(staging / name).rglob("*")]:
            sync_path(path)
    for name in SERVABLES:
        target = base / name / str(version)
        if target.exists():
            raise ExportError(f"{target}: already exists; versions are never overwritten")
        target.parent.mkdir(exist_ok=True)
        os.rename(staging / name, target)
        sync_path(target.parent)
        placed.append(target)
    return placed


def write_config(base: Path, target: str) -> Path:
    """Rewrites `models.config`: labelled versions and the newest; labels are kept.

    Args:
        base: the published folder.
        target: "host" for absolute paths, "container" for paths below /models.

    Raises:
        ExportError: unknown target, or an existing file that cannot be parsed.
    """
    check_target(target)
    labels = {config.name: config.labels for config in read_config(base)}
    configs = []
    for name in SERVABLES:
        present = list_versions(base / name)
        kept = {label: number for label, number in labels.get(name, {}).items() if number in present}
        if name not in labels and present:
            kept = {FIRST_LABEL: present[-1]}  # the first version stays served until a promotion moves the label
        root = CONTAINER_BASE if target == "container" else str(base.resolve())
        configs.append(ModelConfig(name, f"{root}/{name}", tuple(sorted({*kept.values(), *present[-1:]})), kept))
    replace_config(base, configs)
    return base / CONFIG_FILE


def check_target(target: str) -> None:
    """Raises:
    ExportError: unknown target.
    """
    if target not in TARGETS:
        raise ExportError(f"target={target}: choose one of {', '.join(TARGETS)}")


def remove_version(base: Path, model: str, version: int) -> None:
    """Moves a version out of the server's sight with one rename, then deletes its files."""
    trash = Path(tempfile.mkdtemp(prefix=_STAGING, dir=base))
    os.rename(base / model / str(version), trash / str(version))
    sync_path(base / model)
    shutil.rmtree(trash)
