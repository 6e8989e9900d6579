"""Class folders: what is read, what is skipped and said, and what the cache's key covers."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from emotion_ai.class_set import SEVEN, ClassSet
from emotion_ai.data import folders
from emotion_ai.data.loaders import load
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai.vision.decoding import decode
from emotion_ai.vision.photo import load_photo
from tests.vision.encodings import ENCODINGS
from tests.vision.test_decoding import portrait


def picture(path: Path, level: int = 50, size: tuple[int, int] = (48, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).save(path)
    return path


def files(root: Path) -> list[str]:
    return [image.path.relative_to(root).as_posix() for image in folders.list_folder(root).images]


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("size", [(48, 48), (96, 96), (90, 130)])
def test_a_picture_of_a_class_folder_is_the_photograph(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    face = portrait(*size)
    path = tmp_path / "happy" / name
    path.parent.mkdir()
    path.write_bytes(ENCODINGS[name](face))
    expected = face if size == (48, 48) else resize_to_crop(face)
    (image,) = load(tmp_path).images
    assert np.abs(image - expected.astype(float)).max() <= 2
    if size != (90, 130):
        np.testing.assert_array_equal(image, load_photo(path).gray)


@pytest.mark.parametrize(
    ("size", "suffix", "turned", "shrunk"),
    [
        ((3000, 4000), "jpg", False, (750, 1000)),
        ((2999, 3997), "jpg", False, (750, 1000)),
        ((2999, 3997), "jpg", True, (1000, 750)),
        ((1001, 1203), "png", False, (501, 602)),
        ((1001, 1203), "png", True, (602, 501)),
    ],
)
def test_large_pictures_are_shrunk_as_they_are_read(
    size: tuple[int, int],
    suffix: str,
    turned: bool,
    shrunk: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    face = portrait(*size)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6 if turned else 1
    (tmp_path / "sad").mkdir()
    for number in range(3):
        Image.fromarray(face).save(tmp_path / "sad" / f"{number}.{suffix}", quality=95, exif=exif.tobytes())
    sizes = []

    def watched(content: bytes, name: str, shrink_to: int) -> object:
        decoded = decode(content, name, shrink_to)
        sizes.append(decoded.image.size)
        return decoded

    monkeypatch.setattr(folders, "decode", watched)
    images = load(tmp_path).images
    assert sizes == [shrunk] * 3
    expected = resize_to_crop(np.rot90(face, -1).copy() if turned else face)
    assert np.abs(images - expected).max() <= 3
    assert np.abs(images - expected).mean() < 0.4  # of which rounding takes 0.25


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_many_large_pictures_take_the_memory_of_one(tmp_path: Path) -> None:
    folder = tmp_path / "sad"
    folder.mkdir()
    stream = io.BytesIO()
    picture = Image.effect_noise((80, 60), 50).resize((4000, 3000)).convert("RGB")
    picture.save(stream, "PNG", compress_level=1)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(stream.getvalue())
    picture.save(folder / "0.jpg")
    for number in range(1, 15):
        (folder / f"{number}.jpg").write_bytes((folder / "0.jpg").read_bytes())
    script = """
import re, sys
from pathlib import Path
from emotion_ai.data.folders import list_folder, parse_folder
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
parse_folder(list_folder(Path(sys.argv[1])))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 110 * 1024  # KiB; decoded, one takes 34 MiB, and all take 618 MiB


def test_deeper_folders_and_the_only_folder_of_an_archive_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "archive" / "train" / "happy" / "person 1" / "monday" / "a.PNG")
    picture(tmp_path / "archive" / "train" / "1_Sad" / "b.bmp")
    picture(tmp_path / "archive" / "test" / "images" / "Happiness" / "c.tiff")
    assert sorted(files(tmp_path)) == [
        "archive/test/images/Happiness/c.tiff",
        "archive/train/1_Sad/b.bmp",
        "archive/train/happy/person 1/monday/a.PNG",
    ]
    faces = load(tmp_path)
    assert sorted(zip(faces.part.tolist(), faces.targets.tolist(), strict=True)) == [
        ("PrivateTest", 3),
        ("Training", 2),
        ("Training", 3),
    ]


