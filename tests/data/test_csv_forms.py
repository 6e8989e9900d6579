"""CSV files of other forms: what is unambiguous is read, the rest is one clear error, and nothing is read for ever."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.data import csv_files, text_files
from emotion_ai.data.loaders import COORDINATES, load
from emotion_ai.data.splits import DataConfig, build_splits
from emotion_ai.errors import ConfigError, DataError, EmotionAIError

RNG = np.random.default_rng(0)
FACE = RNG.integers(2, 256, 48 * 48)
PIXELS = " ".join(map(str, FACE))
FACE_96 = " ".join(map(str, RNG.integers(2, 256, 96 * 96)))
TEXT = f"emotion,pixels,Usage\n3,{PIXELS},Training\n4,{PIXELS},PublicTest\n"


def one_line(path: Path, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def zipped(name: str, content: bytes, **others: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
        for other, text in others.items():
            archive.writestr(other.replace("_", "."), text)
    return stream.getvalue()


def tarred(*files: tuple[str, bytes], compression: str = "gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


SOUND = TEXT.encode()
PACKED: dict[str, bytes] = {
    "a.CSV.GZ": gzip.compress(SOUND),
    "a.ZIP": zipped("a.CSV", SOUND),
    "a.csv.bz2": bz2.compress(SOUND),
    "a.csv.XZ": lzma.compress(SOUND),
    "gzip without its suffix.csv": gzip.compress(SOUND),
    "unpacked by the browser.csv.gz": SOUND,
    "gzip.zip": gzip.compress(SOUND),
    "stated separator.csv": b"sep=;\r\n" + SOUND.replace(b",", b";"),
    "a.tar": tarred(("a.csv", SOUND), compression=""),
    "a.tar.gz": tarred(("fer2013/README", b"text"), ("fer2013/fer2013.csv", SOUND), ("fer2013/._fer2013.csv", b"junk")),
    "a.tgz": tarred(("a.csv", SOUND)),
    "a.tar.bz2": tarred(("a.csv", SOUND), compression="bz2"),
    "a.tar.xz": tarred(("a.csv", SOUND), compression="xz"),
    "semicolons.csv": TEXT.replace(",", ";").encode(),
    "tabs.tsv": TEXT.replace(",", "\t").encode(),
    "utf-16.csv": TEXT.encode("utf-16"),
    "utf-16 big endian.csv": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "utf-16 without mark.csv": TEXT.encode("utf-16-le"),
    "utf-32.csv": TEXT.encode("utf-32"),
    "utf-8 with mark.csv": b"\xef\xbb\xbf" + SOUND,
    "carriage returns.csv": TEXT.replace("\n", "\r").encode(),
    "blank lines.csv": b"\n\r\n" + TEXT.replace("\n", "\n\n").encode(),
    "float labels.csv": TEXT.replace("3,", "3.0,", 1).replace("\n4,", "\n4.,", 1).encode(),
    "names.csv": TEXT.replace("\n3,", "\nHappy,").replace("\n4,", "\n sadness,").encode(),
    "float pixels.csv": TEXT.replace(PIXELS, " ".join(f"{level}.0" for level in FACE)).encode(),
    "list.csv": TEXT.replace(PIXELS, f'"{FACE.tolist()}"').encode(),
    "array.csv": TEXT.replace(PIXELS, f'"{np.array2string(FACE.reshape(48, 48), threshold=10**6)}"').encode(),
    "tuple of floats.csv": TEXT.replace(PIXELS, f'"{tuple(FACE.astype(float).tolist())}"').encode(),
}


@pytest.mark.parametrize("name", PACKED)
def test_every_form_holds_the_same_faces(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(PACKED[name])
    faces = load(tmp_path / name)
    assert faces.targets.tolist() == [3, 2]
    assert faces.part.tolist() == ["Training", "PublicTest"]
    np.testing.assert_array_equal(faces.images, np.stack([FACE.reshape(48, 48)] * 2))


@pytest.mark.parametrize("side", [16, 64, 96, 300])
def test_other_squares_become_crops_as_those_of_folders(tmp_path: Path, side: int) -> None:
    pixels = np.arange(side * side).reshape(side, side) % 251
    text = " ".join(map(str, pixels.ravel()))
    (tmp_path / "a.csv").write_text(f"emotion,pixels,Usage\n0,{text},Training\n")
    (image,) = load(tmp_path / "a.csv").images
    assert image.shape == (96, 96)
    if side == 96:
        np.testing.assert_array_equal(image, pixels)


def test_german_spreadsheets_have_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    values = ";".join(f"{value},5" for value in range(40, 70))
    (tmp_path / "training.csv").write_text(";".join([*COORDINATES, "Image"]) + f"\n{values};{FACE_96}\n")
    assert load(tmp_path / "training.csv").targets[0, 1].tolist() == [42.5, 43.5]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (f"emotion,pixels\n0,{PIXELS[: len(PIXELS) // 2]}\n", ("row 2, column pixels: expected 2304 pixels",)),
        (f"emotion,pixels\n0,{PIXELS}\n0,{' '.join(['5'] * 47**2)}\n", ("row 3", "got 2209 (47x47)")),
        (f"emotion,pixels\n0,{' '.join(['5'] * 3 * 48**2)}\n", ("got 6912 (48x48 in colour; gray is needed)",)),
        (f"emotion,pixels\n0,{' '.join(['5'] * 225)}\n", ("expected 2304 pixels (48x48), got 225 (15x15)",)),
        (f"emotion,pixels\n0,{' '.join(['0.25'] * 2304)}\n", ("row 2", "'0.25' is not an integer; multiply pixels")),
        (f"emotion,pixels\n0,{' '.join(['1', '0.0'] * 1152)}\n", ("no pixel is above 1",)),
        (f"emotion,pixels\n0,{' '.join(['nan'] * 2304)}\n", ("'nan' is not an integer",)),
        ('emotion,pixels\n0,"[ 70  71 ... 80]"\n', ("row 2, column pixels: NumPy left out the pixels at '...'",)),
        (f"emotion,pixels\nhappy,{PIXELS}\n3,{PIXELS}\n", ("row 3, column emotion: names and ids are mixed",)),
        (f"emotion,pixels\nbored,{PIXELS}\n", ("row 2, column emotion: 'bored' is not an integer, nor a class",)),
        (f"emotion,pixels\n7,{PIXELS}\n", ("unknown class id 7", "for another order, as in AffectNet or RAF-DB")),
        ("".join(["emotion,pixels\n", *(f"{i},{PIXELS}\n" for i in range(1, 6))]), ("class ids are 1-5", "from 1")),
        ("".join(["emotion,pixels\n", *(f"{i},{PIXELS}\n" for i in range(1, 7))]), ("class ids are 1-6", "from 1")),
        (f"emotion,pixels\n0,{PIXELS.replace(' ', ',')}\n", ("row 2: has 2305 columns, the header 2", "quote cells")),
        (f"pixels\n{PIXELS}\n", ("the columns are pixels; Kaggle's test.csv has no labels; give train.csv",)),
        (f"label,pixels\n0,{PIXELS}\n", ("the classes must be in a column emotion; rename label if it holds them",)),
        (f"emotion,Emotion,pixels\n0,3,{PIXELS}\n", ("row 1: has the column emotion twice; remove or rename one",)),
        ("sep=;\r\n", ("row 1: the columns are nothing",)),
        ("Usage,Image name,neutral,contempt,NF\n", ("FER+'s votes: give data.train=fer2013.csv data.vote_file",)),
        ("RowId,ImageId,FeatureName,Location\n1,1,a,\n", ("emotion-ai predict --kaggle test.csv",)),
        (f'emotion,pixels\n0,"{PIXELS}\n0,{PIXELS}\n', ("row 3, column pixels: expected 2304 pixels",)),
        (f"emotion,pixels\n0,{PIXELS[:90]}\0{PIXELS[91:]}\n", ("row 2: holds NUL characters",)),
        ("PAR1\0\0\0\x15\x04", ("is not a CSV text file (it is binary)",)),
        ("emotion,pixels\n0,na\xefve\n".encode("latin-1"), ("is not a CSV text file",)),
        (b"\xff\xfeodd", ("is not a CSV text file",)),
    ],
)
def test_what_cannot_be_read_is_named_precisely(tmp_path: Path, content: str | bytes, parts: tuple[str, ...]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    one_line(path, *parts)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.zip", zipped("a.csv", b"x", b_csv=b"y"), "must hold one CSV file, got 2 (a.csv, b.csv); unpack it"),
        ("a.zip", zipped("a.txt", b"x"), "must hold one CSV file, got 0 (a.txt)"),
        ("a.tar.gz", tarred(("a.csv", b"x"), ("b.csv", b"y")), "must hold one CSV file, got 2 (a.csv, b.csv)"),
        ("a.tar.gz", tarred(("a.csv", SOUND))[:-300], "truncated or damaged archive"),
        ("a.csv.bz2", bz2.compress(SOUND)[:-30], "truncated or damaged archive"),
        ("a.csv.bz2", b"not an archive at all", "truncated or damaged archive"),
    ],
)
def test_other_archives_are_one_line(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    (tmp_path / name).write_bytes(content)
    one_line(tmp_path / name, part)


def test_an_encrypted_zip_is_one_line(tmp_path: Path) -> None:
    content = bytearray(zipped("a.csv", SOUND))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    one_line(tmp_path / "a.zip", "is encrypted; unpack it")


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "a.zip": lambda content: zipped("a.csv", content),
    "lying.zip": lambda content: zipped("a.csv", content).replace(
        len(content).to_bytes(4, "little"), bytes([9, 0, 0, 0])
    ),
    "a.csv.gz": gzip.compress,
    "a.csv.xz": lzma.compress,
    "a.csv.bz2": bz2.compress,
    "a.tar.gz": lambda content: tarred(("a.csv", content)),
}


@pytest.mark.parametrize("name", PACKERS)
def test_what_unpacks_to_too_much_is_refused_while_it_is_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert text_files.MAX_UNPACKED == 1024**3, "the docs state it"
    monkeypatch.setattr(text_files, "MAX_UNPACKED", 1024**2)
    row = f"3,{PIXELS},Training\n"
    content = ("emotion,pixels,Usage\n" + row * (1024**2 // len(row) + 1)).encode()
    (tmp_path / name).write_bytes(PACKERS[name](content))
    assert (tmp_path / name).stat().st_size < 100_000
    one_line(
        tmp_path / name,
        "damaged archive" if "lying" in name else "unpacks to more than 1 MiB; unpack it and give the CSV",
    )
    (tmp_path / "plain.csv").write_bytes(content)
    assert len(load(tmp_path / "plain.csv")) > 100


@pytest.mark.parametrize("start", ["", f"emotion,pixels{' ' * 64}\n", f'emotion,pixels{" " * 64}\n0,"'])
def test_a_10_gigabyte_line_is_neither_held_nor_waited_for(tmp_path: Path, start: str) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as stream:
        stream.write(start.encode() + b"7" * (csv_files.MAX_CELL + 1))
        stream.truncate(10 * 1024**3)  # a hole: no disk space
    began = time.monotonic()
    one_line(path, f"row {start.count(chr(10)) + 1}: is longer than 8,388,608 characters; is this a CSV file?")
    assert time.monotonic() - began < 5


def test_an_open_quote_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('emotion,pixels\n0,"' + (PIXELS + "\n") * (csv_files.MAX_CELL // len(PIXELS) + 2))
    one_line(path, "a cell is longer than 8,388,608 characters; is a quote left open?")


def test_pipes_devices_and_impossible_names_are_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    one_line(tmp_path / "pipe.csv", "is not a regular file")
    with pytest.raises(DataError, match="is not a regular file"):
        load("/dev/zero")
    with pytest.raises(DataError, match="no such file"):
        load("a" * 5000)
    with pytest.raises(DataError, match="no such file"):
        load("a\0b.csv")


def coordinates(values: np.ndarray, path: Path) -> Path:
    rows = [",".join(f"{value:.4f}" for value in row) + f",{FACE_96}" for row in values]
    path.write_text("\n".join([",".join([*COORDINATES, "Image"]), *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("convert", "part"),
    [
        (lambda points: points / 48 - 1, "so they seem to be normalised; convert them to pixels"),
        (lambda points: points / 96, "so they seem to be normalised"),
        (lambda points: points - 48, "the mean of all points is"),
        (lambda points: points * 250 / 96 + 40, "is far outside the 96x96 image"),
        (lambda points: np.vstack([points[:2], points[2:] / 96]), "row 4: the coordinates lie between"),
    ],
)
def test_coordinates_that_are_no_pixels_are_refused(
    tmp_path: Path, convert: Callable[[np.ndarray], np.ndarray], part: str
) -> None:
    pixels = RNG.uniform(20, 80, (3, 30))
    assert len(load(coordinates(pixels, tmp_path / "sound.csv"))) == 3
    one_line(coordinates(convert(pixels), tmp_path / "training.csv"), part)


@pytest.mark.parametrize("marker", [-1, 0])
def test_points_that_mean_missing_ones_are_refused(tmp_path: Path, marker: int) -> None:
    pixels = RNG.uniform(20, 80, (3, 30))
    pixels[1, 2:4] = marker
    one_line(coordinates(pixels, tmp_path / "a.csv"), f"row 3: the point right_eye_center is ({marker}, {marker})")


def test_pixels_of_a_smaller_image_are_refused(tmp_path: Path) -> None:
    one_line(coordinates(RNG.uniform(10, 40, (3, 30)), tmp_path / "a.csv"), "pixels of a smaller image; convert")


def test_minutes_of_blank_lines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion_ai.data.csv_files.MAX_BLANK_LINES", 1000)
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(SOUND + b"\n" * 2000))
    one_line(path, "more than 1,000 lines are blank")


def test_a_test_file_with_all_training_faces_is_named(tmp_path: Path) -> None:
    train = emotions(tmp_path / "a.csv", [*range(7)] * 4)
    (tmp_path / "b.csv").write_text(train.read_text().replace(",", ";"))
    with pytest.raises(ConfigError, match="all 20 training faces are in the test split, too; give other test data"):
        build_splits("emotion", DataConfig(str(train), test=str(tmp_path / "b.csv")), seed=0)


def emotions(path: Path, ids: list[int | str], usage: str = "", seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    faces = (" ".join(map(str, rng.integers(2, 256, 48 * 48))) for _ in ids)
    rows = [f"{label},{face}{usage and ','}{usage}" for label, face in zip(ids, faces, strict=True)]
    path.write_text("\n".join([f"emotion,pixels{usage and ',Usage'}", *rows]) + "\n")
    return path


def test_a_small_holdout_is_read_with_the_classes_of_the_training_file(tmp_path: Path) -> None:
    """Ids 0-4 without Usage alone look like the five-class scheme, where 4 is surprise."""
    holdout = str(emotions(tmp_path / "holdout.csv", [4, 3, 0, 4], seed=9))
    for name, ids, expected in (("seven", [*range(7)] * 8, [2, 3, 0, 2]), ("five", [*range(5)] * 8, [4, 3, 0, 4])):
        train = str(emotions(tmp_path / f"{name}.csv", list(ids)))
        splits = build_splits("emotion", DataConfig(train, test=holdout), seed=0)
        assert splits.test.targets.tolist() == expected, name
        both = build_splits("emotion", DataConfig(train, test=holdout, val=holdout), seed=0)
        assert both.test.targets.tolist() == expected, name


def test_a_holdout_of_unclear_classes_is_asked_about(tmp_path: Path) -> None:
    holdout = emotions(tmp_path / "holdout.csv", [4, 3, 0, 4], seed=9)
    named = emotions(tmp_path / "named.csv", ["happy", "sad", "angry", "surprise", "disgust"] * 8)
    with pytest.raises(ConfigError, match=r"holdout\.csv: has no class id above 4 .*; give data.labels=five"):
        build_splits("emotion", DataConfig(str(named), test=str(holdout)), seed=0)
    splits = build_splits("emotion", DataConfig(str(named), test=str(holdout), labels="fer7"), seed=0)
    assert splits.test.targets.tolist() == [2, 3, 0, 2]
    seven = emotions(tmp_path / "seven.csv", [*range(7)] * 8)
    five = emotions(tmp_path / "five.csv", [*range(5)] * 50, seed=5)
    with pytest.raises(ConfigError, match=r"five\.csv: .* seems to have five classes, but the training file has seven"):
        build_splits("emotion", DataConfig(str(seven), test=str(five)), seed=0)


def folder_of(root: Path, *splits: str) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in splits:
        for emotion in ("happy", "sad"):
            (root / split / emotion).mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(0, 256, (48, 48), np.uint8)
                Image.fromarray(pixels).save(root / split / emotion / f"{number}.png")
    return root


def test_train_and_test_folders_together_give_the_command_that_works(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "fer", "Train", "test")
    with pytest.raises(ConfigError) as caught:
        build_splits("emotion", DataConfig(str(root)), seed=0)
    command = f"give data.train={root}/Train data.test={root}/test"
    assert command in str(caught.value)
    splits = build_splits("emotion", DataConfig(f"{root}/Train", test=f"{root}/test"), seed=0)
    assert len(splits.test) == 24
    with pytest.raises(ConfigError, match=rf"has training faces, too; give one split: data.test={root}/test"):
        build_splits("emotion", DataConfig(f"{root}/Train", test=str(root)), seed=0)
    with pytest.raises(ConfigError, match="is the training data itself"):
        build_splits("emotion", DataConfig(f"{root}/Train", test=f"{root}/Train"), seed=0)


def test_a_folder_with_three_splits_is_used_as_it_is(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "fer", "train", "val", "test")
    splits = build_splits("emotion", DataConfig(str(root)), seed=0)
    faces = load(root)
    for name, part in (("train", "Training"), ("val", "PublicTest"), ("test", "PrivateTest")):
        np.testing.assert_array_equal(getattr(splits, name).images, faces.images[faces.part == part])
    with pytest.raises(ConfigError, match="has a val folder"):
        build_splits("emotion", DataConfig(str(root), val=0.3), seed=0)


@pytest.mark.parametrize("place", ["train", "test", "val"])
def test_kaggles_test_csv_in_the_wrong_place_says_the_right_command(tmp_path: Path, place: str) -> None:
    path = tmp_path / "test.csv"
    path.write_text(f"ImageId,Image\n1,{FACE_96}\n")
    settings = {"train": "synthetic", "test": "synthetic", "val": "synthetic"} | {place: str(path)}
    with pytest.raises(EmotionAIError, match=rf"data.{place}=.*has no keypoints.*emotion-ai predict --kaggle test.csv"):
        build_splits("keypoints", DataConfig(**settings, count=40), seed=0)  # type: ignore[arg-type]
