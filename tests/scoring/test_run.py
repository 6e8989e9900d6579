"""A run on Ray: every picture once, whatever ended an earlier run; no other source or model goes on with it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from emotion_ai.errors import ConfigError, EmotionAIError, ServerUnreachableError
from emotion_ai.files import locked_folder
from emotion_ai.scoring.part_reader import PartCounts
from emotion_ai.scoring.run import ScoreOptions, ScoreProgress, score
from emotion_ai.scoring.sources import open_source
from tests.scoring.fakes import QuickSource, picture, write_pictures

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def run(photos: Path, dest: Path, reader: QuickSource | None = None, **options: Any) -> ScoreProgress:
    return score(open_source([str(photos)]), dest, reader or QuickSource(), ScoreOptions(**options), {"option": 1})


def sources(dest: Path) -> list[str]:
    return [Path(name).name for name in parquet.read_table(dest, columns=["source"])["source"].to_pylist()]


def test_every_picture_has_its_row_and_finished_parts_are_not_read_again(ray_here: Any, tmp_path: Path) -> None:
    photos, dest = write_pictures(tmp_path / "photos", 120), tmp_path / "scores"
    seen: list[ScoreProgress] = []
    found = score(open_source([str(photos)]), dest, QuickSource(), ScoreOptions(), {}, seen.append)
    expected = PartCounts(pictures=120, rows=120, faces=116, without_face=2, failed=2)
    assert found.total == expected
    assert sources(dest) == [f"{i}.png" for i in range(120)]
    assert [state.parts_done for state in seen] == list(range(9))
    assert json.loads((dest / "_state.json").read_text())["finished"] is True

    times = {path: path.stat().st_mtime_ns for path in dest.glob("*.parquet")}
    (dest / "part-000003.parquet").unlink()
    content = (dest / "part-000005.parquet").read_bytes()
    (dest / "part-000005.parquet").write_bytes(content[:-100])
    again = score(open_source([str(photos)]), dest, QuickSource(), ScoreOptions(), {})
    assert (again.counts.pictures, again.total) == (32, expected)
    assert sources(dest) == [f"{i}.png" for i in range(120)]
    changed = [path.name for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert sorted(changed) == ["part-000003.parquet", "part-000005.parquet"]
    last = score(open_source([str(photos)]), dest, QuickSource(down=True), ScoreOptions(), {})  # no worker is needed
    assert (last.counts, last.total) == (PartCounts(), expected)


def test_another_source_model_or_option_is_refused(ray_here: Any, tmp_path: Path) -> None:
    photos, dest = write_pictures(tmp_path / "photos", 20), tmp_path / "scores"
    run(photos, dest)
    with pytest.raises(ConfigError, match="scores: was written with another model; go on with the same, replace all"):
        run(photos, dest, QuickSource("other"))
    with pytest.raises(ConfigError, match="was written with option 1, now it is 2;"):
        score(open_source([str(photos)]), dest, QuickSource(), ScoreOptions(), {"option": 2})
    (photos / "3.png").write_bytes(picture(99))
    with pytest.raises(ConfigError, match="was written with a source of other files, names or content"):
        run(photos, dest)
    assert run(photos, dest, QuickSource("other"), overwrite=True).total.pictures == 20
    source = open_source([str(photos)])
    with pytest.raises(ConfigError, match="was written with version of tar reading null, now it is 2; go on with"):
        score(
            replace(source, rules={"version of tar reading": 2}),
            dest,
            QuickSource("other"),
            ScoreOptions(),
            {"option": 1},
        )
    (dest / "_state.json").write_text("{")
    with pytest.raises(ConfigError, match=r"_state\.json: is damaged, or of something else; move it away"):
        run(photos, dest)
    (dest / "_state.json").unlink()
    with pytest.raises(ConfigError, match="has Parquet files of something else"):
        run(photos, dest)


@pytest.mark.slow
def test_a_picture_that_kills_its_workers_is_a_row_with_an_error(ray_here: Any, tmp_path: Path) -> None:
    photos, dest = write_pictures(tmp_path / "photos", 6), tmp_path / "scores"
    (photos / "4.png").write_bytes(picture(255))
    found = run(photos, dest, QuickSource(deadly=255))
    assert (found.total.pictures, found.total.rows, found.total.failed) == (6, 6, 1)
    table = parquet.read_table(dest, columns=["source", "error"]).to_pylist()
    (error,) = [row["error"] for row in table if row["error"]]
    assert "4.png: the process that read it died 3 times" in error
    assert not list(dest.glob(".part-*"))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    photos, dest = write_pictures(tmp_path / "photos", 2), tmp_path / "scores"
    with (
        locked_folder(dest),
        pytest.raises(ConfigError, match="another process writes to this folder"),
    ):
        run(photos, dest)


def test_an_error_that_nothing_foresees_is_one_line_with_the_part(ray_here: Any, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": [picture(1)]}), tmp_path / "a.parquet")
    source = open_source([str(tmp_path / "a.parquet")])
    broken = replace(source, parts=[replace(source.parts[0], columns=pa.schema([("none", pa.int8())]))])  # type: ignore[type-var]
    with pytest.raises(
        EmotionAIError, match=r"part-000000\.parquet: cannot be written \(KeyError: .*, parts\.py:\d+\)"
    ):
        score(broken, tmp_path / "scores", QuickSource(), ScoreOptions(), {})


def test_a_server_that_is_away_ends_the_run_and_the_same_command_goes_on(ray_here: Any, tmp_path: Path) -> None:
    photos, dest = write_pictures(tmp_path / "photos", 40), tmp_path / "scores"
    with pytest.raises(ServerUnreachableError, match="no server answers"):
        run(photos, dest, QuickSource(down=True))
    assert not list(dest.glob("part-*"))
    assert run(photos, dest).total.pictures == 40
