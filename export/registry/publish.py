"""Publishing: a version is staged beside the models, checked, synced to disk and renamed into place as a whole."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.files import read_text, sync_path, write_text
from emotion_ai.published import (
    CHECKSUMS_FILE,
    CONFIG_FILE,
    CONTAINER_BASE,
    LAST_FILE,
    MAX_VERSION,
    list_versions,
)
from emotion_ai_export.registry.model_config import ModelConfig, read_own_config, relocated, replace_config
from emotion_ai_export.registry.server_record import left_out
from emotion_ai_export.registry.staging import (
    STAGING_PREFIX,
    locked,
    notice,
    remove_version,
    staging_folder,
    with_number,
)

FIRST_LABEL = "stable"
TARGETS = ("host", "container")


@contextmanager
def publisher(base: Path, models: Sequence[str] = SERVABLES) -> Iterator[Path]:
    """Holds the lock of a published folder and yields a staging folder on the same file system.

    `models` are those to publish: the three of faces, or one of another network.

    Raises:
        ExportError: another process holds the lock, the folder is not writable, or something in it is in the way.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{base}: not writable ({error.strerror}); choose another folder with out=") from error
    with locked(base):
        read_own_config(base)
        for model in models:
            if os.path.lexists(base / model) and not (base / model).is_dir():
                raise ExportError(f"{base / model}: not a folder; move it away, or choose another folder with out=")
        with staging_folder(base) as staging:
            yield staging


def next_version(base: Path, models: Sequence[str] = SERVABLES) -> int:
    """The number after the highest ever used; no number is used twice, even if its version was removed.

    Raises:
        ExportError: the file that keeps that number holds something else, or no number is left.
    """
    number = max([_last_version(base), *(n for model in models for n in list_versions(base / model))]) + 1
    while any(os.path.lexists(base / model / str(number)) for model in models):
        number += 1
    if number > MAX_VERSION:
        raise ExportError(f"{base}: no version number is left after {MAX_VERSION}; publish to another folder")
    return number


def write_checksums(version: Path) -> None:
    """Writes `assets.extra/SHA256SUMS` over all other files of a version, in the format of `sha256sum --check`."""
    target = version / CHECKSUMS_FILE
    files = sorted(p for p in version.rglob("*") if p.is_file() and p != target)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(version).as_posix()}\n" for p in files]
    target.write_text("".join(lines))


def put_in_place(staging: Path, base: Path, version: int, models: Sequence[str] = SERVABLES) -> list[Path]:
    """Renames `staging/<model>` to `base/<model>/<version>`, `face` last; one model alone with a single rename.

    If that fails, leaving the `publisher` takes back what was renamed; after a kill the next command does.

    Raises:
        ExportError: that version exists.
    """
    for name in models:
        for path in [staging / name, *(staging / name).rglob("*")]:
            sync_path(path)
    targets = {name: base / name / str(version) for name in models}
    for target in targets.values():
        if os.path.lexists(target):
            raise ExportError(f"{target}: already exists; versions are never overwritten")
        target.parent.mkdir(exist_ok=True)
    write_text(base / LAST_FILE, f"{max(version, _last_version(base))}\n", sync=True)
    if len(models) > 1:
        staging = with_number(staging, version)
    for name, target in targets.items():
        os.rename(staging / name, target)
        sync_path(target.parent)
    return list(targets.values())


@contextmanager
def withdrawn_on_error(base: Path, version: int, models: Sequence[str] = SERVABLES) -> Iterator[None]:
    """Takes a new version away again, and puts `models.config` back, if the block raises. Inside `publisher`."""
    config = base / CONFIG_FILE
    existed, copy = config.exists(), None
    try:
        if existed:  # putting it back must not need space on the disk
            with tempfile.NamedTemporaryFile(prefix=STAGING_PREFIX, dir=base, delete=False) as file:
                file.write(config.read_bytes())
            shutil.copymode(config, file.name)
            copy = Path(file.name)
        yield
    except BaseException:
        if copy:
            copy.replace(config)
        elif not existed:
            config.unlink(missing_ok=True)
        remove_version(base, version, models)
        raise


def write_config(base: Path, target: str, keep_listed: bool = False, models: Sequence[str] = SERVABLES) -> Path:
    """Rewrites `models.config`: labelled versions and the newest; labels and other models' entries are kept.

    Args:
        base: the published folder.
        target: "host" for absolute paths, "container" for paths below /models.
        keep_listed: keeps the versions listed so far, until a server has loaded the newest.
        models: whose entries are written.

    Raises:
        ExportError: unknown target, or an existing file that cannot be read or replaced without loss.
    """
    check_target(target)
    configs, other = relocated(base, read_own_config(base))
    if other:
        notice(f"{base / CONFIG_FILE}: named {other}, from which this folder was copied; it names this one now")
    listed = {config.name: config for config in configs}
    root = CONTAINER_BASE if target == "container" else str(base.resolve())
    whole = sorted(set.intersection(*(set(list_versions(base / model)) for model in models)))
    broken = left_out(base) if models == SERVABLES else {}
    newest = [number for number in whole if number not in broken][-1:]
    lost = set()
    for name in models:
        config = listed.get(name) or ModelConfig(name, "", ())
        kept = {label: number for label, number in config.labels.items() if number in whole}
        lost |= config.labels.items() - kept.items()
        if name not in listed and newest:
            kept = {FIRST_LABEL: newest[-1]}  # the first version stays served until a promotion moves the label
        before = {number for number in config.versions if number in whole} if keep_listed else set()
        versions = tuple(sorted({*kept.values(), *newest, *before}))
        listed[name] = ModelConfig(name, f"{root}/{name}", versions, kept, config.rest)
    for label, number in sorted(lost):
        notice(f"{base}: version {number}, which {label} named, does not exist; the label is removed")
    replace_config(base, list(listed.values()))
    return base / CONFIG_FILE


def check_target(target: str) -> None:
    """Raises:
    ExportError: unknown target.
    """
    if target not in TARGETS:
        raise ExportError(f"target={target}: choose one of {', '.join(TARGETS)}")


def _last_version(base: Path) -> int:
    file = base / LAST_FILE
    try:
        number = int(read_text(file, limit=100))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise ExportError(f"{file}: holds no version number ({error}); delete it") from error
    if not 0 <= number <= MAX_VERSION:
        raise ExportError(f"{file}: holds no version number ({number}); delete it")
    return number
