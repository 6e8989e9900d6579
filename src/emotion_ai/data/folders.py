"""Folders of face images: `class/*.png|jpg`, or `split/class/*.png|jpg`."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from emotion_ai.contract import EMOTIONS
from emotion_ai.data.cache import Arrays
from emotion_ai.errors import DataError
from emotion_ai.vision.crops import resize_to_crop

_CLASSES = {name.lower(): index for index, name in enumerate(EMOTIONS)} | {
    "anger": 0,
    "sadness": 2,
    "happiness": 3,
    "surprised": 4,
}
_LEFT_OUT = {"fear", "neutral"}
_SPLITS = {
    "train": "Training",
    "training": "Training",
    "val": "PublicTest",
    "valid": "PublicTest",
    "validation": "PublicTest",
    "publictest": "PublicTest",
    "test": "PrivateTest",
    "privatetest": "PrivateTest",
}
_SUFFIXES = {".png", ".jpg", ".jpeg"}


def parse_folder(root: Path) -> Arrays:
    """Images uint8 (N, 48, 48) if all have that size, otherwise resized to (N, 96, 96); labels int64 (N,); parts.

    Raises:
        DataError: an unknown class or split folder, an unreadable image, or no images at all.
    """
    images: list[Image.Image] = []
    labels: list[int] = []
    parts: list[str] = []
    for folder, part in class_folders(root):
        for file in sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES):
            try:
                with Image.open(file) as image:
                    images.append(image.convert("L"))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise DataError(f"{file}: not a readable image ({error}); replace or remove it") from error
            labels.append(_CLASSES[folder.name.lower()])
            parts.append(part)
    if not images:
        raise DataError(f"{root}: has no .png or .jpg in class folders such as {root.name}/train/happy; check the path")
    if all(image.size == (48, 48) for image in images):
        pixels = np.stack([np.asarray(image) for image in images])
    else:
        pixels = np.stack([np.rint(resize_to_crop(np.asarray(image))).astype(np.uint8) for image in images])
    return {"images": pixels, "targets": np.array(labels, np.int64), "part": np.array(parts, "U11")}


def class_folders(root: Path) -> list[tuple[Path, str]]:
    """Each folder of the five classes, with its part.

    Raises:
        DataError: an unknown class or split folder.
    """
    found: list[tuple[Path, str]] = []
    for folder in _folders(root):
        name = folder.name.lower()
        if name in _SPLITS:
            found += [(inner, _SPLITS[name]) for inner in _folders(folder) if _known(inner)]
        elif _known(folder):
            found.append((folder, ""))
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _known(folder: Path) -> bool:
    name = folder.name.lower()
    if name not in _CLASSES and name not in _LEFT_OUT:
        known = ", ".join(sorted(set(_CLASSES) | _LEFT_OUT))
        raise DataError(f"{folder}: unknown class or split folder; classes are {known}; rename or remove it")
    return name in _CLASSES
