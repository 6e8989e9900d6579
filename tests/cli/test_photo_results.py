"""The table of faces on the terminal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.class_set import SEVEN
from emotion_ai.cli.photo_results import TerminalTable
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
