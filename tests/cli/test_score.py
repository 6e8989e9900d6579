"""What `emotion-ai score` hands to a run: where it may write, and what makes it the same run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from emotion_ai.cli import score_run
from emotion_ai.cli.score_run import ScoreCommand, score_command
from emotion_ai.errors import ConfigError
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


@pytest.mark.parametrize("spec", ["tables", "tables/**/*.csv", "photos"])
def test_a_destination_in_the_source_is_left_out_of_it(runs: list[Any], spec: str) -> None:
    (Path("tables") / "b").mkdir(parents=True)
    Path("tables/b/a.csv").write_text("path\nphotos/0.png\n")
    dest = Path(spec.partition("/")[0]) / "scores"
    for _ in range(2):
        assert score_command(ScoreCommand(sources=(spec,), dest=dest)) == 0
        dest.mkdir(exist_ok=True)
        (dest / "_state.json").write_text("{}")
        parquet.write_table(pa.table({"path": ["0.png"]}), dest / "part-000000.parquet")
    assert runs == [runs[0]] * 2


@pytest.mark.parametrize(
    ("spec", "dest", "held"),
    [
        ("photos", "photos", "photos/0.png"),
        ("photos/1.png", ".", "photos/1.png"),
        ("photos", "link", "photos/0.png"),
        ("spark", "spark", "spark/part-00000.parquet"),
        ("spark/*", "spark", "spark/part-00000.parquet"),
    ],
)
def test_a_destination_that_holds_the_source_is_refused(runs: list[Any], spec: str, dest: str, held: str) -> None:
    Path("link").symlink_to("photos")
    Path("spark").mkdir()
    parquet.write_table(pa.table({"path": ["0.png"]}), "spark/part-00000.parquet")
    with pytest.raises(ConfigError, match=f"^{dest}: holds {held}, a file of the source; choose another DEST"):
        score_command(ScoreCommand(sources=(spec,), dest=Path(dest), overwrite=True))
    assert runs == []


def test_results_are_no_source_of_themselves(runs: list[Any]) -> None:
    Path("scores").mkdir()
    Path("scores/part-000000.parquet").touch()
    with pytest.raises(ConfigError, match="scores: no pictures, .*only the results in DEST"):
        score_command(ScoreCommand(sources=("scores",), dest=Path("scores")))
