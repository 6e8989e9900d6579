import gzip
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from emotion_ai.data import cache
from emotion_ai.data.loaders import COORDINATES, load, load_lookup
from emotion_ai.errors import ConfigError, DataError

FER_ROW = " ".join(["7"] * 48 * 48)
FACE_ROW = " ".join(["9"] * 96 * 96)


def fer(path: Path, rows: list[str], header: str = "emotion,pixels,Usage") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def keypoints(path: Path, cells: list[str], image: str = FACE_ROW) -> Path:
    path.write_text(",".join([*COORDINATES, "Image"]) + "\n" + ",".join([*cells, image]) + "\n")
    return path


def test_fer2013_maps_seven_ids_to_five(tmp_path: Path) -> None:
    rows = [f"{label},{FER_ROW},Training" for label in range(7)]
    faces = load(fer(tmp_path / "fer2013.csv", rows))
    assert faces.task == "emotion"
    assert faces.images.shape == (5, 48, 48)
    assert faces.images.dtype == np.uint8
    assert faces.targets.tolist() == [0, 1, 3, 2, 4]  # fear and neutral are left out; 4 is sad, 5 is surprise
    assert set(faces.part) == {"Training"}


def test_blank_padded_columns_in_another_order(tmp_path: Path) -> None:
    path = fer(tmp_path / "icml_face_data.csv", [f"3, PublicTest, {FER_ROW}"], "emotion, Usage, pixels")
    faces = load(path)
    assert faces.targets.tolist() == [3]
    assert faces.part.tolist() == ["PublicTest"]


@pytest.mark.parametrize(
    ("ids", "labels", "expected"),
    [
        ([0, 4, 2], "auto", [0, 4, 2]),  # no id above 4: the five-class file
        ([0, 4, 6, 5], "auto", [0, 2, 4]),
        ([0, 4, 3], "fer7", [0, 2, 3]),
        ([0, 4, 3], "five", [0, 4, 3]),
    ],
)
def test_labels_without_usage(
    tmp_path: Path, ids: list[int], labels: str, expected: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    path = fer(tmp_path / "train.csv", [f"{i},{FER_ROW}" for i in ids], "emotion,pixels")
    assert load(path, labels=labels).targets.tolist() == expected
    assert ("data.labels=auto" in capsys.readouterr().err) == (labels == "auto")


def test_keypoints_with_missing_points(tmp_path: Path) -> None:
    cells = [str(i) for i in range(30)]
    cells[4] = ""  # one coordinate missing makes the point unknown
    faces = load(keypoints(tmp_path / "training.csv", cells))
    assert faces.task == "keypoints"
    assert faces.images.shape == (1, 96, 96)
    assert np.isnan(faces.targets[0, 2]).all()
    assert faces.targets[0, 3].tolist() == [6, 7]


def test_test_csv_has_no_points(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text(f"ImageId,Image\n1,{FACE_ROW}\n")
    assert np.isnan(load(path).targets).all()


def test_lookup_table(tmp_path: Path) -> None:
    path = tmp_path / "IdLookupTable.csv"
    path.write_text("RowId,ImageId,FeatureName,Location\n1,1,left_eye_center_x,\n2,1,mouth_center_bottom_lip_y,\n")
    rows, images, features = load_lookup(path)
    assert (rows.tolist(), images.tolist(), features.tolist()) == ([1, 2], [1, 1], [0, 29])


def test_archives_hold_the_same_faces(tmp_path: Path) -> None:
    plain = fer(tmp_path / "a.csv", [f"3,{FER_ROW},Training"])
    content = plain.read_bytes()
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "a.csv.xz").write_bytes(lzma.compress(content))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner/a.csv", content)
        archive.writestr("__MACOSX/inner/._a.csv", b"junk")
    for name in ("a.csv.gz", "a.csv.xz", "a.zip"):
        assert np.array_equal(load(tmp_path / name).images, load(plain).images)


def test_folder_with_splits(tmp_path: Path) -> None:
    for split, emotion, size in [("train", "happy", 48), ("test", "Surprise", 48), ("train", "fear", 48)]:
        folder = tmp_path / split / emotion
        folder.mkdir(parents=True)
        Image.new("RGB", (size, size), (50, 50, 50)).save(folder / "a.png")
    faces = load(tmp_path)
    assert sorted(zip(faces.part, faces.targets.tolist(), strict=True)) == [("PrivateTest", 4), ("Training", 3)]
    assert faces.images.shape == (2, 48, 48)


def test_folder_of_other_sizes_is_resized_to_crops(tmp_path: Path) -> None:
    (tmp_path / "sad").mkdir()
    Image.new("L", (200, 150), 77).save(tmp_path / "sad" / "a.jpg")
    faces = load(tmp_path)
    assert faces.images.shape == (1, 96, 96)
    assert faces.part.tolist() == [""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"emotion,pixels\n", "no rows"),
        ("a.csv", b"foo,bar\n1,2\n", "row 1: the columns are bar, foo"),
        ("a.csv", f"emotion,pixels\nx,{FER_ROW}\n".encode(), "row 2, column emotion: 'x' is not an integer"),
        ("a.csv", f"emotion,pixels\n9,{FER_ROW}\n".encode(), "row 2, column emotion: unknown class id 9"),
        ("a.csv", b"emotion,pixels\n0,1 2 3\n", "row 2, column pixels: expected 2304 pixels"),
        ("a.csv", f"emotion,pixels\n0,{FER_ROW[:-1]}300\n".encode(), "the pixel 300 is outside 0-255"),
        ("a.csv", f"emotion,pixels\n0,{FER_ROW[:-1]}-1\n".encode(), "the pixel -1 is outside 0-255"),
        ("a.csv", f"emotion,pixels\n0,{FER_ROW[:-1]}x\n".encode(), "'x' is not an integer"),
        ("a.csv", f"emotion,pixels\n0,{FER_ROW[:-1]}1.5\n".encode(), "'1.5' is not an integer"),
        ("a.csv", f"emotion,pixels\n0,{FER_ROW[:-1]}--5\n".encode(), "'--5' is not an integer"),
        ("a.csv", f"emotion,pixels\n0,{FER_ROW[:-1]}{10**30}\n".encode(), "'10000000000000000000' is not an integer"),
        ("a.csv", f"emotion,pixels\n0,{FER_ROW},Training\n".encode(), "row 2: has 3 columns, the header 2"),
        ("a.csv", f"emotion,pixels,Usage\n0,{FER_ROW},Tuesday\n".encode(), "column Usage: 'Tuesday'"),
        ("a.csv", f"left_eye_center_x,Image\n0,{FACE_ROW}\n".encode(), "lacks 29 coordinate columns"),
        ("a.csv", b"\xff\xfe\x00emotion\x00\n\x81", "not a CSV text file"),
        ("a.csv.xz", lzma.compress(f"emotion,pixels\n0,{FER_ROW}\n".encode())[:60], "truncated or damaged archive"),
        ("a.csv.gz", gzip.compress(f"emotion,pixels\n0,{FER_ROW}\n".encode())[:40], "truncated or damaged archive"),
        ("a.csv.gz", b"not an archive at all", "truncated or damaged archive"),
        ("a.zip", b"PK\x03\x04 nothing more", "truncated or damaged archive"),
        ("a.csv", f"emotion,pixels\n2,{FER_ROW}\n6,{FER_ROW}\n".encode(), "has only faces of fear and neutral"),
    ],
)
def test_bad_files_are_one_line_and_leave_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    own = tmp_path / "cache"  # other tests write to the shared one at the same time
    monkeypatch.setenv("EMOTION_AI_CACHE", str(own))
    with pytest.raises(DataError) as error:
        load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    if "fear and neutral" not in message:  # that file is sound; only this reading of it is empty
        assert not list(own.glob("*"))


