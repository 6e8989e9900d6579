"""Names, data and server texts reach a terminal without control characters, markup or emoji."""

import io
import json
import os

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from emotion_ai import terminal
from emotion_ai.terminal import Console, print_error, print_json, printable

EVIL = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.[bold]:smile:"
SHOWN = r"\x1b[31mred\x1b]0;title"


def shown(*renderables: object) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    for renderable in renderables:
        console.print(renderable)
    return stream.getvalue()


def test_whatever_is_printed_has_no_control_characters_markup_or_emoji() -> None:
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL))
    for text in (shown(EVIL), shown(Text(EVIL)), shown(table)):
        assert SHOWN in text
        assert "[bold]:smile:" in text
        assert not set("\x1b\x07\x9b\u202e") & set(text)


def test_progress_has_none_either() -> None:
    stream = io.StringIO()
    with Progress(TextColumn("{task.description}", markup=False), console=Console(file=stream, width=200)) as progress:
        progress.add_task(EVIL)
        progress.console.print(EVIL)
    assert stream.getvalue().count(SHOWN) == 2
    assert not set("\x1b\x07\x9b\u202e") & set(stream.getvalue())


def test_a_terminal_still_gets_colours_and_a_moving_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()
    console = Console(file=stream, width=80)
    console.wrote("a.png")
    print_error("no\nsuch file", console)
    with Progress(console=console, transient=True) as progress:
        progress.add_task("reading")
    assert "\x1b[32mwrote" in stream.getvalue()
    assert "\x1b[1;31merror:\x1b[0m no such file\n" in stream.getvalue()
    assert "\x1b[?25l" in stream.getvalue(), "the bar hides the cursor"


def test_a_name_is_one_line() -> None:
    assert printable("a\nb\t\r\x7f\udcff") == r"a\nb\t\r\x7f\udcff"
    assert printable("Ärger 😀.jpg") == "Ärger 😀.jpg"


def test_json_keeps_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b":smile:[bold]\x1b[31m\x7f\xff.jpg")
    print_json({"photo": name})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    assert os.fsencode(json.loads(out)["photo"]) == b":smile:[bold]\x1b[31m\x7f\xff.jpg"


def test_what_is_printed_below_a_progress_bar_goes_where_stdout_goes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`emotion-ai predict photos/ --json > faces.json` on a terminal writes JSON into the file."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # stderr is taken for a terminal
    with terminal.Progress(console=Console(stderr=True)) as progress:
        progress.update(progress.add_task("reading", total=2), advance=1)
        print("{}")
        Console().print("a table")
    captured = capsys.readouterr()
    assert captured.out == "{}\na table\n"
    assert "reading" in captured.err
