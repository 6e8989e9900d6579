"""A cache of parsed datasets, keyed by the fingerprint of their source.

An entry is one `.npz` file. Images that exceed the memory budget are in a `.npy` file beside it, from which they are
mapped; the entry has their checksum.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.data.image_arrays import Images, blocks, is_mapped, memory_budget
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.files import atomic_path

Arrays = dict[str, NDArray[Any]]

_FORMAT = 4  # part of the key: raise it when parsing changes
_HEADER_BYTES = 1024  # more than a `.npy` file has before its values


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


def spill_folder() -> Path | None:
    """Where arrays that exceed the memory budget are kept while they are made; None without a cache folder."""
    try:
        return cache_folder()
    except ConfigError:
        return None


def cached(source_fingerprint: str, variant: str, parse: Callable[[], Arrays]) -> Arrays:
    """The arrays that `parse` returns, read from the cache if the same source was parsed before.

    Entries are written atomically; a damaged entry is parsed again. Without a cache folder that can be written to,
    everything is parsed each time.
    """
    try:
        path = cache_folder() / f"{source_fingerprint[:32]}-{variant}-v{_FORMAT}.npz"
    except ConfigError:
        return parse()
    budget = memory_budget()
    try:
        return _read(path, budget)
    except Exception:  # missing, or damaged, which NumPy and zipfile report in a dozen ways
        pass
    arrays = parse()
    try:  # a read-only home or a full disk costs time, not the run
        path.parent.mkdir(parents=True, exist_ok=True)
        mapped = is_mapped(arrays["images"])
        stored = arrays | {"images": _write_images(path, arrays["images"])} if mapped else arrays
        with atomic_path(path) as partial, partial.open("wb") as output:
            np.savez(output, allow_pickle=False, **stored)
        return arrays | {"images": _mapped_images(path)} if mapped else arrays
    except OSError:
        return arrays


def _read(path: Path, budget: int) -> Arrays:
    """An entry of the cache.

    Raises:
        Exception: it is missing, damaged, or has more images in memory than the budget.
    """
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as saved:
        if saved.zip.getinfo("images.npy").file_size > budget + _HEADER_BYTES:
            raise ValueError("images that were within another budget")
        entry = dict(saved)
    images = entry["images"]
    if images.dtype == np.uint32 and images.shape == (1,):
        entry["images"] = _mapped_images(path)
        if _checksum(entry["images"]) != images[0]:
            raise ValueError("damaged images")
    if not _is_sound(entry):
        raise ValueError("arrays of other kinds")
    return entry


def _images_path(path: Path) -> Path:
    return path.with_suffix(".npy")


def _mapped_images(path: Path) -> Images:
    images: Images = np.load(_images_path(path), mmap_mode="r", allow_pickle=False)
    return images


def _write_images(path: Path, images: Images) -> NDArray[np.uint32]:
    """Writes the images of an entry beside it; returns their checksum."""
    with atomic_path(_images_path(path)) as partial, partial.open("wb") as output:
        header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_2_0(output, header)
        for _, block in blocks(images):
            output.write(block.tobytes())
    return np.array([_checksum(images)], np.uint32)


def _checksum(images: Images) -> int:
    value = 0
    for _, block in blocks(images):
        value = zlib.crc32(block.data, value)
    return value


def _is_sound(entry: Arrays) -> bool:
    images = entry["images"]
    rows = {len(values) for values in entry.values()}
    whole = images.dtype == np.uint8 and images.ndim == 3 and {"targets", "part"} <= set(entry)
    return whole and len(rows) == 1 and rows != {0}
