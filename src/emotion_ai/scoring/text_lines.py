"""Lines of a text file that is read as bytes, for the csv module."""

import io
from collections.abc import Iterator
from typing import BinaryIO

from emotion_ai.data.text_files import text_encoding


def line_encoding(head: bytes) -> str | None:
    """The encoding for `CountedLines` by a file's first bytes; None if they are not text."""
    encoding = text_encoding(head)
    if encoding in ("utf-16", "utf-32"):  # by their byte order mark, which a line in the middle has not
        return encoding + ("-le" if head.startswith(b"\xff\xfe") else "-be")
    return encoding and encoding.removesuffix("-sig")


class CountedLines:
    """The lines of a file from its position on, which is closed then; `read` counts their bytes.

    A byte order mark is left out, and in UTF-8 a byte that is not becomes a surrogate, as in file names.
    """

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        errors = "surrogateescape" if self._encoding == "utf-8" else "strict"
        with io.TextIOWrapper(self._file, self._encoding, errors, newline="") as lines:
            for line in lines:
                text = line if self.read else line.removeprefix("\ufeff")
                self.read += len(line.encode(self._encoding, errors))
                yield text
