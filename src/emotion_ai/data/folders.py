"""Folders of face images: `class/**/picture`, or `split/class/**/picture`."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from emotion_ai.contract import CROP_SIZE, EMOTIONS
from emotion_ai.data.cache import Arrays
from emotion_ai.data.class_names import CLASS_IDS, FER7, FIVE_OF_FER7, class_id, number_meanings
from emotion_ai.errors import DataError, ImageError
from emotion_ai.terminal import Console
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai.vision.decoding import PICTURE_SUFFIXES, decode
from emotion_ai.vision.photo import read_picture

_SPLITS = {
    "train": "Training",
    "training": "Training",
    "val": "PublicTest",
    "valid": "PublicTest",
    "validation": "PublicTest",
    "publictest": "PublicTest",
    "test": "PrivateTest",
    "testing": "PrivateTest",
    "privatetest": "PrivateTest",
}
_FER_SIZE = (48, 48)
_LITTER = ("__macosx", "thumbs.db", "desktop.ini")  # of file managers, like names that begin with a dot
_SHRINK_TO = 4 * CROP_SIZE  # shrinking a JPEG further while it is decoded would change the crop by more than a level


@dataclass(frozen=True)
class FolderImage:
    """A picture with the index of its emotion, and its part: "Training", "PublicTest", "PrivateTest" or ""."""

    path: Path
    label: int
    part: str


@dataclass
class FolderListing:
    """The pictures of a folder, sorted by path, and what is not read."""

    images: list[FolderImage] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    other_files: Counter[str] = field(default_factory=Counter)
    loose: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What is not read, in words."""
        found = []
        if self.left_out:
            classes = ", ".join(f"{count:,} of {name}" for name, count in sorted(self.left_out.items()))
            found.append(f"left out, being none of the five emotions: {classes}")
        if self.other_files:
            kinds = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in self.other_files.items())
            found.append(f"skipped, being no picture files: {kinds}")
        if self.loose:
            found.append(f"skipped, being outside the class folders: {len(self.loose):,}, such as {self.loose[0]}")
        if self.loops:
            found.append(f"skipped, being a link to a folder above it: {self.loops[0]}")
        labels = {image.label for image in self.images}
        if missing := [name for index, name in enumerate(EMOTIONS) if index not in labels]:
            found.append(f"without any picture: {', '.join(missing)}")
        return found


def list_folder(root: Path) -> FolderListing:
    """The pictures that `parse_folder` reads. Links are followed; nothing is opened.

    Raises:
        DataError: an unknown class or split folder, one inside a class folder, classes beside splits, a folder that
            cannot be listed, or no pictures at all.
    """
    listing = FolderListing()
    top = _unwrapped(root)
    splits = {folder: _SPLITS[folder.name.lower()] for folder in _folders(top) if folder.name.lower() in _SPLITS}
    _check_links(top)
    listing.loose += _loose_pictures(top)
    classes = [folder for folder in _folders(top) if folder not in splits]
    for folder in classes:
        _list_class(folder, "", listing)
    if splits and classes:
        raise DataError(f"{classes[0]}: is a class folder beside the split folder {next(iter(splits)).name}; move it")
    for split, part in splits.items():
        inner = _unwrapped(split)
        _check_links(inner)
        listing.loose += _loose_pictures(inner)
        for folder in _folders(inner):
            _list_class(folder, part, listing)
    if not listing.images:
        notes = "; ".join(("", *listing.notes()[:-1]))
        raise DataError(f"{root}: has no pictures in class folders such as {root.name or root}/train/happy{notes}")
    listing.images.sort(key=lambda image: image.path)
    return listing


