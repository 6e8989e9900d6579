"""A cache of parsed datasets, keyed by the fingerprint of their source."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import ConfigError, DataError
from emotion_ai.files import atomic_path

Arrays = dict[str, NDArray[Any]]

_FORMAT = 3  # part of the key: raise it when parsing changes


def cache_folder() -> Path:
    """`EMOTION_AI_CACHE`, or `~/.cache/emotion-ai`.

    Raises:
        ConfigError: there is neither the variable nor a home folder.
    """
    if folder := os.environ.get("EMOTION_AI_CACHE"):
        return Path(folder)
    try:
        return Path.home() / ".cache" / "emotion-ai"
    except RuntimeError as error:
        raise ConfigError("no home folder for the cache; set EMOTION_AI_CACHE to a folder") from error


def check_regular(file: Path) -> None:
    """Rejects anything that reading could block on, such as a pipe.

    Raises:
        DataError: not a regular file.
    """
    if not os.path.isfile(file):
        raise DataError(f"{file}: is not a regular file, or a link to nowhere; replace or remove it")


def fingerprint(source: Path, files: Sequence[Path] | None = None) -> str:
    """SHA-256 of a file, or of the names and contents of the files of a folder that are parsed, in their order.

    Raises:
        DataError: a file that cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for file in [source] if files is None else files:
            check_regular(file)
            with file.open("rb") as stream:
                if files is not None:
                    size = os.fstat(stream.fileno()).st_size
                    digest.update(os.fsencode(file.relative_to(source)) + f"\0{size}\0".encode())
                while block := stream.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise DataError(
            f"{error.filename or source}: cannot be read ({error.strerror}); check the path and permissions"
        ) from error
    return digest.hexdigest()


def cached(source_fingerprint: str, variant: str, parse: Callable[[], Arrays]) -> Arrays:
    """The arrays that `parse` returns, read from the cache if the same source was parsed before.

    Entries are written atomically; a damaged entry is parsed again. Without a cache folder that can be written to,
    everything is parsed each time.
    """
    try:
        path = cache_folder() / f"{source_fingerprint[:32]}-{variant}-v{_FORMAT}.npz"
    except ConfigError:
        return parse()
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
            entry = dict(saved)
        if _is_sound(entry):
            return entry
    except Exception:  # missing, or damaged, which NumPy and zipfile report in a dozen ways
        pass
    arrays = parse()
    with suppress(OSError):  # a read-only home or a full disk costs time, not the run
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial, partial.open("wb") as output:
            np.savez(output, allow_pickle=False, **arrays)
    return arrays


def _is_sound(entry: Arrays) -> bool:
    images = entry["images"]
    rows = {len(values) for values in entry.values()}
    whole = images.dtype == np.uint8 and images.ndim == 3 and {"targets", "part"} <= set(entry)
    return whole and len(rows) == 1 and rows != {0}
