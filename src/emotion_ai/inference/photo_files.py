"""Which photos a command reads: the named files, and those in the named folders."""

import functools
import hashlib
import os
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from natsort import natsorted, ns

from emotion_ai.vision.decoding import PICTURE_SUFFIXES

ANNOTATED = ".annotated.png"
"""End of the name of an annotated photo."""

VIDEO_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"))
"""Of files that `emotion-ai video` reads, not `predict`."""

_MAX_NAME = 255 - len(ANNOTATED)


@dataclass(frozen=True)
class PhotoFile:
    """A photo to read.

    Attributes:
        path: as it was named, or the named folder and the path below it.
        picture: file for its annotated copy, below `--out`; no two photos have the same.
    """

    path: Path
    picture: Path


@dataclass(frozen=True)
class FoundPhotos:
    """The photos that the arguments of a command name.

    Attributes:
        photos: in the order of the arguments; those of a folder in natural order of their paths.
        problems: folders that cannot be listed or hold no photo, in words.
        passed_over: suffixes of files in the folders that are not photos, and how many have them.
    """

    photos: list[PhotoFile]
    problems: list[str]
    passed_over: dict[str, int]


def find_photos(arguments: Sequence[Path], out: Path | None = None, repeats: bool = False) -> FoundPhotos:
    """The photos that arguments name; folders are searched at any depth.

    In folders, files with the suffix of a picture count as photos. Hidden ones, `__MACOSX` and annotated photos in
    `out` or below it are passed over. A folder that links reach twice is searched once, and a photo that is named in
    two ways, such as by a relative and an absolute path, is listed once.

    Args:
        arguments: files and folders.
        out: folder of annotated photos.
        repeats: whether a photo that is named twice is listed twice.
    """
    found = FoundPhotos([], [], {})
    taken: set[Path] = set()
    seen: set[tuple[str, str]] = set()
    real = functools.cache(os.path.realpath)
    for argument in arguments:
        named = [(argument, Path(argument.name))]
        if argument.suffix.lower() in VIDEO_SUFFIXES and not _is_folder(argument):
            found.problems.append(
                f"{argument}: is a video; read it with: emotion-ai video {shlex.quote(str(argument))}"
            )
            continue
        if _is_folder(argument):
            known = len(found.problems)
            paths = _search(argument, out, found)
            if not paths and len(found.problems) == known:
                found.problems.append(f"{argument}: no photos in this folder; give another one")
            top = argument.resolve().name
            named = [(path, top / path.relative_to(argument)) for path in paths]
        for path, relative in named:
            photo = real(path.parent), path.name
            if photo in seen and not repeats:
                continue
            seen.add(photo)
            found.photos.append(PhotoFile(path, _free(relative, taken)))
    return found


def is_photo_name(name: str) -> bool:
    """Whether a file in a folder counts as a photo by its name."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def picture_name(name: str) -> str:
    """The name of a photo's annotated copy; unlike a stem's, that of `a.jpg` differs from that of `a.png`."""
    content = os.fsencode(name)
    if len(content) > _MAX_NAME:
        digest = hashlib.sha256(content).hexdigest()[:16]
        name = f"{content[: _MAX_NAME - 20].decode(errors='ignore')}-{digest}"
    return name + ANNOTATED


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, for one
        return False


def _search(folder: Path, out: Path | None, found: FoundPhotos) -> list[Path]:
    def report(error: OSError) -> None:
        found.problems.append(f"{error.filename}: cannot be listed ({error.strerror}); check the permissions")

    photos, own = [], os.path.realpath(out) if out else None
    for parent, names in walk_folder(folder, report):
        is_out = own is not None and Path(os.path.realpath(parent)).is_relative_to(own)
        for name in names:
            if name.startswith(".") or (is_out and name.endswith(ANNOTATED)) or not _is_regular(parent / name):
                continue
            if is_photo_name(name):
                photos.append(parent / name)
            else:
                suffix = os.path.splitext(name)[1].lower()
                found.passed_over[suffix] = found.passed_over.get(suffix, 0) + 1
    return natsorted(sorted(photos), key=str, alg=ns.PATH)


def walk_folder(folder: Path, report: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder once, with the names of its files; links to folders are followed."""
    seen = set()
    for parent, folders, names in os.walk(folder, onerror=report, followlinks=True):
        try:
            status = os.stat(parent)
        except OSError as error:
            report(error)
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield Path(parent), names


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # a broken link; reading it says what is wrong


def _free(relative: Path, taken: set[Path]) -> Path:
    name, number = relative.with_name(picture_name(relative.name)) if relative.name else Path(ANNOTATED), 1
    while name in taken:
        number += 1
        name = relative.with_name(picture_name(f"{relative.name}-{number}"))
    taken.add(name)
    return name
