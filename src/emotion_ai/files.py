"""The one way to write files: whole or not at all, and lastingly where a crash would matter."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


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
    partial = path.with_name(f".{path.name[:64]}.{secrets.token_hex(4)}.partial")
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


def write_text(path: Path, text: str, *, sync: bool = False) -> None:
    """Writes UTF-8 text, newlines as they are, whole or not at all."""
    with atomic_path(path, sync=sync) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Any, *, sync: bool = False) -> None:
    """Writes indented JSON, keys in their order, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n", sync=sync)


def sync_path(path: Path) -> None:
    """Waits until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
