"""Options that are changed while a picture is read, or in another tab than the picture's; without a browser."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from emotion_ai.errors import NoFaceError
from emotion_ai.web import compare_tab, read_tab, render
from emotion_ai.web.backend import ModelSource
from emotion_ai.web.compare_tab import CompareTab
from emotion_ai.web.components import PageContext
from emotion_ai.web.read_tab import ReadTab
from emotion_ai.web.uploads import Uploads

WINDOW: Any = SimpleNamespace(session_hash="window", client=None)
DRAWING = (True, 0.0, False, False, False)
NAMES = (True, 0.0, True, False, False)


class Tabs:
    """Both tabs, whose results are lists of what they were made of; faces are found in each picture but b"empty"."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.meanwhile: Callable[[], object] = lambda: None
        self.told: list[str] = []
        session: Any = SimpleNamespace(read=lambda detected, choice: choice)
        self.context = PageContext(ModelSource("http://127.0.0.1:9"), session, Uploads(folder), None)
        self.read, self.compare = ReadTab.__new__(ReadTab), CompareTab.__new__(CompareTab)  # without their inputs
        self.read._context = self.compare._context = self.context
        monkeypatch.setattr(self.read, "_draw", lambda state, own, other, names, *_: [state.readings, names])
        for tab in (read_tab, compare_tab):
            monkeypatch.setattr(tab, "detect", self._detect)
        monkeypatch.setattr(compare_tab, "differences", lambda one, other: [])
        monkeypatch.setattr(render, "comparison", lambda found, one, other, _, names: [found.name, one, other, names])
        monkeypatch.setattr("gradio.Warning", self.told.append)

    def _detect(self, content: bytes) -> Any:
        self.meanwhile()
        if content == b"empty":
            raise NoFaceError("no face")
        return SimpleNamespace(name=content.decode(), nbytes=len(content))


@pytest.fixture
def tabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tabs:
    return Tabs(tmp_path, monkeypatch)


def is_skipped(result: Any) -> bool:
    return bool(result == gr.skip())


def test_without_a_result_there_is_nothing_to_say(tabs: Tabs) -> None:
    tabs.read.read(WINDOW, b"one", "newest", *DRAWING)
    assert is_skipped(tabs.compare.compare(WINDOW, "1", "2", False))
    assert tabs.told == []


def test_a_result_without_its_picture_is_explained(tabs: Tabs) -> None:
    tabs.compare.read(WINDOW, b"one", "1", "2", False)
    tabs.read.read(WINDOW, b"two", "newest", *DRAWING)
    assert is_skipped(tabs.compare.compare(WINDOW, "2", "2", False))
    assert len(tabs.told) == 1
    assert "add its picture again" in tabs.told[0]
    assert is_skipped(tabs.read.recover(WINDOW, "newest", *DRAWING))
    tabs.compare.clear(WINDOW)
    assert is_skipped(tabs.compare.compare(WINDOW, "2", "2", False))
    assert len(tabs.told) == 1, "the result is gone"
    assert tabs.read.draw(WINDOW, "newest", *NAMES) == ["newest", True], "the other tab's picture is kept"


def test_versions_chosen_while_a_picture_is_read_are_compared(tabs: Tabs) -> None:
    tabs.read.read(WINDOW, b"one", "newest", *DRAWING)
    results = []
    tabs.meanwhile = lambda: results.append(tabs.compare.compare(WINDOW, "3", "2", True))
    assert tabs.compare.read(WINDOW, b"two", "1", "2", False) == ["two", "3", "2", True]
    assert is_skipped(results[0])
    assert tabs.told == []
    tabs.meanwhile = lambda: None
    assert tabs.compare.read(WINDOW, b"three", "1", "2", False) == ["three", "1", "2", False]


@pytest.mark.parametrize("handler", ["retry", "draw"])
def test_options_chosen_while_a_picture_is_read_are_used(handler: str, tabs: Tabs) -> None:
    tabs.meanwhile = lambda: getattr(tabs.read, handler)(WINDOW, "2", *NAMES)
    assert tabs.read.read(WINDOW, b"one", "1", *DRAWING) == ["2", True]


def test_the_threshold_moved_while_a_picture_is_read_is_used(tabs: Tabs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabs.read, "_draw", lambda state, *options: list(options))
    tabs.meanwhile = lambda: tabs.read.draw_below(WINDOW, "1", True, 0.7, False, False, False)
    assert tabs.read.read(WINDOW, b"one", "1", *DRAWING) == [False, 0.7, False, False, False]


def test_the_timer_leaves_a_picture_that_is_read_alone(tabs: Tabs) -> None:
    tabs.meanwhile = lambda: tabs.read.recover(WINDOW, "2", *NAMES)
    assert tabs.read.read(WINDOW, b"one", "1", *DRAWING) == ["1", False]


def test_nothing_is_kept_of_a_picture_without_faces(tabs: Tabs) -> None:
    tabs.read.read(WINDOW, b"empty", "newest", *DRAWING)
    tabs.compare.clear(WINDOW)
    assert tabs.context.kept.items() == []
    assert is_skipped(tabs.read.draw(WINDOW, "newest", *DRAWING))
    assert tabs.told == []
