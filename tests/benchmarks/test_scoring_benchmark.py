"""The benchmark of bulk scoring: what is taken off, and what its ratio is of."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from emotion_ai.benchmarks import scoring


def test_pictures_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        scoring.write_pictures(tmp_path / name, 3, 5)
    files = sorted((tmp_path / "a").iterdir())
    assert [path.name for path in files] == ["0.jpg", "1.jpg", "2.jpg"]
    assert len({path.read_bytes() for path in files}) == 3
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        with Image.open(path) as picture:
            assert max(picture.size) <= scoring.SIDE


def test_the_start_of_a_command_is_taken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    commands = []

    def run(command: list[str], **_: Any) -> None:
        count = len(list(Path(command[4]).iterdir()))
        clock[0] += 30 + count / 20 if command[3] == "score" else 5 + count / 10
        commands.append((command[3], command[command.index("--device") + 1]))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(scoring, "write_pictures", lambda folder, count, seed: _touch(folder, count))
    table = scoring.benchmark(40, 8, 2, [0, 1])
    assert [row[1] for row in table.rows] == pytest.approx([10, 5, 2])
    assert commands == [(name, "cpu") for name in ("predict", "predict", "score", "score")] * 2


def _touch(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / str(number)).touch()