def parse_folder(listing: FolderListing) -> Arrays:
    """The pictures, uint8 (N, 48, 48) if all have that size, otherwise resized to (N, 96, 96).

    Returns:
        `images`; `targets`, int64 (N,); `part`; and `frames`, bool (N,): pictures with further frames or pages.

    Raises:
        DataError: a picture that cannot be read.
    """
    images: list[NDArray[np.uint8]] = []
    frames: list[bool] = []
    console = Console(stderr=True)
    for image in track(listing.images, "reading", console=console, transient=True, disable=not console.is_terminal):
        try:
            decoded = decode(read_picture(image.path), str(image.path), shrink_to=_SHRINK_TO)
        except ImageError as error:
            reason = str(error).removeprefix(f"{image.path}: ")
            raise DataError(f"{image.path}: not a readable image: {reason}; replace or remove it") from error
        gray = decoded.gray()
        all_small = gray.shape == _FER_SIZE and (not images or images[0].shape == _FER_SIZE)
        if not all_small and images and images[0].shape == _FER_SIZE:
            images = [_resized(other) for other in images]
        images.append(gray if all_small else _resized(gray))
        frames.append(any("frames" in note for note in decoded.notes))
    return {
        "images": np.stack(images),
        "targets": np.array([image.label for image in listing.images], np.int64),
        "part": np.array([image.part for image in listing.images], "U11"),
        "frames": np.array(frames),
    }


def split_folder(root: str | Path, split: str) -> Path:
    """The folder of a split, "train" or "test", inside a dataset folder that has it, under whichever name."""
    part = _SPLITS[split]
    return next(folder for folder in _folders(_unwrapped(Path(root))) if _SPLITS.get(folder.name.lower()) == part)


def _resized(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(resize_to_crop(gray)).astype(np.uint8)


def _list_class(folder: Path, part: str, listing: FolderListing) -> None:
    index = _known_class(folder)
    for path in _files(folder, listing, (folder.resolve(),)):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            listing.other_files[path.suffix.lower()] += 1
        elif FIVE_OF_FER7[index] < 0:
            listing.left_out[(*FER7, "contempt")[index]] += 1
        else:
            listing.images.append(FolderImage(path, FIVE_OF_FER7[index], part))


def _files(folder: Path, listing: FolderListing, above: tuple[Path, ...]) -> Iterator[Path]:
    """All files below a class folder; `above` are the real paths of the folders that were entered."""
    for path in _entries(folder):
        if not os.path.isdir(path):
            yield path
        elif (real := path.resolve()) in above:
            listing.loops.append(path)
        elif path.name.lower() in _SPLITS or class_id(path.name) is not None:
            raise DataError(f"{path}: is a class or split folder inside the class folder {folder}; move or rename it")
        else:
            yield from _files(path, listing, (*above, real))


def _unwrapped(root: Path) -> Path:
    """The folder with the class or split folders: `root`, or the only folder in it, as archives have it."""
    folders = _folders(root)
    if len(folders) == 1 and not _named(folders[0]) and any(_named(inner) for inner in _folders(folders[0])):
        return folders[0]
    return root


def _named(folder: Path) -> bool:
    return folder.name.lower() in _SPLITS or class_id(folder.name) is not None or folder.name.isdecimal()


def _known_class(folder: Path) -> int:
    index = class_id(folder.name)
    if index is not None:
        return index
    if meanings := number_meanings(folder.name):
        raise DataError(f"{folder}: a numbered class, {meanings}; rename it to the emotion")
    raise DataError(
        f"{folder}: unknown class or split folder; classes are {', '.join(sorted(CLASS_IDS))}; rename or remove it"
    )


def _folders(root: Path) -> list[Path]:
    return [path for path in _entries(root) if os.path.isdir(path)]


def _loose_pictures(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in PICTURE_SUFFIXES and not os.path.isdir(path)]


def _check_links(folder: Path) -> None:
    for path in _entries(folder):
        if _named(path) and not os.path.exists(path):
            raise DataError(
                f"{path}: is a link to nowhere in the place of a class or split folder; replace or remove it"
            )


def _entries(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror or error}); check the path and permissions"
        ) from error
    return [folder / name for name in names if not name.startswith(".") and name.lower() not in _LITTER]
