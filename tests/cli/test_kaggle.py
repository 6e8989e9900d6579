"""A submission lists the coordinates of the lookup table, in its order, or nothing is written."""

import contextlib
import gzip
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emotion_ai.cli.kaggle import write_submission
from emotion_ai.cli.photos import PredictOptions, predict_command
from emotion_ai.contract import KEYPOINTS, MEAN_FACE
from emotion_ai.data.loaders import COORDINATES
from emotion_ai.errors import ConfigError, DataError, ServerUnreachableError
from emotion_ai.inference.results import CropReadings, Crops

LOOKUP = """RowId,ImageId,FeatureName,Location
1,1,left_eye_center_x,
2,1,mouth_center_bottom_lip_y,
7,30,nose_tip_x,
3,2,nose_tip_y,
4,2,left_eye_center_y,
"""
WANTED = """RowId,Location
1,0.0000
2,29.0000
7,96.0000
3,71.2500
4,51.2500
"""


class Reader:
    """A `CropReader` made from a function."""

    def __init__(self, read: Callable[[Crops], CropReadings]) -> None:
        self._read = read

    def read_crops(self, images: Crops) -> CropReadings:
        return self._read(images)


def ramp(crops: Crops) -> CropReadings:
    """Coordinate i of a face is its gray value plus i: the faces are 0, 50.25 once halved, and 200."""
    values = np.array([float(crop.mean()) for crop in crops], np.float32)
    points = (values[:, None] + np.arange(30, dtype=np.float32)).reshape(-1, len(KEYPOINTS), 2)
    return CropReadings(points.astype(np.float32), np.full((len(crops), 5), np.nan, np.float32))


def row(image: object, gray: int, above: int = 0) -> str:
    """A face of one gray, a quarter of it brighter by `above`."""
    return f"{image},{' '.join([str(gray + above)] * 2304 + [str(gray)] * 6912)}\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    test, lookup = tmp_path / "test.csv", tmp_path / "IdLookupTable.csv"
    test.write_text("ImageId,Image\n" + row(1, 0) + row(2, 50, 1) + row(30, 200))
    lookup.write_text(LOOKUP)
    return test, lookup, tmp_path / "new" / "submission.csv"


def test_the_file_is_exactly_this(files: tuple[Path, Path, Path]) -> None:
    """Rows in the table's order, ids that are no positions, and 200 and more clipped to 96."""
    assert write_submission(*files[:2], Reader(ramp), files[2]) == 5
    assert files[2].read_bytes() == WANTED.encode()
    assert [path.name for path in files[2].parent.iterdir()] == ["submission.csv"]


def test_negative_locations_are_clipped(files: tuple[Path, Path, Path]) -> None:
    def below(crops: Crops) -> CropReadings:
        readings = ramp(crops)
        return CropReadings(readings.keypoints - 1000, readings.probabilities)

    write_submission(*files[:2], Reader(below), files[2])
    assert {line.partition(",")[2] for line in files[2].read_text().splitlines()[1:]} == {"0.0000"}


def test_archives(files: tuple[Path, Path, Path]) -> None:
    for source in files[:2]:
        content = source.read_bytes()
        (source.parent / f"{source.name}.gz").write_bytes(gzip.compress(content))
        (source.parent / f"{source.name}.xz").write_bytes(lzma.compress(content))
        with zipfile.ZipFile(source.parent / f"{source.name}.zip", "w") as archive:
            archive.writestr(source.name, content)
    for suffix in ("gz", "xz", "zip"):
        test, lookup = (source.parent / f"{source.name}.{suffix}" for source in files[:2])
        write_submission(test, lookup, Reader(ramp), files[2])
        assert files[2].read_bytes() == WANTED.encode()


def test_more_faces_than_a_batch(tmp_path: Path) -> None:
    count = 150
    (tmp_path / "t.csv").write_text("ImageId,Image\n" + "".join(row(i, i % 60) for i in range(1, count + 1)))
    lines = "".join(f"{i},{i},left_eye_center_y,\n" for i in range(count, 0, -1))
    (tmp_path / "l.csv").write_text("RowId,ImageId,FeatureName,Location\n" + lines)
    sizes: list[int] = []

    def batched(crops: Crops) -> CropReadings:
        sizes.append(len(crops))
        return ramp(crops)

    write_submission(tmp_path / "t.csv", tmp_path / "l.csv", Reader(batched), tmp_path / "s.csv")
    assert sizes == [64, 64, 22]
    found = (tmp_path / "s.csv").read_text().splitlines()[1:]
    assert found == [f"{i},{i % 60 + 1:.4f}" for i in range(count, 0, -1)]


