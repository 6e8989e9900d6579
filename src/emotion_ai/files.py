"""The one way to write files: whole or not at all, lastingly where a crash would matter, by one process at a time."""

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from emotion_ai.errors import ConfigError

_UNNAMED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # write(2) names no file
_PARTIALS = f".*.{'[0-9a-f]' * 8}.partial"  # of `atomic_path`, not those of other programs
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def atomic_path(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends, deleted when it raises.

    The file gets the permissions that a plain `open` would give it.

    Args:
        path: the file to write; its folder must exist.
        sync: waits until the file and its name are on the disk.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    start = path.name.encode(errors="ignore")[:64].decode(errors="ignore")  # names have at most 255 bytes
    partial = path.with_name(f".{start}.{secrets.token_hex(4)}.partial")
    try:
        partial.touch(exist_ok=False)
        yield partial
        if sync:
            sync_path(partial)
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(partial)):
            raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file at all
        raise
    if sync:
        sync_path(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, without waiting for the writer of a FIFO.

    Raises:
        OSError: it cannot be opened, or is a FIFO, a device or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")


def read_text(path: Path, limit: int = 2**20) -> str:
    """UTF-8 text of a regular file of at most `limit` bytes.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: it is larger, or not UTF-8.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return content.decode("utf-8")


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Writes UTF-8 text, newlines as they are, whole or not at all."""
    with atomic_path(path, sync=sync) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any, *, sync: bool = False) -> None:
    """Writes indented JSON, keys in their order, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n", sync=sync)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder, which is created, while the block runs; deletes what a killed one left.

    The lock ends with the process that holds it, however it ends. File systems without locks (some network ones) are
    used without.

    Raises:
        ConfigError: another process holds the lock.
        OSError: the folder cannot be written to; the error names it.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"{folder}: another process writes to this folder; wait for it, or choose another folder"
        ) from error
    except OSError as error:
        file = Path(lock.lock_file)
        if os.path.lexists(file) and not stat.S_ISREG(file.lstat().st_mode):
            raise ConfigError(f"{file}: not a regular file; remove it and try again") from error
        if error.errno not in _WITHOUT_LOCKS:
            raise
    try:
        for partial in folder.glob(_PARTIALS):
            partial.unlink(missing_ok=True)
        yield
    except OSError as error:
        if error.errno in _UNNAMED and error.filename is None:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        raise
    finally:
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink()  # still held: who waits for this file looks for another
        lock.release()


def sync_path(path: Path) -> None:
    """Waits until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
