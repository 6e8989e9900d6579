"""How `emotion-ai predict` shows what it read: JSON, a table on the terminal, annotated pictures, lines on stderr."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import ConfigError, EmotionAIError
from emotion_ai.files import atomic_path
from emotion_ai.inference.drawing import annotate
from emotion_ai.inference.results import FaceReading
from emotion_ai.terminal import Console, print_error, printable
from emotion_ai.vision.photo import Photo

Result = list[FaceReading] | EmotionAIError
"""The faces of a photo, or why it could not be read."""


TABLE_ROWS = 200
"""Faces in a table on the terminal, before the next begins."""


class JsonList:
    """A list printed record by record; whole once the context has ended, even by an interruption."""

    def __init__(self) -> None:
        self._separator = "[\n"

    def __enter__(self) -> "JsonList":
        return self

    def __exit__(self, *_: object) -> None:
        print("[]" if self._separator == "[\n" else "\n]", flush=True)

    def add(self, path: Path, result: Result) -> None:
        text = json.dumps(record(path, result), indent=2).replace("\n", "\n  ")
        separator, self._separator = self._separator, ",\n"
        print(f"{separator}  {text}", end="", flush=True)


class TerminalTable:
    """A table with a row for each face, printed when the context ends if any photo was read.

    Of many faces, a table is printed for each `TABLE_ROWS` or so, so that memory does not grow with their number.
    """

    def __init__(self, stderr: bool = False) -> None:
        self._console = Console(stderr=stderr)
        self._read: list[tuple[str, list[FaceReading]]] = []
        self._rows = 0

    def __enter__(self) -> "TerminalTable":
        return self

    def __exit__(self, *_: object) -> None:
        self._print()

    def add(self, path: Path, result: Result) -> None:
        if isinstance(result, list):
            self._read.append((path.name, result))
            self._rows += len(result)
            if self._rows >= TABLE_ROWS:
                self._print()

    def _print(self) -> None:
        if self._read:
            self._console.print(self._table())
        self._read, self._rows = [], 0

    def _table(self) -> Table:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("photo", overflow="fold")
        table.add_column("face", justify="right")
        verdicts = [face.verdict or "-" for _, faces in self._read for face in faces]
        widest = max((cell_len(verdict) for verdict in verdicts), default=0)
        table.add_column("emotion", style="bold", overflow="fold", min_width=min(widest, 12))
        names = list(dict.fromkeys(name for _, faces in self._read for face in faces for name in face.classes))
        for name in names or EMOTIONS:
            table.add_column(name, justify="right")
        flagged = any(face.flags for _, faces in self._read for face in faces)
        if flagged:
            table.add_column("quality")
        for name, faces in self._read:
            for number, face in enumerate(faces, 1):
                probabilities = (f"{face.by_class[name]:.1%}" if name in face.classes else "" for name in names)
                flags = (", ".join(face.flags),) if flagged else ()
                table.add_row(Text(printable(name)), str(number), face.verdict or "-", *probabilities, *flags)
        return table


def in_file_pixels(faces: list[FaceReading], photo: Photo) -> list[FaceReading]:
    """Faces that were read in a decoded photo, in pixels of its file, which may have been shrunk."""
    return faces if photo.scale == 1 else [face.scaled(photo.scale) for face in faces]


def record(path: Path, result: Result) -> dict[str, Any]:
    """A photo's faces or error, for JSON."""
    if isinstance(result, EmotionAIError):
        return {"photo": str(path), "error": str(result)}
    return {"photo": str(path), "faces": [face.as_dict() for face in result]}


def show_error(console: Console, path: Path, error: EmotionAIError | str) -> None:
    """Prints why a photo could not be read, as one line that begins with its name."""
    message = str(error)
    print_error(printable(message if message.startswith(str(path)) else f"{path}: {message}"), console)


def make_folder(folder: Path) -> None:
    """Creates a folder that output goes to.

    Raises:
        ConfigError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error


def write_picture(rgb: NDArray[np.uint8], faces: Sequence[FaceReading], path: Path) -> None:
    """Writes a photo with its faces drawn, as PNG, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    make_folder(path.parent)
    picture = annotate(rgb, faces)
    try:
        with atomic_path(path) as partial:
            picture.save(partial, format="PNG")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