def test_non_numeric_coordinate(tmp_path: Path) -> None:
    cells = ["1.5"] * 30
    cells[7] = "left"
    with pytest.raises(DataError, match="row 2, column left_eye_outer_corner_y: 'left' is not a number"):
        load(keypoints(tmp_path / "training.csv", cells))


def test_missing_file_wrong_task_unknown_labels_and_class_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "none.csv")
    with pytest.raises(DataError, match="holds faces for emotion, expected keypoints"):
        load(fer(tmp_path / "a.csv", [f"3,{FER_ROW},Training"]), task="keypoints")
    with pytest.raises(ConfigError, match="data.labels=six"):
        load(tmp_path, labels="six")
    (tmp_path / "folder" / "bored").mkdir(parents=True)
    monkeypatch.setattr("emotion_ai.data.loaders.fingerprint", lambda path: pytest.fail("read whole"))
    with pytest.raises(DataError, match="unknown class or split folder"):
        load(tmp_path / "folder")
    with pytest.raises(DataError, match="is a folder; keypoints come as a CSV file"):
        load(tmp_path, task="keypoints")
    with pytest.raises(DataError, match="the path is empty"):
        load("")
    monkeypatch.undo()
    (tmp_path / "broken" / "happy").mkdir(parents=True)
    (tmp_path / "broken" / "happy" / "a.png").write_bytes(b"\x89PNG garbage")
    with pytest.raises(DataError, match="not a readable image"):
        load(tmp_path / "broken")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=300))
def test_garbage_never_escapes_as_another_error(tmp_path: Path, garbage: bytes) -> None:
    for name in ("g.csv", "g.zip", "g.csv.gz", "g.csv.xz"):
        path = tmp_path / name
        path.write_bytes(garbage)
        with pytest.raises(DataError):
            load(path)


def test_changed_file_is_parsed_anew_and_broken_cache_is_not_read(tmp_path: Path, own_cache: Path) -> None:
    path = fer(tmp_path / "a.csv", [f"3,{FER_ROW},Training"])
    first = load(path)
    entry = next(own_cache.glob(f"{first.fingerprint[:32]}*.npz"))
    entry.write_bytes(entry.read_bytes()[:100])
    assert np.array_equal(load(path).images, first.images)
    fer(path, [f"3,{FER_ROW},Training"] * 2)
    assert len(load(path)) == 2


def test_second_load_does_not_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fer(tmp_path / "b.csv", [f"0,{FER_ROW},Training"])
    load(path)
    monkeypatch.setattr("emotion_ai.data.loaders._parse_emotion", lambda path: pytest.fail("parsed again"))
    assert len(load(path)) == 1


def test_nothing_is_cached_when_parsing_fails(own_cache: Path) -> None:
    def parse() -> cache.Arrays:
        raise DataError("no")

    with pytest.raises(DataError):
        cache.cached("f" * 64, "emotion", parse)
    assert not list(own_cache.glob("f" * 32 + "*"))


def test_real_files(real_data: Path) -> None:
    faces = load(real_data / "facial-keypoints" / "validation.csv.xz")
    assert faces.images.shape == (298, 96, 96)
    assert not np.isnan(faces.targets).any()
