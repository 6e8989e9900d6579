"""Small JPEG files of faces in any number: crops of the two portraits, each another one.

`python -m emotion_ai.benchmarks.small_pictures FOLDER --count 100000` writes 100,000 of them, some 400 MB, in a minute
or two, into folders of 1,000.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from rich.progress import track

from emotion_ai.terminal import Console
from emotion_ai.vision.photo import PORTRAITS

WITHOUT_FACE = 50
"""Every so many pictures, one shows noise."""

DAMAGED = 250
"""Every so many pictures, one is cut off."""

_FACES = ((150, 30, 410, 290), (65, 65, 450, 450))  # in the portraits, with some room
_SIDES = (96, 128)
_IN_FOLDER = 1000


def write_small_pictures(folder: Path, count: int, seed: int) -> None:
    """Writes pictures `000/000000.jpg`, `000/000001.jpg`, ...; the same for the same seed."""
    rng = np.random.default_rng(seed)
    faces = []
    for path, box in zip(PORTRAITS, _FACES, strict=True):
        with Image.open(path) as portrait:
            faces.append(portrait.convert("RGB").crop(box).resize((160, 160)))
    console = Console(stderr=True)
    for number in track(range(count), "writing", console=console, transient=True, disable=not console.is_terminal):
        path = folder / f"{number // _IN_FOLDER:03}" / f"{number:06}.jpg"
        if number % _IN_FOLDER == 0:
            path.parent.mkdir(parents=True)
        side = int(rng.integers(_SIDES[0], _SIDES[1] + 1))
        if number % WITHOUT_FACE == WITHOUT_FACE - 1:
            picture = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        else:
            picture = faces[number % 2].rotate(rng.uniform(-5, 5), Image.Resampling.BILINEAR).resize((side, side))
            picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.7, 1.2))
        picture.save(path, quality=85)
        if number % DAMAGED == DAMAGED - 2:
            path.write_bytes(path.read_bytes()[:1000])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m emotion_ai.benchmarks.small_pictures", description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder")
    parser.add_argument("--count", type=int, default=100_000, help="pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures (%(default)s)")
    options = parser.parse_args()
    if options.count < 1 or options.folder.exists():
        parser.error("FOLDER must be new, and --count at least 1")
    write_small_pictures(options.folder, options.count, options.seed)


if __name__ == "__main__":
    main()
