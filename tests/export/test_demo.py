"""The demo through the command line: train, export, serve and predict."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_ai.inference.results import FaceReading
from emotion_ai.published import list_versions
from emotion_ai.vision.crops import Box
from emotion_ai.vision.photo import PORTRAITS
from emotion_ai_export.demo import _readings_table


@pytest.mark.timeout(600)
def test_the_demo_runs_every_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emotion_ai.cli", "demo", "--fast", "--out", str(tmp_path / "demo")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=580, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    for model in ("keypoints", "emotion", "face"):
        assert list_versions(tmp_path / "demo" / "models" / model) == [1, 2]
    with Image.open(tmp_path / "demo" / "demo.png") as picture:
        assert picture.size[0] >= 1000
        assert len(set(picture.convert("L").resize((64, 64)).get_flattened_data())) > 50
    rows = [line.split() for line in result.stdout.splitlines() if line.strip().startswith(("astronaut", "grace"))]
    assert [row[:2] for row in rows] == [[p, v] for p in ("astronaut", "grace_hopper") for v in ("1", "2")]
    assert rows[1][2] == "Happy"
    assert {path.name for path in tmp_path.iterdir()} == {"demo"}


def test_the_table_names_no_emotion_below_the_threshold() -> None:
    probabilities = np.array([0.61, 0.03, 0.25, 0.07, 0.04], np.float32)
    points = np.zeros((15, 2), np.float32)
    face = FaceReading(points, probabilities, Box(0, 0, 96), points, 0.9, uncertain_below=0.66)
    table = _readings_table({2: dict.fromkeys(PORTRAITS, face)})
    assert list(table.columns[2].cells) == ["uncertain", "uncertain"]