@pytest.mark.parametrize(
    ("which", "content", "message"),
    [
        (0, b"", "is empty"),
        (0, b"ImageId,Image\n", "has a header but no rows"),
        (0, f"Image\n{row(1, 0)[2:]}".encode(), "lacks the column ImageId; Kaggle's test.csv has ImageId and Image"),
        (0, f"ImageId,Image\n{row(1, 0)}{row(1, 9)}".encode(), "row 3: the ImageId 1 is that of row 2"),
        (0, f"ImageId,Image\n{row('x', 0)}".encode(), "row 2, column ImageId: 'x' is not an integer"),
        (0, f"ImageId,Image\n{row(10**30, 0)}".encode(), "row 2, column ImageId: '10000000000000000000' is not an"),
        (
            0,
            f"ImageId,Image\n{row(1, 0)}{row(2, 0)[:-9]}\n{row(30, 0)}".encode(),
            "row 3, column Image: expected 9216 pixels (96x96), got 9212",
        ),
        (0, f"ImageId,Image\n{row(1, 0)}{row(2, 300)}{row(30, 0)}".encode(), "the pixel 300 is outside 0-255"),
        (0, b"ImageId,emotion,pixels\n1,0,1\n2,0,1\n30,0,1\n", "expected 2304 pixels"),
        (0, b"\x89PNG\r\n\x1a\n\x00\xff", "not a CSV text file"),
        (1, b"", "is empty"),
        (1, b"RowId,ImageId,FeatureName,Location\n", "has a header but no rows"),
        (1, b"RowId,ImageId\n1,1\n", "lacks the column FeatureName"),
        (1, b"RowId,ImageId,FeatureName\n1,1,left_ear_x\n", "row 2, column FeatureName: unknown feature 'left_ear_x'"),
        (1, b"RowId,ImageId,FeatureName\n1,1,nose_tip_x\n8,99,nose_tip_x\n", "RowId 8: the ImageId 99 is not in"),
        (1, b"RowId,ImageId,FeatureName\n1,1,nose_tip_x\n1,2,nose_tip_x\n", "row 3: the RowId 1 occurs twice"),
        (1, b"RowId,ImageId,FeatureName\n1,1.5,nose_tip_x\n", "row 2, column ImageId: '1.5' is not an integer"),
    ],
)
def test_garbage_is_one_line_that_names_the_file_and_nothing_is_written(
    files: tuple[Path, Path, Path], which: int, content: bytes, message: str
) -> None:
    files[which].write_bytes(content)
    with pytest.raises(DataError) as error:
        write_submission(*files[:2], Reader(ramp), files[2])
    assert str(error.value).startswith(str(files[which]))
    assert message in str(error.value)
    assert not files[2].parent.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(max_size=60))
def test_any_lookup_table_is_used_or_refused(files: tuple[Path, Path, Path], text: str) -> None:
    files[1].write_text("RowId,ImageId,FeatureName\n1,1,nose_tip_x\n" + text, encoding="utf-8")
    with contextlib.suppress(DataError):
        rows = write_submission(*files[:2], Reader(ramp), files[2])
        assert len(files[2].read_text().splitlines()) == rows + 1


def test_a_failure_leaves_the_earlier_file_as_it_was(files: tuple[Path, Path, Path]) -> None:
    def away(_: Crops) -> CropReadings:
        raise ServerUnreachableError("nobody there")

    write_submission(*files[:2], Reader(ramp), files[2])
    with pytest.raises(ServerUnreachableError):
        write_submission(*files[:2], Reader(away), files[2])
    assert files[2].read_text() == WANTED
    with pytest.raises(ConfigError, match="is a folder; --csv must be a file"):
        write_submission(*files[:2], Reader(ramp), files[2].parent)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_submission(*files[:2], Reader(ramp), files[0] / "submission.csv")


def test_the_command_writes_into_the_folder_it_is_called_in(
    files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the bundled weights: a featureless face gets points, one for each row, within the image."""
    monkeypatch.chdir(files[0].parent)
    assert predict_command(PredictOptions(files[:2], kaggle=True)) == 0
    assert capsys.readouterr().out == "wrote submission.csv: 5 rows\n"
    lines = Path("submission.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["RowId", "1", "2", "7", "3", "4"]
    assert all(0 <= float(line.partition(",")[2]) <= 96 for line in lines[1:])


def test_settings_that_do_not_fit(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--kaggle takes two files"):
        predict_command(PredictOptions(files[:1], kaggle=True))
    with pytest.raises(ConfigError, match="and a model with keypoints"):
        predict_command(PredictOptions(files[:2], server="http://127.0.0.1:9", model="emotion", kaggle=True))
    options = PredictOptions(files[:2], kaggle=True)
    for contradiction in (
        replace(options, out=tmp_path),
        replace(options, fps=25),
        replace(options, uncertain_below=0.5),
        replace(options, watch=tmp_path),
        replace(options, json=True),
    ):
        with pytest.raises(ConfigError, match="--kaggle only writes a table"):
            predict_command(contradiction)


def test_real_faces_score_as_they_do_elsewhere(real_data: Path, tmp_path: Path) -> None:
    """The validation faces as a test.csv: the submission's error is that of the mean face."""
    from emotion_ai.data.loaders import load

    faces = load(real_data / "facial-keypoints" / "validation.csv.xz", "keypoints")[:40]
    lines = [f"{i},{' '.join(map(str, image.ravel()))}\n" for i, image in enumerate(faces.images, 1)]
    (tmp_path / "test.csv").write_text("ImageId,Image\n" + "".join(lines))
    names = [f"{i},{name}" for i in range(1, 41) for name in COORDINATES]
    table = "".join(f"{number},{name},\n" for number, name in enumerate(names, 1))
    (tmp_path / "lookup.csv").write_text("RowId,ImageId,FeatureName,Location\n" + table)

    def mean_face(crops: Crops) -> CropReadings:
        return CropReadings(
            np.array([MEAN_FACE] * len(crops), np.float32), np.full((len(crops), 5), np.nan, np.float32)
        )

    write_submission(tmp_path / "test.csv", tmp_path / "lookup.csv", Reader(mean_face), tmp_path / "s.csv")
    found = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)[:, 1].reshape(-1, 15, 2)
    np.testing.assert_allclose(
        np.nanmean((found - faces.targets) ** 2), np.nanmean((np.array(MEAN_FACE) - faces.targets) ** 2), rtol=1e-5
    )
