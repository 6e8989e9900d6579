"""What a worker is doing, written down so that the worker after it can tell which picture ended it."""

import os
from collections import Counter
from pathlib import Path
from typing import Self

from emotion_ai.errors import ConfigError

MOST_DEATHS = 3
"""Processes that may die at the same picture before it is passed over; the first may have died of something else."""

_MOST_OTHER = 10  # processes that may die apart from pictures
_DIED = "died"
_OPENING = "opening"
_BETWEEN = "between"


class Journal:
    """The journal of a part: a line for each thing that its worker begins. Nothing is written without a path.

    Args:
        path: of the file, which is removed once the part is finished.
        name: of the part, for messages.

    Raises:
        ConfigError: workers died again and again, and not at a picture.
    """

    def __init__(self, path: Path | None = None, name: str = "") -> None:
        self._path, self._file, self._last = path, -1, ""
        lines = path.read_text().splitlines() if path and path.exists() else []
        if lines and lines[-1] != _DIED:
            lines.append(_DIED)
        self._deaths = Counter(line for line, after in zip(lines, lines[1:], strict=False) if after == _DIED)
        for state, what in ((_OPENING, "it opened its model"), (_BETWEEN, "it listed the pictures of the source")):
            if self._deaths[state] >= _MOST_OTHER:
                raise ConfigError(
                    f"{name}: its process died {_MOST_OTHER} times while {what} (a crash, or too little memory); free "
                    "some memory, give fewer --workers, or leave this file out"
                )
        if path:
            path.write_text("".join(f"{line}\n" for line in lines))
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    @property
    def together(self) -> bool:
        """Whether pictures may be read together: no process has died while it did."""
        return not any("-" in state for state in self._deaths)

    def deadly(self, number: int) -> bool:
        """Whether a picture is passed over, by its place in the part."""
        return self._deaths[str(number)] >= MOST_DEATHS

    def opening(self) -> None:
        """The model is opened."""
        self._write(_OPENING)

    def reading(self, first: int, last: int | None = None) -> None:
        """Pictures are decoded or read, by their places."""
        self._write(str(first) if last in (None, first) else f"{first}-{last}")

    def between(self) -> None:
        """Something else is done, such as looking for the next picture."""
        self._write(_BETWEEN)

    def finished(self) -> None:
        """The part is whole."""
        if self._path:
            self._path.unlink(missing_ok=True)

    def _write(self, state: str) -> None:
        if self._file >= 0 and state != self._last:
            os.write(self._file, f"{state}\n".encode())
            self._last = state