def test_what_is_skipped_is_said_and_litter_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "happy" / "a.png")
    picture(tmp_path / "fearful" / "b.png")
    picture(tmp_path / "Contempt" / "deep" / "c.png")
    picture(tmp_path / "loose.jpg")
    for name in ("notes.txt", "more.txt", "README"):
        (tmp_path / "happy" / name).write_text("text")
    for litter in ("happy/._a.png", "happy/.DS_Store", "happy/Thumbs.db", "__MACOSX/happy/._a.png", ".hidden/a.png"):
        (tmp_path / litter).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / litter).write_bytes(b"junk")
    (tmp_path / "happy" / "up").symlink_to(tmp_path / "happy")
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad" / "d.gif").write_bytes(ENCODINGS["two frames.gif"](portrait(48, 48)))
    for _ in range(2):  # parsed, then from the cache
        assert sorted(load(tmp_path).targets.tolist()) == [2, 3]
        said = capsys.readouterr().err
        assert "left out, being none of the five emotions: 1 of contempt, 1 of fear" in said
        assert "skipped, being no picture files: 1 without suffix, 2 .txt" in said
        assert "skipped, being outside the class folders: 1, such as" in said
        assert "skipped, being a link to a folder above it" in said
        assert "several frames or pages, of which the first is read: 1" in said
        assert "without any picture: Angry, Disgust, Surprise" in said
        assert len(said.splitlines()) == 6, said


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("3/a.png", "3: a numbered class, happy in FER2013, disgust in RAF-DB, surprise in AffectNet, disgust in CK+"),
        ("7/a.png", "7: a numbered class, neutral in RAF-DB, contempt in AffectNet, surprise in CK+; rename it"),
        ("sad/x/../happy/a.png", "happy: is a class or split folder inside the class folder"),
        ("sad/train/a.png", "train: is a class or split folder inside the class folder"),
        ("train/happy/a.png", "sad: is a class folder beside the split folder train"),
        ("bored/a.png", "bored: unknown class or split folder; classes are afraid, anger"),
    ],
)
def test_folders_of_another_form_are_one_clear_error(tmp_path: Path, made: str, message: str) -> None:
    picture(tmp_path / "sad" / "s.png")
    (tmp_path / "sad" / "x").mkdir()
    picture(tmp_path / made)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["Happy", "train", "train/happy", "0"])
def test_a_class_or_split_folder_that_is_a_link_to_nowhere_is_refused(tmp_path: Path, name: str) -> None:
    picture(tmp_path / ("train" if "/" in name else ".") / "sad" / "s.png")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=f"{name}: is a link to nowhere in the place of a class or split folder"):
        load(tmp_path)


def test_the_current_folder_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"such as \./train/happy"):
        load(".")
    picture(tmp_path / "sad" / "s.png")
    load(".")
    assert capsys.readouterr().err.startswith(".: without any picture")


def test_an_empty_folder_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"no pictures in class folders such as .*; skipped, being no picture files: 1"):
        load(tmp_path)


def test_linked_folders_are_keyed_by_what_they_hold(tmp_path: Path) -> None:
    """Two datasets of links to other folders once shared one cache entry."""
    for level in (10, 200):
        picture(tmp_path / f"faces {level}" / "deep" / "a.png", level)
        (tmp_path / f"set {level}").mkdir()
        (tmp_path / f"set {level}" / "happy").symlink_to(tmp_path / f"faces {level}")
    first, second = (load(tmp_path / f"set {level}") for level in (10, 200))
    assert first.fingerprint != second.fingerprint
    assert (first.images.max(), second.images.max()) == (10, 200)


def test_every_change_of_what_is_parsed_changes_the_fingerprint_and_nothing_else_does(tmp_path: Path) -> None:
    root = tmp_path / "root"
    picture(root / "happy" / "a.png")
    picture(root / "sad" / "deep" / "b.png", 60)
    same = load(root).fingerprint
    seen = {same}
    elsewhere = tmp_path / "elsewhere"

    def link() -> None:
        shutil.move(root / "happy", elsewhere)
        (root / "happy").symlink_to(elsewhere)

    changes: list[Callable[[], object]] = [
        lambda: picture(root / "happy" / "a.png", 51),
        lambda: (root / "happy" / "a.png").rename(root / "happy" / "c.png"),
        lambda: (root / "sad").rename(root / "surprise"),
        lambda: (root / "surprise" / "deep").rename(root / "surprise" / "other"),
        link,
        lambda: picture(elsewhere / "linked.png", 9),
    ]
    for number, change in enumerate(changes):
        change()
        digest = load(root).fingerprint
        assert (digest in seen) == (number == 4), "a link to the same files holds the same"
        seen.add(digest)
    (root / "happy" / "notes.txt").write_text("not parsed")
    picture(root / "fear" / "left out.png")
    assert load(root).fingerprint == digest


