"""Composed photos with faces at known places, for the detection benchmark."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.loaders import load
from emotion_ai.vision.crops import Box
from emotion_ai.vision.photo import PORTRAITS

PORTRAIT_BOXES = (Box(162, 55, 123), Box(160, 106, 218))
"""The faces in `PORTRAITS`, placed by eye."""

SIZE = (960, 720)
"""Width and height of a scene, in pixels."""

_MARGIN = 0.35  # of the box's side, cut out around it: hair, ears and chin


@dataclass(frozen=True)
class Condition:
    """A kind of scene.

    Attributes:
        name: in the results.
        face: side of the faces' boxes in pixels; 0 for scenes without a face.
        count: faces in a scene, fewer if they do not fit.
        roll: largest angle, in degrees.
        outside: share of the box's width beyond the scene's edge.
        change: applied to the whole scene.
        quality: of its JPEG file.
        orientation: EXIF's; 6 stores the scene on its side.
        pieces: faces that are cut into 16 pieces and shuffled.
    """

    name: str
    face: int
    count: int = 3
    roll: float = 5
    outside: float = 0.0
    change: Callable[[Image.Image], Image.Image] | None = None
    quality: int = 90
    orientation: int = 1
    pieces: int = 0


CONDITIONS = (
    *(Condition(f"{face} pixels", face, 6 if face < 100 else 3) for face in (20, 28, 40, 60, 100, 200, 400)),
    *(Condition(f"100 pixels, rolled up to {roll} degrees", 100, roll=roll) for roll in (15, 30)),
    Condition("100 pixels, a quarter as bright", 100, change=lambda s: ImageEnhance.Brightness(s).enhance(0.25)),
    Condition("100 pixels, twice as bright", 100, change=lambda s: ImageEnhance.Brightness(s).enhance(2)),
    Condition("100 pixels, gray", 100, change=lambda s: s.convert("L").convert("RGB")),
    Condition("100 pixels, blurred by 3", 100, change=lambda s: s.filter(ImageFilter.GaussianBlur(3))),
    Condition("100 pixels, JPEG of quality 10", 100, quality=10),
    Condition("100 pixels, a tenth cut off", 100, 1, outside=0.1),
    Condition("100 pixels, a quarter cut off", 100, 1, outside=0.25),
    Condition("100 pixels, turned by EXIF", 100, orientation=6),
    Condition("12 faces of 60 pixels", 60, 12),
    Condition("no face", 0, 0),
    Condition("no face, four in pieces", 0, 0, pieces=4),
)


@dataclass(frozen=True)
class Scene:
    """A photo as a JPEG file, and the boxes of its faces in pixels of the upright photo."""

    file: bytes
    boxes: list[Box]


def portrait_heads() -> list[Image.Image]:
    """The faces of the two portraits with a margin."""
    heads = []
    for path, box in zip(PORTRAITS, PORTRAIT_BOXES, strict=True):
        left, top = (round(edge - _MARGIN * box.size) for edge in (box.left, box.top))
        side = round((1 + 2 * _MARGIN) * box.size)
        heads.append(Image.open(path).convert("RGB").crop((left, top, left + side, top + side)))
    return heads


def dataset_heads(path: Path) -> list[Image.Image]:
    """The faces of a keypoint dataset; their borders are repeated as the margin."""
    margin = round(_MARGIN * CROP_SIZE)
    return [Image.fromarray(np.pad(image, margin, mode="edge")).convert("RGB") for image in load(path).images]


def compose(heads: Sequence[Image.Image], condition: Condition, rng: np.random.Generator) -> Scene:
    """A scene with random heads at random places, without overlap."""
    scene, boxes = _background(rng), []
    for _ in range(condition.pieces):
        _paste_pieces(scene, heads[int(rng.integers(len(heads)))], rng)
    cell = round(condition.face * (1 + 2 * _MARGIN)) + 2
    cells = [(x, y) for x in range(SIZE[0] // cell) for y in range(SIZE[1] // cell)] if condition.face else []
    for x, y in rng.permutation(cells)[: condition.count]:
        room = [(side - side // cell * cell) // (side // cell) for side in SIZE]
        left, top = (round(i * (cell + r) + rng.uniform(0, r)) for i, r in zip((x, y), room, strict=True))
        if condition.outside:
            margin = _MARGIN * condition.face
            left = -round(margin + condition.outside * condition.face)
            if rng.random() < 0.5:
                left = SIZE[0] - cell - left
        _paste_head(scene, heads[int(rng.integers(len(heads)))], (left, top), cell, condition.roll, rng)
        edge = (cell - condition.face) / 2
        boxes.append(Box(left + edge, top + edge, condition.face))
    scene = condition.change(scene) if condition.change else scene
    return Scene(_as_jpeg(scene, condition), boxes)


def _paste_head(
    scene: Image.Image, head: Image.Image, corner: tuple[int, int], side: int, roll: float, rng: np.random.Generator
) -> None:
    """Pastes a head with a soft elliptical edge, rotated by up to `roll` degrees."""
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((side * 0.04, 0, side * 0.96, side - 1), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(side / 40))
    angle = rng.uniform(-roll, roll)
    head = head.resize((side, side), Image.Resampling.LANCZOS).rotate(angle, Image.Resampling.BICUBIC)
    scene.paste(head, corner, mask.rotate(angle, Image.Resampling.BICUBIC))


def _as_jpeg(scene: Image.Image, condition: Condition) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = condition.orientation
    stream = io.BytesIO()
    stored = scene.transpose(Image.Transpose.ROTATE_90) if condition.orientation == 6 else scene
    stored.save(stream, "JPEG", quality=condition.quality, exif=exif)
    return stream.getvalue()


def _background(rng: np.random.Generator) -> Image.Image:
    """A smooth texture, noise or a plain colour, with shapes."""
    colour = rng.integers(30, 226, 3)
    coarse = rng.normal(0, rng.choice([4, 25, 60]), (rng.choice([6, 60, 720]), rng.choice([8, 80, 960]), 3))
    texture = Image.fromarray((coarse + colour).clip(0, 255).astype(np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(texture)
    for _ in range(rng.integers(0, 30)):
        (x, y), (wide, high) = rng.integers(0, SIZE), rng.integers(5, 200, 2)
        fill = tuple(int(c) for c in rng.integers(0, 256, 3))
        area = (int(x), int(y), int(x + wide), int(y + high))
        shape = rng.integers(3)
        if shape == 2:
            draw.line(area, fill, int(rng.integers(1, 12)))
        else:
            (draw.ellipse if shape else draw.rectangle)(area, fill)
    return texture


def _paste_pieces(scene: Image.Image, head: Image.Image, rng: np.random.Generator) -> None:
    """Pastes a head cut into 16 shuffled pieces: skin, hair and eyes, but no face."""
    piece = int(rng.integers(12, 60))
    pixels = np.asarray(head.resize((4 * piece, 4 * piece), Image.Resampling.LANCZOS))
    pieces = pixels.reshape(4, piece, 4, piece, 3).swapaxes(1, 2).reshape(16, piece, piece, 3)
    mixed = pieces[rng.permutation(16)].reshape(4, 4, piece, piece, 3).swapaxes(1, 2)
    left, top = (int(rng.integers(0, side - 4 * piece)) for side in SIZE)
    scene.paste(Image.fromarray(mixed.reshape(pixels.shape)), (left, top))
