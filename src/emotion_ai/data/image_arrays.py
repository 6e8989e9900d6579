"""Arrays of images that may be larger than memory: up to a budget they are kept there, beyond it mapped from a file.

Everything that goes over all images does so in blocks, after which the mapped pages are given back.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.errors import ConfigError

Images = NDArray[np.uint8]

BUDGET_VARIABLE = "EMOTION_AI_IMAGE_MEMORY"
"""Environment variable: MiB of images that a dataset keeps in memory."""

DEFAULT_BUDGET = 512
"""MiB of images, without the variable: 233,000 faces of 48x48 pixels, or 58,000 of 96x96."""

_BLOCK_BYTES = 1 << 22


def memory_budget() -> int:
    """Bytes of images that a dataset keeps in memory.

    Raises:
        ConfigError: `EMOTION_AI_IMAGE_MEMORY` is not a number of MiB.
    """
    text = os.environ.get(BUDGET_VARIABLE) or str(DEFAULT_BUDGET)
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise ConfigError(f"{BUDGET_VARIABLE}={text[:20]}: must be an integer >= 0, the MiB of images kept in memory")
    return int(text) << 20


class ImageRows:
    """Collects images of one size: in memory up to the budget, then in a temporary file.

    Args:
        folder: for the file; by default that of the system, which may be in memory itself.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._budget = folder, memory_budget()
        self._held = bytearray()
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self.count = 0
        self.largest = 0
        """Gray level."""

    def append(self, images: Images) -> None:
        """Adds one image (H, W) or several (N, H, W).

        Raises:
            OSError: the file cannot be written.
        """
        if not images.size:
            return
        self._shape = images.shape[-2:]
        self.count += 1 if images.ndim == 2 else len(images)
        self.largest = max(self.largest, int(images.max()))
        self._held += images.tobytes()
        if len(self._held) > (self._budget if self._file is None else _BLOCK_BYTES):
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = _temporary(self._folder)
        self._file.write(self._held)
        self._held = bytearray()

    def array(self) -> Images:
        """The images, uint8 (N, H, W), at the end; mapped from the file, read-only, if they exceed the budget."""
        shape = (self.count, *self._shape)
        if self._file is None:
            return np.frombuffer(self._held, np.uint8).reshape(shape)
        self._spill()
        self._file.flush()
        with self._file as file:  # the mapping outlives it
            return np.memmap(file, np.uint8, "r", shape=shape)


def _temporary(folder: Path | None) -> IO[bytes]:
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=folder, prefix=".images-")
    return tempfile.TemporaryFile(prefix="emotion-ai-images-")


def is_mapped(images: Images) -> bool:
    """Whether the images are mapped from a file."""
    return _mapping(images) is not None


def release(images: Images) -> None:
    """Gives back the memory of a mapped array's pages; their content stays in the file."""
    mapping = _mapping(images)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(images: Any) -> mmap.mmap | None:
    while isinstance(images, np.ndarray):
        images = images.base
    return images if isinstance(images, mmap.mmap) else None


def blocks(images: Images) -> Iterator[tuple[int, Images]]:
    """Consecutive parts of images, with the row at which each begins."""
    rows = rows_of_block(images)
    for start in range(0, len(images), rows):
        yield start, images[start : start + rows]
        release(images)


def rows_of_block(images: Images) -> int:
    """Images that are handled at once."""
    return max(_BLOCK_BYTES // max(images[:1].nbytes, 1), 1)


def take(images: Images, rows: NDArray[np.int64] | NDArray[np.bool_] | slice, folder: Path | None = None) -> Images:
    """`images[rows]`; those of a mapped array are copied into another one if they exceed the budget."""
    if isinstance(rows, slice) or not is_mapped(images):
        return images[rows]
    chosen = np.flatnonzero(rows) if np.asarray(rows).dtype == np.bool_ else np.asarray(rows)
    if len(chosen) == len(images) and (chosen == np.arange(len(images))).all():
        return images
    found, step = ImageRows(folder), rows_of_block(images)
    for start in range(0, len(chosen), step):
        found.append(images[chosen[start : start + step]])
        release(images)
    return found.array() if found.count else images[chosen]


def level_counts(images: Images) -> NDArray[np.int64]:
    """How many pixels have each gray level, int64 (256,)."""
    counts = np.zeros(256, np.int64)
    for _, block in blocks(images):
        counts += np.bincount(block.ravel(), minlength=256)
    return counts


def mean_and_deviation(images: Images) -> tuple[float, float]:
    """Mean and standard deviation of all pixels, in gray levels."""
    levels, counts = np.arange(256), level_counts(images)
    mean = float(np.average(levels, weights=counts))
    return mean, float(np.sqrt(np.average((levels - mean) ** 2, weights=counts)))
