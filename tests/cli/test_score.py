"""What `emotion-ai score` hands to a run: where it may write, and what makes it the same run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from emotion_ai.cli import score_run
from emotion_ai.cli.score_run import ScoreCommand, score_command
from emotion_ai.scoring.part_reader import PartCounts
from emotion_ai.scoring.run import ScoreProgress
from emotion_ai.scoring.sources import PictureSource
from tests.scoring.fakes import write_pictures


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What tells the runs apart, in a folder with three pictures."""
    found = list[Any]()

    def score(source: PictureSource, dest: Path, reader: Any, options: Any, identity: Mapping[str, Any], _: Any) -> Any:
        found.append((source.identity, identity))
        return ScoreProgress(PartCounts(), PartCounts(), 0.0, 1, 1)

    monkeypatch.setattr(score_run, "score", score)
    write_pictures(tmp_path / "photos", 3)
    monkeypatch.chdir(tmp_path)
    return found


def test_a_folder_is_the_same_source_however_it_is_written(runs: list[Any]) -> None:
    for spec in ("photos", "photos/", "./photos", "photos/*.png"):
        assert score_command(ScoreCommand(sources=(spec,), dest=Path("scores"))) == 0
    assert runs == [runs[0]] * 4
