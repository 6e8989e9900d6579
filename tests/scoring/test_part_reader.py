"""The rows of a part: those of one picture at a time, whatever its pictures are."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from emotion_ai.class_set import SEVEN
from emotion_ai.contract import Task
from emotion_ai.errors import ImageError, RequestRejectedError, ServerUnreachableError
from emotion_ai.inference.pipeline import detect_faces, read_together
from emotion_ai.inference.reader import FaceReader
from emotion_ai.inference.results import CropReadings, Crops
from emotion_ai.models import FaceNetwork
from emotion_ai.scoring import part_reader
from emotion_ai.scoring.part_reader import PartCounts, PartReader, table_schema
from emotion_ai.scoring.parts import NO_COLUMNS, Picture
from emotion_ai.scoring.sources import open_source
from emotion_ai.video.rows import video_columns
from emotion_ai.vision.photo import PORTRAITS, load_photo
from tests.scoring.fakes import QuickReader, one_face, picture, write_pictures


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> QuickReader:
    monkeypatch.setattr(part_reader, "detect_faces", one_face)
    return QuickReader()


@dataclass(frozen=True)
class Listed:
    """A part of given pictures."""

    found: list[Picture] = field(default_factory=list)
    columns: Any = NO_COLUMNS
    count: int | None = None

    def pictures(self) -> Iterator[Picture]:
        yield from self.found


def write(reader: PartReader, part: Any, path: Path) -> tuple[list[dict[str, Any]], PartCounts]:
    counts = reader.write(part, path, {"a": "b"})
    assert parquet.read_metadata(path).metadata[b"a"] == b"b"
    return parquet.read_table(path).to_pylist(), counts


def test_a_part_has_the_columns_of_a_video_and_a_row_for_each_picture(quick: QuickReader, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 12)
    (part,) = open_source([str(tmp_path / "photos")]).parts
    rows, counts = write(PartReader(quick, 5), part, tmp_path / "x.parquet")
    assert tuple(rows[0]) == video_columns(SEVEN.names)
    assert [row["source"] for row in rows] == [f"{tmp_path}/photos/{i}.png" for i in range(12)]
    assert [row["face"] for row in rows] == [1] * 7 + [None, None] + [1] * 3
    assert rows[7]["error"].startswith(f"{tmp_path}/photos/7.png: is not a readable picture")
    assert all(value is None for name, value in rows[8].items() if name != "source")
    assert rows[3]["Neutral" if "Neutral" in rows[3] else "expression_Neutral"] == pytest.approx(4 / 255 / 7)
    assert rows[3]["nose_tip_x_deviation"] > 0
    assert counts == PartCounts(pictures=12, rows=12, faces=10, without_face=1, failed=1)
    assert max(quick.batches) == 5


def test_faces_of_several_pictures_are_read_as_one_by_one(networks: dict[Task, FaceNetwork]) -> None:
    reader = FaceReader(networks["keypoints"], networks["emotion"], 0.3)
    photos = [load_photo(PORTRAITS[0]), load_photo(PORTRAITS[1]), load_photo(Image.new("RGB", (64, 64)))]
    two = Image.fromarray(np.concatenate([photos[0].rgb, photos[0].rgb[:, ::-1]], axis=1))
    photos.append(load_photo(two))
    detected = [[] if i == 2 else detect_faces(photo) for i, photo in enumerate(photos)]
    together = read_together([(photo.gray, faces) for photo, faces in zip(photos, detected, strict=True)], reader)
    assert [len(faces) for faces in together] == [1, 1, 0, 2]
    for photo, faces in zip(photos, together, strict=True):
        if faces:
            alone = reader.read(photo)
            for a, b in zip(alone, faces, strict=True):
                assert (a.box, a.score, a.flags, a.verdict) == (b.box, b.score, b.flags, b.verdict)
                np.testing.assert_allclose(a.points, b.points, atol=1e-3)
                np.testing.assert_allclose(a.over_classes, b.over_classes, atol=1e-5)
                assert a.as_row().keys() == b.as_row().keys()


def test_other_columns_stay_with_their_picture(quick: QuickReader, tmp_path: Path) -> None:
    columns = pa.schema(
        [("id", pa.uint8()), ("Face", pa.list_(pa.int64())), ("Happy", pa.dictionary(pa.int8(), pa.string()))]
    )

    def row(i: int) -> pa.Table:
        return pa.table({"id": [i], "Face": [[i, i]], "Happy": [f"{i}"]}, columns)

    contents = [picture(1), picture(0), b"x", picture(4), picture(5)]
    found = [Picture(str(i), lambda c=content: c, row(i)) for i, content in enumerate(contents)]  # type: ignore[misc]
    found[3] = Picture("3", found[3].load, None)
    rows, _ = write(PartReader(quick, 2), Listed(found, columns), tmp_path / "x.parquet")
    assert [row["id"] for row in rows] == [0, 1, 2, None, 4]
    assert [row["source_Face"] for row in rows] == [[0, 0], [1, 1], [2, 2], None, [4, 4]]
    assert [row["source_Happy"] for row in rows] == ["0", "1", "2", None, "4"]
    assert parquet.read_schema(tmp_path / "x.parquet").field("id").type == pa.uint8()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string_view(), ["a", "b"]),
        (pa.struct([("a", pa.string_view())]), [{"a": "x" * 20}, None]),
        (pa.list_view(pa.int8()), [[1], [2, 3]]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b"]),
        (pa.decimal256(50, 1), [1, 2]),
        (pa.uuid(), [b"0" * 16, b"1" * 16]),
        (pa.null(), [None, None]),
    ],
    ids=str,
)
def test_columns_of_any_type_of_parquet_are_kept(
    quick: QuickReader, tmp_path: Path, kind: Any, values: list[Any]
) -> None:
    cells = pa.array(values * 50, kind)
    schema = pa.schema([pa.field("image", pa.binary_view()), pa.field("x", kind, metadata={"a": "b"})])
    table = pa.table([pa.array([picture(9)] * 100, pa.binary_view()), cells], schema)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    parts = open_source([str(tmp_path / "a.parquet")]).parts
    written = []
    for i, part in enumerate(parts):
        _, counts = write(PartReader(quick, 5), part, tmp_path / f"{i}.parquet")
        assert counts.faces == counts.pictures == part.count
        written += parquet.read_table(tmp_path / f"{i}.parquet")["x"].to_pylist()
    assert written == cells.to_pylist()


def test_a_name_that_is_taken_gets_source_before_it() -> None:
    columns = pa.schema([("error", pa.int64()), ("source_error", pa.int64()), ("free", pa.int64())])
    schema, renamed = table_schema(SEVEN.names, columns)
    assert list(renamed.values()) == ["source_error", "source_source_error", "free"]
    assert len(set(schema.names)) == len(schema.names)


def test_what_a_picture_does_to_a_library_is_a_row(quick: QuickReader, tmp_path: Path) -> None:
    def explode() -> bytes:
        raise RuntimeError("boom\n\x1b[31m")

    def gone() -> bytes:
        raise ImageError("b: no such file; check the path")

    found = [
        Picture("a", explode),
        Picture("b", gone),
        Picture("c", lambda: picture(3)),
        Picture("d\udcff", lambda: b""),
    ]
    rows, counts = write(PartReader(quick, 8), Listed(found), tmp_path / "x.parquet")
    assert rows[0]["error"] == r"a: cannot be read (RuntimeError: boom \x1b[31m); use another picture"
    assert rows[1]["error"] == "b: no such file; check the path"
    assert rows[2]["face"] == 1
    assert rows[3]["source"] == r"d\udcff"
    assert (counts.failed, counts.faces) == (3, 1)


class Rejecting(QuickReader):
    """A server that rejects crops of one brightness, or is away after some requests."""

    answers = 99

    def read_crops(self, images: Crops) -> CropReadings:
        self.answers -= 1
        if self.answers < 0:
            raise ServerUnreachableError("no server")
        if any(image.mean() == 3 for image in images):
            raise RequestRejectedError("too dark")
        return super().read_crops(images)


def test_a_picture_that_a_server_rejects_does_not_take_the_others_with_it(quick: QuickReader, tmp_path: Path) -> None:
    found = [Picture(str(i), lambda i=i: picture(i)) for i in range(1, 6)]  # type: ignore[misc]
    rows, _ = write(PartReader(Rejecting(), 8, (ServerUnreachableError,)), Listed(found), tmp_path / "x.parquet")
    assert [row["error"] for row in rows] == [None, None, "too dark", None, None]
    assert [row["face"] for row in rows] == [1, 1, None, 1, 1]


def test_a_server_that_goes_away_ends_the_part_without_a_file(quick: QuickReader, tmp_path: Path) -> None:
    reader = Rejecting()
    reader.answers = 3
    found = [Picture(str(i), lambda i=i: picture(10 + i)) for i in range(20)]  # type: ignore[misc]
    with pytest.raises(ServerUnreachableError):
        PartReader(reader, 4, (ServerUnreachableError,)).write(Listed(found), tmp_path / "x.parquet", {})
    assert list(tmp_path.iterdir()) == []


def test_large_pictures_are_read_in_smaller_batches(
    quick: QuickReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_reader, "_BATCH_PIXELS", 3 * 32 * 32)
    found = [Picture(str(i), lambda: picture(9)) for i in range(8)]
    write(PartReader(quick, 100), Listed(found), tmp_path / "x.parquet")
    assert max(quick.batches) == 3


def test_rows_are_written_piece_by_piece(quick: QuickReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_reader, "_ROWS", 10)
    found = [Picture(str(i), lambda: picture(9)) for i in range(25)]
    rows, counts = write(PartReader(quick, 5), Listed(found), tmp_path / "x.parquet")
    assert [row["source"] for row in rows] == [str(i) for i in range(25)]
    assert parquet.read_metadata(tmp_path / "x.parquet").num_row_groups == 3
    assert counts.rows == 25


def test_a_shrunk_photo_has_boxes_in_pixels_of_its_file(
    quick: QuickReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = write(PartReader(quick, 5), Listed([Picture("a", lambda: picture(9))]), tmp_path / "x.parquet")
    monkeypatch.setattr(part_reader, "load_photo", lambda content, name: replace(load_photo(content), scale=4))
    rows, _ = write(PartReader(quick, 5), Listed([Picture("a", lambda: picture(9))]), tmp_path / "y.parquet")
    assert rows[0]["box_size"] == 4 * plain[0]["box_size"]
    assert rows[0]["nose_tip_x"] == pytest.approx(4 * plain[0]["nose_tip_x"] + 1.5)
