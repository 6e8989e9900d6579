"""Folders of face images: `class/**/picture`, or `split/class/**/picture`."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from natsort import natsorted, ns
from numpy.typing import NDArray
from rich.progress import track

from emotion_ai.class_set import FIVE, ClassSet, known_expression, known_spellings, number_meanings
from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.cache import Arrays, spill_folder
from emotion_ai.data.image_arrays import ImageRows, blocks
from emotion_ai.errors import ConfigError, DataError, ImageError
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
_SHRINK_TO = 4 * CROP_SIZE  # the crop then differs by at most 3 levels from that of the whole picture


@dataclass(frozen=True)
class FolderImage:
    """A picture with its class folder's name, and its part: "Training", "PublicTest", "PrivateTest" or ""."""

    path: Path
    folder: str
    part: str


@dataclass
class FolderListing:
    """The pictures of a folder, sorted by path, and what is not read; `classes` None takes the folders' own names."""

    root: Path
    classes: ClassSet | None
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
            known = "the five emotions" if self.classes == FIVE else "the classes"
            found.append(f"left out, being none of {known}: {classes}")
        if self.other_files:
            kinds = ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in self.other_files.items())
            found.append(f"skipped, being no picture files: {kinds}")
        if self.loose:
            found.append(f"skipped, being outside the class folders: {len(self.loose):,}, such as {self.loose[0]}")
        if self.loops:
            found.append(f"skipped, being a link to a folder above it: {self.loops[0]}")
        names = self.classes.names if self.classes and self.images else ()
        present = {self.class_set.index(image.folder) for image in self.images}
        if missing := [name for index, name in enumerate(names) if index not in present]:
            found.append(f"without any picture: {', '.join(missing)}")
        return found

    @property
    def class_set(self) -> ClassSet:
        """The classes: the wanted ones, or the folders' names in natural order.

        Raises:
            DataError: these are not at least two different ones.
        """
        if self.classes is not None:
            return self.classes
        names = natsorted({image.folder for image in self.images}, alg=ns.IGNORECASE)
        try:
            return ClassSet.of(names)
        except ConfigError as error:
            raise DataError(f"{self.root}: {error}") from error


def list_folder(root: Path, classes: ClassSet | None = FIVE) -> FolderListing:
    """The pictures that `parse_folder` reads. Links are followed; nothing is opened.

    Args:
        root: the folder.
        classes: which to read, each folder named by any spelling of one of them; None reads folders of any name.

    Raises:
        DataError: an unknown class or split folder, one inside a class folder, classes beside splits, a folder that
            cannot be listed, or no pictures at all.
    """
    listing = FolderListing(root, classes)
    top = _unwrapped(root, classes)
    splits = {folder: _SPLITS[folder.name.lower()] for folder in _folders(top) if folder.name.lower() in _SPLITS}
    _check_links(top, classes)
    listing.loose += _loose_pictures(top)
    beside = [folder for folder in _folders(top) if folder not in splits]
    for folder in beside:
        _list_class(folder, "", listing)
    if splits and beside:
        raise DataError(f"{beside[0]}: is a class folder beside the split folder {next(iter(splits)).name}; move it")
    for split, part in splits.items():
        inner = _unwrapped(split, classes)
        _check_links(inner, classes)
        listing.loose += _loose_pictures(inner)
        for folder in _folders(inner):
            _list_class(folder, part, listing)
    if not listing.images:
        notes = "; ".join(("", *listing.notes()))
        raise DataError(f"{root}: has no pictures in class folders such as {root.name or root}/train/happy{notes}")
    listing.images.sort(key=lambda image: image.path)
    return listing


