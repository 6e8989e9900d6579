"""The lock of a published folder, its staging folders, and what happens to those of a killed command.

A version is one number of three models. It is complete when all three have it; each model's part appears and
disappears with one rename, that of `face` last and first. While a version has only some of its parts, a staging folder
named `.staging-<number>-…` lies beside the models. The next command finds it and takes the other parts away.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.files import sync_path
from emotion_ai.published import (
    CONFIG_FILE,
    LAST_FILE,
    LOCK_FILE,
    PREVIOUS_FILE,
    SERVER_FILE,
    list_versions,
    partial_versions,
)
from emotion_ai.terminal import Console, printable

STAGING_PREFIX = ".staging-"
_UNFINISHED = [f".{name}.*.partial" for name in (CONFIG_FILE, PREVIOUS_FILE, SERVER_FILE, LAST_FILE)]
_NUMBERED = re.compile(rf"{re.escape(STAGING_PREFIX)}(\d+)-")


@contextmanager
def locked(base: Path) -> Iterator[None]:
    """Holds the lock of a published folder, and removes what a killed holder left behind.

    Raises:
        ExportError: another process holds the lock, or the folder is not writable.
    """
    descriptor = _open_lock(base)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExportError(f"{base}: another export, promote or prune is running there; wait for it") from error
        except OSError as error:
            raise ExportError(f"{base}: cannot be locked ({error.strerror}); choose another folder") from error
        for folder in base.glob(f"{STAGING_PREFIX}*"):
            if _in_use(folder):
                raise ExportError(f"{folder}: another export is running there; wait for it")
        clean_up(base)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def staging_folder(base: Path) -> Iterator[Path]:
    """A folder beside the models, removed at the end with the parts of a version that is not complete.

    The caller holds the lock.
    """
    staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=base))
    try:
        descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield staging
        finally:
            os.close(descriptor)
    finally:
        clean_up(base, quiet=True)


def with_number(staging: Path, version: int) -> Path:
    """Renames a staging folder so that a kill from here on leaves the number of the version that it becomes."""
    return staging.rename(staging.with_name(f"{STAGING_PREFIX}{version}-{staging.name.removeprefix(STAGING_PREFIX)}"))


def remove_version(base: Path, version: int, models: Sequence[str] = SERVABLES) -> None:
    """Deletes a version of some models: first out of the server's sight, `face` first, then from the disk.

    Needs no space on the disk. If a part cannot be moved, all stay.

    Raises:
        ExportError: a part cannot be moved.
    """
    moved: list[tuple[Path, Path]] = []
    try:
        for part in _parts(base, version, models):
            hidden = _hidden(part)
            os.rename(part, hidden)
            moved.append((part, hidden))
            sync_path(part.parent)
    except BaseException as error:
        for before, hidden in reversed(moved):
            os.rename(hidden, before)
        if isinstance(error, OSError):
            raise ExportError(f"{part}: cannot be removed ({error.strerror}); check the permissions") from error
        raise
    for _, hidden in moved:
        _delete(hidden)


def clean_up(base: Path, quiet: bool = False) -> None:
    """Deletes stale staging folders and unfinished files, and the parts of versions that they belong to.

    What cannot be deleted, such as another user's folder, stays: one line on stderr names it.
    """
    for version in sorted(_unfinished_versions(base)):
        parts = _parts(base, version)
        if len(parts) < len(SERVABLES):
            for part in parts:
                with _unless_refused(part, quiet):
                    os.rename(part, _hidden(part))
                    sync_path(part.parent)
    for pattern in (f"{STAGING_PREFIX}*", *_UNFINISHED):
        for path in base.glob(pattern):
            _delete(path, quiet)


def damaged_versions(base: Path) -> list[int]:
    """Numbers that only some models have, although no command is publishing or removing them or was killed then."""
    return sorted(set(partial_versions(base)) - _unfinished_versions(base))


def notice(text: str) -> None:
    """Prints one line on stderr."""
    Console(stderr=True, soft_wrap=True).print(printable(text), highlight=False)


def notice_partial_versions(base: Path) -> None:
    """Prints a line on stderr for each version that is not complete."""
    for number in partial_versions(base):
        missing = ", ".join(model for model in SERVABLES if number not in list_versions(base / model))
        notice(f"{base}: version {number} is not complete (no {missing}) and not used; `emotion-ai prune` deletes it")


def _open_lock(base: Path) -> int:
    """Opens `.lock` without emptying it, or what a link in its place points to."""
    file = base / LOCK_FILE
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
            raise ExportError(f"{file}: not a regular file; remove it and try again") from error
        raise ExportError(f"{base}: not writable ({error.strerror}); choose another folder") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ExportError(f"{file}: not a regular file; remove it and try again")
    return descriptor


def _unfinished_versions(base: Path) -> set[int]:
    found = [_NUMBERED.match(folder.name) for folder in base.glob(f"{STAGING_PREFIX}*")]
    return {int(number[1]) for number in found if number}


def _parts(base: Path, version: int, models: Sequence[str] = SERVABLES) -> list[Path]:
    """The folders of a version, in the order of their removal."""
    parts = [base / model / str(version) for model in reversed(models)]
    return [part for part in parts if os.path.lexists(part)]


def _hidden(part: Path) -> Path:
    """A name outside the server's sight; it is on the same file system and keeps the version's number."""
    return part.parents[1] / f"{STAGING_PREFIX}{part.name}-{part.parent.name}-{secrets.token_hex(4)}"


def _in_use(folder: Path) -> bool:
    """Whether a process holds it, one that has lost its `.lock`."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _delete(path: Path, quiet: bool = False) -> None:
    """Deletes a folder, a file, or a link but not what it points to."""
    with _unless_refused(path, quiet):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _unless_refused(path: Path, quiet: bool) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not quiet:
            notice(
                f"{path}: left by another command and cannot be deleted ({error.strerror}); its owner should delete it"
            )
