"""What reaches a terminal: no control character of a file name, a dataset or a server's text is among it."""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import rich.console
import rich.progress
from rich.segment import Segment
from rich.text import Text

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line separators, and marks that reorder text
    "\ud800-\udfff]"  # bytes of a name that are not UTF-8
)


def printable(text: object) -> str:
    r"""Text on one line, for a terminal: control characters and bytes that are not UTF-8 are escaped, as in `\x1b`."""
    return escaped(str(text)).replace("\n", r"\n").replace("\t", r"\t")


def escaped(text: str) -> str:
    """Text in which control characters other than newline and tab are escaped."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """The lines of a text on one, without their indentation; spaces inside a line, as in a file name, stay."""
    return " ".join(line for part in text.splitlines() if (line := part.strip()))


def print_json(data: Any, file: TextIO | None = None) -> None:
    r"""Prints indented JSON in ASCII, to stdout by default.

    A byte of a file name that is not UTF-8 becomes `\udcXX`, as Python's `surrogateescape` has it; `os.fsencode` of
    the parsed text gives the name back.
    """
    print(json.dumps(data, indent=2), file=file or sys.stdout)


class Console(rich.console.Console):
    """Rich's console, with control characters escaped in all it prints, and without markup and emoji in strings."""

    def __init__(
        self,
        *,
        stderr: bool = False,
        soft_wrap: bool = False,
        highlight: bool = True,
        width: int | None = None,
        file: TextIO | None = None,
        record: bool = False,
    ) -> None:
        super().__init__(
            stderr=stderr,
            soft_wrap=soft_wrap,
            highlight=highlight,
            width=width,
            file=file,
            record=record,
            markup=False,
            emoji=False,
        )

    def wrote(self, path: Path | str, note: str = "", verb: str = "wrote") -> None:
        """Prints that a file or folder was written."""
        text = Text.assemble((verb, "green"), f" {printable(path)}", f": {note}" if note else "")
        self.print(text, highlight=False, soft_wrap=True)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Renders into segments without control characters, except Rich's own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)


class Progress(rich.progress.Progress):
    """Rich's progress, which goes away at the end, and leaves alone what is printed into a file or a pipe meanwhile."""

    def __init__(self, *columns: str | rich.progress.ProgressColumn, console: Console, disable: bool = False) -> None:
        super().__init__(
            *columns, console=console, transient=True, disable=disable, redirect_stdout=sys.stdout.isatty()
        )


def print_error(message: object, console: Console | None = None) -> None:
    """Prints a message as one line on stderr, after "error:"."""
    text = Text.assemble(("error:", "bold red"), f" {one_line(str(message))}")
    (console or Console(stderr=True)).print(text, highlight=False, soft_wrap=True)
