"""The README's main job, end to end, through the command line."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from emotion_ai.contract import EMOTIONS
from emotion_ai.photo import PORTRAITS, load_photo
from emotion_ai.readings import framed_faces
from emotion_ai_export.publish import versions_of
from emotion_ai_export.serve import running


@pytest.mark.timeout(600)
def test_the_whole_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "emotion_ai.cli", "demo", "--fast", "--out", str(tmp_path / "demo")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=580, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    for model in ("keypoints", "emotion", "face"):
        assert versions_of(tmp_path / "demo" / "models" / model) == [1, 2]
    with Image.open(tmp_path / "demo" / "demo.png") as picture:
        assert picture.size[0] >= 1000
        assert len(set(picture.convert("L").resize((64, 64)).get_flattened_data())) > 50
    answers = [line.split() for line in result.stdout.splitlines() if line.strip().startswith(("astronaut", "grace"))]
    assert [answer[:2] for answer in answers] == [[p, v] for p in ("astronaut", "grace_hopper") for v in ("1", "2")]
    assert answers[1][2] == "Happy"
    assert {path.name for path in tmp_path.iterdir()} == {"demo"}
    _readme_examples(tmp_path, monkeypatch, capsys)


def _readme_examples(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The README's Python, as it stands, against the models that the demo published."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(examples) == 2
    shutil.copy(PORTRAITS[1], folder / "photo.jpg")
    face, _, _ = framed_faces(load_photo(PORTRAITS[0]))[0]
    Image.fromarray(face).save(folder / "crop.png")
    monkeypatch.chdir(folder)
    capsys.readouterr()
    with running(folder / "demo" / "models") as (url, _):
        for example in examples:
            exec(example.replace("http://127.0.0.1:8501", url), {})
    said = capsys.readouterr().out.split()
    assert said[0] in EMOTIONS
    assert said[-1] == "Happy"
