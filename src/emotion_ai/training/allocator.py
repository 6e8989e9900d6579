"""The C library's allocator during training on a processor."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's names for `mallopt`
_LARGEST_MMAP_THRESHOLD = 32 << 20


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Has glibc keep what is freed: otherwise each training step fetches the same pages from the system again.

    At the end the pages are given back. Does nothing with another C library, or where the environment has settings of
    its own (`MALLOC_MMAP_THRESHOLD_`).
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        yield
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        library.malloc_trim(0)
