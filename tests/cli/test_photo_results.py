"""The table of faces on the terminal."""

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.class_set import SEVEN
from emotion_ai.cli.photo_results import TABLE_ROWS, TerminalTable
from emotion_ai.contract import MEAN_FACE
from emotion_ai.inference.results import FaceReading
from emotion_ai.vision.crops import Box

MEAN = np.array(MEAN_FACE, np.float32)
CALM = np.array([0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.7], np.float32)
FACE = FaceReading(MEAN, CALM[:5], Box(0, 0, 96), MEAN, 0.9, expressions=CALM, classes=SEVEN.names)


def printed(face: FaceReading, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with TerminalTable() as table:
        table.add(Path("a photo.jpg"), [face])
    return capsys.readouterr().out


def test_a_verdict_is_whole_beside_seven_classes_and_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for face, verdict in ((FACE, "Neutral"), (replace(FACE, uncertain_below=0.9), "uncertain")):
        assert f" {verdict} " in printed(replace(face, cut=True), capsys, monkeypatch)


def test_a_long_table_is_printed_as_it_grows_and_its_faces_are_let_go(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    alive: weakref.WeakSet[Held] = weakref.WeakSet()
    most = 0
    with TerminalTable() as table:
        for number in range(2 * TABLE_ROWS + 5):
            faces = Held([FACE])
            alive.add(faces)
            table.add(Path(f"{number}.jpg"), faces)
            most = max(most, len(alive))
        del faces
        before = capsys.readouterr().out
    after = capsys.readouterr().out
    assert most <= TABLE_ROWS
    assert before.count("emotion") == 2, "two tables"
    assert after.count("emotion") == 1
    names = [line.split()[0] for line in (before + after).splitlines() if ".jpg" in line]
    assert names == [f"{number}.jpg" for number in range(2 * TABLE_ROWS + 5)]


class Held(list[FaceReading]):
    """A list that a weak reference can follow."""

    __hash__ = object.__hash__  # type: ignore[assignment]