def parse_folder(listing: FolderListing) -> Arrays:
    """The pictures, uint8 (N, 48, 48) if all have that size, otherwise resized to (N, 96, 96).

    Returns:
        `images`; `targets`, the names of the class folders, str (N,); `part`; and `frames`, bool (N,): pictures with
        further frames or pages.

    Raises:
        DataError: a picture that cannot be read.
    """
    images, fer_size = ImageRows(spill_folder()), True
    frames: list[bool] = []
    console = Console(stderr=True)
    for image in track(listing.images, "reading", console=console, transient=True, disable=not console.is_terminal):
        try:
            decoded = decode(read_picture(image.path), str(image.path), shrink_to=_SHRINK_TO)
        except ImageError as error:
            reason = str(error).removeprefix(f"{image.path}: ")
            raise DataError(f"{image.path}: not a readable image: {reason}; replace or remove it") from error
        gray = decoded.gray()
        if fer_size and gray.shape != _FER_SIZE:
            fer_size, small = False, images
            images = ImageRows(spill_folder())
            if small.count:
                for _, block in blocks(small.array()):
                    images.append(np.stack([_resized(other) for other in block]))
        images.append(gray if fer_size else _resized(gray))
        frames.append(any("frames" in note for note in decoded.notes))
    return {
        "images": images.array(),
        "targets": np.array([image.folder for image in listing.images], np.str_),
        "part": np.array([image.part for image in listing.images], "U11"),
        "frames": np.array(frames),
    }


def split_folder(root: str | Path, split: str) -> Path:
    """The folder of a split, "train" or "test", inside a dataset folder that has it, under whichever name."""
    part = _SPLITS[split]
    return next(folder for folder in _folders(_unwrapped(Path(root), None)) if _SPLITS.get(folder.name.lower()) == part)


def _resized(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.rint(resize_to_crop(gray)).astype(np.uint8)


def _list_class(folder: Path, part: str, listing: FolderListing) -> None:
    wanted = _is_wanted(folder, listing.classes)
    for path in _files(folder, listing, (folder.resolve(),)):
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            listing.other_files[path.suffix.lower()] += 1
        elif wanted:
            listing.images.append(FolderImage(path, folder.name, part))
        else:
            listing.left_out[(known_expression(folder.name) or folder.name).lower()] += 1


def _files(folder: Path, listing: FolderListing, above: tuple[Path, ...]) -> Iterator[Path]:
    """All files below a class folder; `above` are the real paths of the folders that were entered."""
    for path in _entries(folder):
        if not os.path.isdir(path):
            yield path
        elif (real := path.resolve()) in above:
            listing.loops.append(path)
        elif path.name.lower() in _SPLITS or _is_class(path, listing.classes):
            raise DataError(f"{path}: is a class or split folder inside the class folder {folder}; move or rename it")
        else:
            yield from _files(path, listing, (*above, real))


def _unwrapped(root: Path, classes: ClassSet | None) -> Path:
    """The folder with the class or split folders: `root`, or the only folder in it, as archives have it."""
    folders = _folders(root)
    if len(folders) != 1 or _is_named(folders[0], classes):
        return root
    inner = _folders(folders[0])
    several = classes is None and len(inner) > 1 and not _loose_pictures(folders[0])
    return folders[0] if several or any(_is_named(folder, classes) for folder in inner) else root


def _is_class(folder: Path, classes: ClassSet | None) -> bool:
    """Whether a folder's name is that of a wanted class or of a known expression; of none, if any name is one."""
    if classes is None:
        return False
    return classes.index(folder.name) is not None or known_expression(folder.name) is not None


def _is_named(folder: Path, classes: ClassSet | None) -> bool:
    known = _is_class(folder, classes) or (classes is not None and folder.name.isdecimal())
    return folder.name.lower() in _SPLITS or known


def _is_wanted(folder: Path, classes: ClassSet | None) -> bool:
    """Whether a class folder is read.

    Raises:
        DataError: its name is neither that of a wanted class nor of a known expression.
    """
    if classes is None:
        return True
    if _is_class(folder, classes):
        return classes.index(folder.name) is not None
    own = "or give classes=folders if these folders are your own classes"
    if meanings := number_meanings(folder.name):
        raise DataError(f"{folder}: a numbered class, {meanings}; rename it to the emotion, {own}")
    spellings = sorted({*known_spellings(), *(name.casefold() for name in classes.names)})
    raise DataError(
        f"{folder}: unknown class or split folder; classes are {', '.join(spellings)}; rename or remove it, {own}"
    )


def _folders(root: Path) -> list[Path]:
    return [path for path in _entries(root) if os.path.isdir(path)]


def _loose_pictures(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in PICTURE_SUFFIXES and not os.path.isdir(path)]


def _check_links(folder: Path, classes: ClassSet | None) -> None:
    for path in _entries(folder):
        if (_is_named(path, classes) or classes is None) and not os.path.exists(path):
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