@pytest.mark.parametrize("damage", ["truncated", "bit", "other arrays", "rows", "text", "folder", "huge"])
def test_damaged_cache_entries_are_parsed_again(tmp_path: Path, own_cache: Path, damage: str) -> None:
    picture(tmp_path / "happy" / "a.png", hash(damage) % 200)
    faces = load(tmp_path)
    (entry,) = own_cache.glob(f"{faces.fingerprint[:32]}-*")
    content = entry.read_bytes()
    match damage:
        case "truncated":
            entry.write_bytes(content[: len(content) // 2])
        case "bit":
            entry.write_bytes(content.replace(bytes([faces.images[0, 0, 0]]) * 9, bytes(9), 1))
        case "other arrays":
            np.savez(entry, pixels=faces.images)
        case "rows":
            np.savez(entry, images=faces.images, targets=faces.targets[:0], part=faces.part, frames=faces.part == "")
        case "text":
            entry.write_text("[]")
        case "folder":
            entry.unlink()
            entry.mkdir()
        case "huge":
            entry.write_bytes(content.replace(b"(1, 48, 48)", b"(9**9**9,)", 1))
    np.testing.assert_array_equal(load(tmp_path).images, faces.images)
    if damage != "folder":
        assert entry.read_bytes() == content, "and written anew"


def test_no_home_and_a_read_only_cache_cost_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "data" / "happy" / "a.png", 77)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("EMOTION_AI_CACHE", str(tmp_path / "file" / "cache"))
    assert load(tmp_path / "data").images.max() == 77
    monkeypatch.delenv("EMOTION_AI_CACHE")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert load(tmp_path / "data").images.max() == 77


def test_unreadable_folders_and_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "happy" / "a.png")
    (tmp_path / "happy" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png: is not a regular file, or a link to nowhere"):
        load(tmp_path)
    (tmp_path / "happy" / "gone.png").unlink()
    os.mkfifo(tmp_path / "happy" / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: is not a regular file"):
        load(tmp_path)
    listdir = os.listdir

    def refused(folder: Path) -> list[str]:
        if Path(folder).name == "happy":
            raise PermissionError(13, "Permission denied", str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(DataError, match=r"happy: cannot be listed \(Permission denied\); check"):
        load(tmp_path)


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"na\xefve") / "happy"
    picture(folder / os.fsdecode(b"\xff.png"), 33)
    faces = load(folder.parent)
    assert faces.images.max() == 33
    faces.source.encode()  # for records and reports


def test_folders_of_any_names_are_classes_in_natural_order(tmp_path: Path) -> None:
    for name in ("cat 10", "cat 2", "Über", "3"):
        picture(tmp_path / name / "a.png", 40)
    picture(tmp_path / "cat 2" / "happy" / "b.png", 80)  # no class below a class
    faces = load(tmp_path, classes=None)
    assert faces.classes.names == ("3", "cat 2", "cat 10", "Über")
    assert sorted(faces.targets.tolist()) == [0, 1, 1, 2, 3]
    again = load(tmp_path, classes=None)  # from the cache
    np.testing.assert_array_equal(faces.targets, again.targets)


def test_one_cache_entry_serves_every_class_set(tmp_path: Path) -> None:
    for name in ("anger", "3_happiness"):
        picture(tmp_path / name / "a.png", 40)
    assert load(tmp_path).targets.tolist() == [3, 0]
    assert load(tmp_path, classes=SEVEN).targets.tolist() == [3, 0]
    own = load(tmp_path, classes=None)
    assert (own.classes.names, own.targets.tolist()) == (("3_happiness", "anger"), [0, 1])
    chosen = load(tmp_path, classes=ClassSet.of(("Angry", "Happy")))
    assert chosen.targets.tolist() == [1, 0]


def test_folders_of_any_names_in_splits_and_inside_an_archives_folder(tmp_path: Path) -> None:
    for split, level in (("train", 10), ("test", 20)):
        for name in ("cat", "dog"):
            picture(tmp_path / "outer" / split / name / "a.png", level)
    faces = load(tmp_path, classes=None)
    assert faces.classes.names == ("cat", "dog")
    assert sorted(set(faces.part)) == ["PrivateTest", "Training"]
    picture(tmp_path / "flat" / "archive" / "cat" / "a.png")
    picture(tmp_path / "flat" / "archive" / "dog" / "a.png")
    assert load(tmp_path / "flat", classes=None).classes.names == ("cat", "dog")


def test_other_data_of_own_classes_has_the_same_ones(tmp_path: Path) -> None:
    own = ClassSet.of(("cat", "dog"))
    picture(tmp_path / "a" / "dog" / "a.png")
    assert load(tmp_path / "a", classes=own).targets.tolist() == [1]
    picture(tmp_path / "a" / "cow" / "a.png")
    with pytest.raises(DataError, match=r"cow: unknown class or split folder; classes are .* cat, .* classes=folders"):
        load(tmp_path / "a", classes=own)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["cat"], "at least two classes"), (["cat", "Cat"], "means two classes"), (["cat", "uncertain"], "cannot be")],
)
def test_folder_names_that_cannot_be_classes(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        picture(tmp_path / name / "a.png")
    with pytest.raises(DataError, match=message):
        load(tmp_path, classes=None)


def test_unknown_folder_names_say_how_to_use_them(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    with pytest.raises(DataError, match="or give classes=folders if these folders are your own classes"):
        load(tmp_path)
    file = tmp_path / "a.csv"
    file.write_text(f"emotion,pixels\n3,{' '.join(['7'] * 48 * 48)}\n")
    with pytest.raises(ConfigError, match="classes=folders: .* is a file; give a folder with a folder for each class"):
        load(file, classes=None)
