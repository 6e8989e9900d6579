"""Where the captions of a photo go: beside their faces, on no other face and no other caption.

Libraries for placing labels move text around the points of a plot and need matplotlib; here faces are rectangles that
must stay clear, and a caption that finds no room beside its face stands apart, with a thin line to it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageFont

from emotion_ai.inference.canvas import Area, Point

_PADDING, _TALL, _GAP = 0.7, 1.7, 0.6  # of a plate: left and right of its words, its height, its distance to the face
_SHRINK = 0.85
_OWN_SHARE = 0.15  # of a face that its own caption may cover
_DIRECTIONS = 24


@dataclass(frozen=True)
class Caption:
    """A caption and its place.

    Attributes:
        text: its words.
        area: its plate.
        height: of the words, in pixels.
        line: ends of a thin line from the face to the plate; None if the plate lies beside the face.
    """

    text: str
    area: Area
    height: float
    line: tuple[Point, Point] | None = None


@dataclass(frozen=True)
class CaptionSize:
    """Heights of a caption's words, in pixels: as wanted, and the smallest that can be read."""

    wanted: float
    least: float


def place_captions(
    size: tuple[int, int], faces: Sequence[Area], texts: Sequence[str | None], sizes: Sequence[CaptionSize]
) -> list[Caption | None]:
    """A caption for each face: none without a text, or where there is no room for it.

    Plates lie in the picture. No plate and no line lies on another face, plate or line. A plate lies on its own face
    only if there is no room elsewhere, as when the face fills the picture.

    Args:
        size: width and height of the picture.
        faces: where they are.
        texts: of their captions; None for no caption.
        sizes: of their captions.
    """
    placed: dict[int, Caption] = {}
    waiting = [i for i, text in enumerate(texts) if text is not None]
    for find in (_beside, _apart, _inside):
        for i in sorted(waiting, key=lambda i: _room(size, faces, i)):
            others = [face for j, face in enumerate(faces) if j != i]
            caption = find(size, faces[i], others, str(texts[i]), sizes[i], list(placed.values()))
            if caption is not None:
                placed[i] = caption
        waiting = [i for i in waiting if i not in placed]
    return [placed.get(i) for i in range(len(faces))]


def _beside(
    size: tuple[int, int], face: Area, others: list[Area], text: str, wanted: CaptionSize, placed: list[Caption]
) -> Caption | None:
    """Above, below, right or left of the face; smaller if that fits."""
    for height in _heights(wanted):
        for area in _places_beside(size, face, text, height):
            margin = height * _GAP / 2  # so that it is clear whose caption it is
            if not area.overlaps(face) and _is_free(area.grown(margin), others, placed):
                return Caption(text, area, height)
    return None


def _apart(
    size: tuple[int, int], face: Area, others: list[Area], text: str, wanted: CaptionSize, placed: list[Caption]
) -> Caption | None:
    """As near as possible, with a line that crosses nothing."""
    height = wanted.least
    wide, tall = _plate(text, height)
    middle = ((face.left + face.right) / 2, (face.top + face.bottom) / 2)
    reach = max(face.right - face.left, face.bottom - face.top) / 2
    for step in range(1, math.ceil((max(size) - reach) / tall) + 1):
        for turn in range(_DIRECTIONS):
            angle = 2 * math.pi * ((turn + 1) // 2 * (-1) ** turn / _DIRECTIONS - 0.25)  # upwards first
            distance = reach + tall * step
            x = middle[0] + math.cos(angle) * (distance + wide / 2)
            y = middle[1] + math.sin(angle) * (distance + tall / 2)
            area = Area(x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)
            if not area.is_within(size) or area.overlaps(face) or not _is_free(area.grown(2), others, placed):
                continue
            start = face.nearest(((area.left + area.right) / 2, (area.top + area.bottom) / 2))
            line = (start, area.nearest(start))
            if not any(other.is_crossed(*line) for other in [*others, *(caption.area for caption in placed)]):
                return Caption(text, area, height, line)
    return None


def _inside(
    size: tuple[int, int], face: Area, others: list[Area], text: str, wanted: CaptionSize, placed: list[Caption]
) -> Caption | None:
    """At the upper or lower edge of the part of the face that lies in the picture; small beside other faces."""
    for height in _heights(wanted):
        wide, tall = _plate(text, height)
        if others and wide * tall > _OWN_SHARE * (face.right - face.left) * (face.bottom - face.top):
            continue
        middle = (max(face.left, 0.0) + min(face.right, float(size[0]))) / 2
        for top in (max(face.top, 0.0) + 1, min(face.bottom, float(size[1])) - tall - 1):
            area = Area(middle - wide / 2, top, middle + wide / 2, top + tall).moved_into(size)
            if area.is_within(size) and _is_free(area, others, placed):
                return Caption(text, area, height)
    return None


def _places_beside(size: tuple[int, int], face: Area, text: str, height: float) -> Iterator[Area]:
    wide, tall = _plate(text, height)
    gap = height * _GAP
    middle = (face.left + face.right - wide) / 2
    across = (middle, face.left, face.right - wide)
    down = (face.top, (face.top + face.bottom - tall) / 2, face.bottom - tall)
    places = [(left, top) for top in (face.top - gap - tall, face.bottom + gap) for left in across]
    places += [(left, top) for left in (face.right + gap, face.left - gap - wide) for top in down]
    for left, top in places:
        area = Area(left, top, left + wide, top + tall).moved_into(size)
        if area.is_within(size):
            yield area


@lru_cache(1000)
def _plate(text: str, height: float) -> tuple[float, float]:
    """Width and height of a caption's plate."""
    return ImageFont.load_default(height).getlength(text) + 2 * height * _PADDING, height * _TALL


def _heights(size: CaptionSize) -> Iterator[float]:
    height = size.wanted
    while height > size.least:
        yield height
        height *= _SHRINK
    yield size.least


def _is_free(area: Area, faces: Sequence[Area], placed: Sequence[Caption]) -> bool:
    return not any(area.overlaps(face) for face in faces) and not any(
        area.overlaps(caption.area) or (caption.line is not None and area.is_crossed(*caption.line))
        for caption in placed
    )


def _room(size: tuple[int, int], faces: Sequence[Area], i: int) -> float:
    """How far a face is from its four nearest neighbours; the most crowded one is placed first."""
    face = faces[i]
    distances = [face.distance(other) for j, other in enumerate(faces) if j != i]
    return sum(sorted(distances)[:4]) if distances else float(size[0])
