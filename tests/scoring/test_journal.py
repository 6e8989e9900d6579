"""A picture at which workers die becomes a row with an error; any other death does not blame a picture."""

import re
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import CropReadings, Crops
from emotion_ai.scoring import part_reader
from emotion_ai.scoring.folder import ScoreFolder
from emotion_ai.scoring.journal import Journal
from emotion_ai.scoring.part_reader import PartReader
from emotion_ai.scoring.run import ScoreOptions, worker_shares
from emotion_ai.scoring.sources import open_source
from emotion_ai.vision.photo import Photo
from tests.scoring.fakes import QuickReader, one_face, picture


class Died(BaseException):
    """What no code of a worker handles."""


class Deadly(QuickReader):
    """Dies with crops as bright as the deadly picture's, or in between."""

    level = 200

    def read_crops(self, images: Crops) -> CropReadings:
        if any(image.max() == self.level for image in images):
            raise Died
        return super().read_crops(images)


@pytest.fixture
def part(tmp_path: Path) -> Any:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.png").write_bytes(picture(200 if i in (3, 7) else 20 + i))
    (source,) = open_source([str(folder)]).parts
    return source


def deaths_until_written(part: Any, path: Path, reader: QuickReader, most: int = 20) -> int:
    """Writes a part as a line of workers does, each with the journal of the one before."""
    for count in range(most):
        try:
            with Journal(path.with_suffix(".reading"), "part-0") as journal:
                PartReader(reader, 4).write(part, path, {}, journal)
                journal.finished()
        except Died:
            continue
        assert not path.with_suffix(".reading").exists()
        return count
    raise AssertionError("it was never written")


def errors(path: Path) -> dict[str, str]:
    table = parquet.read_table(path, columns=["source", "error"]).to_pylist()
    assert len(table) == 12
    return {Path(row["source"]).name: row["error"] for row in table if row["error"]}


def test_pictures_whose_reading_kills_the_worker_are_rows_with_an_error(
    part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_reader, "detect_faces", one_face)
    path = tmp_path / "part.parquet"
    assert deaths_until_written(part, path, Deadly()) == 1 + 3 + 3, "one death together, then three at each"
    found = errors(path)
    assert sorted(found) == ["3.png", "7.png"]
    assert re.search(r"3\.png: the process that read it died 3 times \(a crash, or too little memory\)", found["3.png"])


def test_pictures_whose_decoding_kills_the_worker_are_rows_with_an_error(
    part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect(photo: Photo) -> Any:
        if photo.gray.max() == 200:
            raise Died
        return one_face(photo)

    monkeypatch.setattr(part_reader, "detect_faces", detect)
    path = tmp_path / "part.parquet"
    assert deaths_until_written(part, path, QuickReader()) == 6
    assert sorted(errors(path)) == ["3.png", "7.png"]


def test_a_worker_that_is_killed_twice_blames_no_picture(
    part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[int] = []

    def detect(photo: Photo) -> Any:
        if photo.gray.max() == 20 and len(died) < 2:
            died.append(1)
            raise Died
        return one_face(photo)

    monkeypatch.setattr(part_reader, "detect_faces", detect)
    path, reader = tmp_path / "part.parquet", QuickReader()
    assert deaths_until_written(part, path, reader) == 2
    assert errors(path) == {}
    assert max(reader.batches) == 4, "they are still read together"


@pytest.mark.parametrize("state", ["opening", "between"])
def test_deaths_apart_from_pictures_end_the_run(state: str, tmp_path: Path) -> None:
    path = tmp_path / ".reading"
    for _ in range(10):
        with Journal(path, "part-000004.parquet") as journal:
            getattr(journal, state)()
    with pytest.raises(
        ConfigError, match=r"part-000004\.parquet: its process died 10 times while it .*free some memory"
    ):
        Journal(path, "part-000004.parquet")


def test_another_run_forgets_who_ended_the_last_one(tmp_path: Path) -> None:
    folder = ScoreFolder(tmp_path, {"source": 1})
    with folder.opened(3), Journal(folder.journal(1)) as journal:
        journal.reading(5)
        assert folder.being_read() == ["part-000001.parquet"]
    assert not folder.journal(1).exists()
    folder.journal(2).write_text("5\ndied\n5\ndied\n5\ndied\n")
    with folder.opened(3):
        assert not Journal(folder.journal(2)).deadly(5)
        assert not [path.name for path in tmp_path.iterdir() if not path.name.startswith(("_", "."))]


@pytest.mark.parametrize(
    ("cpus", "gpus", "workers", "expected"),
    [
        (16, 1, None, (16, 0.0625)),
        (3, 2, None, (3, 0.5)),  # 2/3 would leave one of them without a GPU
        (7, 3, None, (7, 0.3333)),
        (4, 8, None, (4, 1.0)),
        (8, 2, 2, (2, 1.0)),
        (8, 0, None, (8, 0.0)),
    ],
)
def test_workers_share_the_gpus_so_that_all_have_one(
    cpus: int, gpus: int, workers: int | None, expected: tuple[int, float]
) -> None:
    assert worker_shares({"CPU": cpus, "GPU": gpus}, ScoreOptions(workers=workers, gpu=True), 100) == expected
    assert worker_shares({"CPU": cpus, "GPU": gpus}, ScoreOptions(workers=workers), 100)[1] == 0.0
