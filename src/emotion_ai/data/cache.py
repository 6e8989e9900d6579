"""A cache of parsed datasets, keyed by the fingerprint of their source."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import DataError
from emotion_ai.files import atomic_path

Arrays = dict[str, NDArray[Any]]

_FORMAT = 1  # part of the key: raise it when parsing changes


def cache_folder() -> Path:
    """`EMOTION_AI_CACHE`, or `~/.cache/emotion-ai`."""
    return Path(os.environ.get("EMOTION_AI_CACHE") or Path.home() / ".cache" / "emotion-ai")


def fingerprint(source: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder.

    Raises:
        DataError: a file that cannot be read.
    """
    digest = hashlib.sha256()
    files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    try:
        for file in files:
            if source.is_dir():
                digest.update(f"{file.relative_to(source)}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise DataError(
            f"{error.filename or source}: cannot be read ({error.strerror}); check the path and permissions"
        ) from error
    return digest.hexdigest()


def cached(source_fingerprint: str, variant: str, parse: Callable[[], Arrays]) -> Arrays:
    """The arrays that `parse` returns, read from the cache if the same source was parsed before.

    Entries are written atomically; a damaged entry is parsed again.
    """
    path = cache_folder() / f"{source_fingerprint[:32]}-{variant}-v{_FORMAT}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
            return dict(saved)
    except (OSError, ValueError, EOFError, BadZipFile):
        pass
    arrays = parse()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial, partial.open("wb") as entry:
            np.savez(entry, allow_pickle=False, **arrays)
    except OSError:
        pass  # a read-only home costs time, not the run
    return arrays
