"""Lines of a text file that is read as bytes, for the csv module."""

from collections.abc import Iterator
from typing import BinaryIO


class CountedLines:
    """The lines of a UTF-8 file from its position on; `read` counts their bytes.

    A byte order mark is left out, and a byte that is not UTF-8 becomes a surrogate, as in file names.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            text = line.decode("utf-8", "surrogateescape")
            if not self.read:
                text = text.removeprefix("\ufeff")
            self.read += len(line)
            yield text
