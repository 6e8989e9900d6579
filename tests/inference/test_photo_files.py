"""Which photos of folders are read, in which order, and what their annotated copies are called."""

import os
from pathlib import Path

import pytest

from emotion_ai.inference.photo_files import ANNOTATED, find_photos, picture_name


def names(folder: Path, out: Path | None = None) -> list[str]:
    return [str(photo.path.relative_to(folder)) for photo in find_photos([folder], out).photos]


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def test_folders_are_searched_in_natural_order(tmp_path: Path) -> None:
    write(tmp_path, "a10.jpg", "a9.PNG", "a1.heic", "b/2.tif", "b/10.webp", "b/c/1.gif", "notes.txt", "clip.mp4", "no")
    write(tmp_path, ".hidden.jpg", "._a9.png", "__MACOSX/a.jpg", "__MACOSX/b/a.jpg", ".git/a.jpg", "Thumbs.db")
    found = find_photos([tmp_path])
    assert names(tmp_path) == ["a1.heic", "a9.PNG", "a10.jpg", "b/2.tif", "b/10.webp", "b/c/1.gif"]
    assert found.passed_over == {".txt": 1, ".mp4": 1, "": 1, ".db": 1}
    assert found.problems == []


def test_what_is_no_file_is_passed_over_and_links_do_not_go_in_circles(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "folder.jpg/b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "folder.jpg" / "up").symlink_to(tmp_path)
    (tmp_path / "twice").symlink_to(tmp_path / "folder.jpg")
    assert names(tmp_path) == ["a.jpg", "folder.jpg/b.jpg", "loop.jpg"], "reading the loop says what is wrong"


def test_annotated_photos_in_the_folder_are_not_read_again(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "out/a.jpg.annotated.png", "out/mine.png", "in/a.jpg.annotated.png")
    assert names(tmp_path, tmp_path / "out") == ["a.jpg", "in/a.jpg.annotated.png", "out/mine.png"]


@pytest.mark.parametrize("out", ["in/out", "in", "."])
def test_annotated_photos_below_the_output_folder_are_not_read_again(out: str, tmp_path: Path) -> None:
    write(tmp_path, "in/a.jpg", "in/deep/b.jpg")
    before = names(tmp_path / "in", tmp_path / out)
    for photo in find_photos([tmp_path / "in"], tmp_path / out).photos:
        write(tmp_path / out, str(photo.picture))
    assert names(tmp_path / "in", tmp_path / out) == before == ["a.jpg", "deep/b.jpg"]


def test_a_photo_that_is_named_in_two_ways_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "in/a.jpg", "in/b/c.jpg")
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    arguments = ["in", str(tmp_path / "in"), "link", "in/b", "in/b/../a.jpg", "link/b/c.jpg"]
    found = find_photos([Path(name) for name in arguments])
    assert [str(photo.path) for photo in found.photos] == ["in/a.jpg", "in/b/c.jpg"]
    assert found.problems == []


def test_links_that_lead_in_a_circle_are_one_photo_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (circle := tmp_path / "circle").symlink_to("circle")
    found = find_photos([circle / "b.jpg", tmp_path], out=circle)
    assert [photo.path.name for photo in found.photos] == ["b.jpg", "a.jpg"]


def test_no_two_photos_have_one_picture(tmp_path: Path) -> None:
    write(tmp_path, "x/a.jpg", "x/a.png", "x/sub/a.jpg", "y/a.jpg", "z/x/a.jpg", "a.jpg")
    arguments = [tmp_path / name for name in ("x", "y", "z/x", "a.jpg", "y/a.jpg", "x")]
    photos = find_photos(arguments).photos
    assert [str(photo.picture) for photo in photos] == [
        *("x/a.jpg.annotated.png", "x/a.png.annotated.png", "x/sub/a.jpg.annotated.png"),
        *("y/a.jpg.annotated.png", "x/a.jpg-2.annotated.png", "a.jpg.annotated.png"),
    ]
    assert len({photo.path for photo in photos}) == 6, "a photo that is named twice is read once"
    assert len(find_photos([tmp_path / "a.jpg"] * 3, repeats=True).photos) == 3


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "😀" * 63, os.fsdecode(b"\xff" * 255)])
def test_names_as_long_as_a_file_system_allows_have_pictures(name: str, tmp_path: Path) -> None:
    picture = picture_name(name)
    assert picture.endswith(ANNOTATED)
    (tmp_path / picture).touch()
    assert picture != picture_name(name[:-1] + "z")


def test_empty_and_unreadable_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path, "locked/a.jpg", "b/a.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(find_photos([tmp_path / "locked"]).problems) == 1, "nobody knows whether it has photos"
    found = find_photos([tmp_path / "empty", tmp_path, tmp_path / ("long" * 100)])
    assert found.problems == [
        f"{tmp_path}/empty: no photos in this folder; give another one",
        f"{tmp_path}/locked: cannot be listed (Permission denied); check the permissions",
    ]
    assert len(found.photos) == 2, "the name that is too long is read, which says what is wrong"
