"""The folder of a run's results: what a run goes on with, what it replaces, and what it leaves alone."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from emotion_ai.errors import ConfigError
from emotion_ai.scoring.folder import ScoreFolder
from emotion_ai.scoring.part_reader import PartCounts, PartReader
from emotion_ai.scoring.parts import FilesPart
from emotion_ai.scoring.stores import Store
from tests.scoring.fakes import QuickReader


def run_of(path: Path, source: int = 1) -> ScoreFolder:
    return ScoreFolder(path, {"source": source})


def write_part(folder: ScoreFolder, number: int) -> None:
    """A part with one picture, which is missing."""
    part = FilesPart(Store(), (("/nothing.png", "nothing.png"),))
    PartReader(QuickReader(), 1).write(part, folder.part(number), folder.metadata)


def written(path: Path, parts: int = 2) -> ScoreFolder:
    """A folder with a whole run."""
    folder = run_of(path)
    with folder.opened(parts):
        for number in range(parts):
            write_part(folder, number)
    return folder


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def write_other(path: Path) -> None:
    parquet.write_table(pa.table({"image": ["a.png"]}), path)


def test_overwrite_removes_the_parts_of_another_run(tmp_path: Path) -> None:
    written(tmp_path)
    write_other(tmp_path / "part-00000.parquet")
    with run_of(tmp_path, 2).opened(2, overwrite=True) as done:
        assert not done
        assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["part-00000.parquet"]


def test_overwrite_removes_nothing_where_no_run_was(tmp_path: Path) -> None:
    write_other(tmp_path / "part-000000.parquet")
    before = content(tmp_path)
    with pytest.raises(ConfigError, match="has Parquet files of something else"), run_of(tmp_path).opened(1, True):
        pass
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["part-000001.parquet", "_state.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_something_else_wrote_is_not_replaced(tmp_path: Path, name: str, overwrite: bool) -> None:
    written(tmp_path)
    write_other(tmp_path / name)
    before = content(tmp_path)
    error = rf"{name}: is damaged, or of something else; move it away, or choose another DEST"
    with pytest.raises(ConfigError, match=error), run_of(tmp_path).opened(2, overwrite):
        pass
    assert content(tmp_path) == before


def test_a_run_that_ended_with_an_error_leaves_no_trace(tmp_path: Path) -> None:
    folder = run_of(tmp_path)

    def fail() -> None:
        folder.journal(0).write_text("opening\n")
        (tmp_path / ".part-000000.parquet.0.partial").touch()
        raise ConfigError("no such model")

    with pytest.raises(ConfigError, match="no such model"), folder.opened(2):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["_state.json"]
    with run_of(tmp_path, 2).opened(3) as done:
        assert not done
        write_part(run_of(tmp_path, 2), 0)
    with pytest.raises(ConfigError, match="was written with a source of other"), folder.opened(2):
        pass


def test_a_part_of_which_any_byte_has_changed_is_written_anew(tmp_path: Path) -> None:
    folder = written(tmp_path, 1)
    path = folder.part(0)
    whole = path.read_bytes()
    for place in (*range(0, len(whole), 101), whole.rindex(b"error"), *range(len(whole) - 60, len(whole))):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 132]) + whole[place + 1 :])
        assert folder.counts(0) is None, place
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert folder.counts(0) is None, size
    path.write_bytes(whole)
    assert folder.counts(0) == PartCounts(pictures=1, rows=1, failed=1)
