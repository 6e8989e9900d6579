"""Readings drawn onto a copy of their photograph: frame, points, emotion and its probabilities."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from emotion_ai.contract import EMOTIONS, KEYPOINTS
from emotion_ai.inference.results import FaceReading

_CROWD = 4  # with more faces than these, their captions alone are drawn
_NAMED = 140  # pixels of a face, below which names would hide it
ELLIPSE_95 = math.sqrt(-2 * math.log(0.05))  # deviations to the edge of what holds 95 % of a normal distribution in 2-D
_LEAST = 640  # a smaller photograph is enlarged to this longer side, so that words can be read
_INK = (18, 20, 28)
_PAPER = (250, 250, 252)
_EMOTION_COLOURS = {
    "Angry": (240, 84, 79),
    "Disgust": (124, 190, 72),
    "Sad": (92, 150, 255),
    "Happy": (255, 200, 61),
    "Surprise": (190, 135, 255),
}
_POINT_COLOURS = {"brow": (255, 190, 70), "eye": (70, 220, 240), "nose": (255, 255, 255), "mouth": (255, 112, 140)}
_LINES = (
    ("left_eyebrow_inner_end", "left_eyebrow_outer_end"),
    ("right_eyebrow_inner_end", "right_eyebrow_outer_end"),
    ("left_eye_inner_corner", "left_eye_center", "left_eye_outer_corner"),
    ("right_eye_inner_corner", "right_eye_center", "right_eye_outer_corner"),
    (
        "mouth_left_corner",
        "mouth_center_top_lip",
        "mouth_right_corner",
        "mouth_center_bottom_lip",
        "mouth_left_corner",
    ),
)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class _Area:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "_Area") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, size: tuple[int, int]) -> bool:
        return self.left >= 0 and self.top >= 0 and self.right <= size[0] and self.bottom <= size[1]

    def moved_into(self, size: tuple[int, int]) -> "_Area":
        dx = max(-self.left, 0.0) - max(self.right - size[0], 0.0)
        dy = max(-self.top, 0.0) - max(self.bottom - size[1], 0.0)
        return _Area(self.left + dx, self.top + dy, self.right + dx, self.bottom + dy)


class _Layer:
    """A transparent sheet over an area of the picture, drawn enlarged and shrunk again for smooth edges."""

    def __init__(self, area: _Area) -> None:
        self.origin = (int(area.left), int(area.top))
        width, height = int(area.right) + 2 - self.origin[0], int(area.bottom) + 2 - self.origin[1]
        self.factor = 4 if width * height < 1_000_000 else 2 if width * height < 8_000_000 else 1
        self.image = Image.new("RGBA", (width * self.factor, height * self.factor))
        self.draw = ImageDraw.Draw(self.image)

    def _at(self, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        return [((x - self.origin[0]) * self.factor, (y - self.origin[1]) * self.factor) for x, y in points]

    def line(self, points: Iterable[tuple[float, float]], colour: Colour, alpha: int, width: float) -> None:
        self.draw.line(self._at(points), (*colour, alpha), max(round(width * self.factor), 1), "curve")

    def dot(self, x: float, y: float, radius: float, colour: Colour, alpha: int = 255) -> None:
        ((cx, cy),) = self._at([(x, y)])
        r = radius * self.factor
        self.draw.ellipse((cx - r, cy - r, cx + r, cy + r), (*colour, alpha))

    def ellipse(self, x: float, y: float, across: float, down: float, colour: Colour, width: float) -> None:
        low, high = self._at([(x - across, y - down), (x + across, y + down)])
        self.draw.ellipse((*low, *high), (*colour, 70), (*colour, 255), max(round(width * self.factor), 1))

    def plate(self, area: _Area, radius: float, colour: Colour, alpha: int = 255) -> None:
        (low, high) = self._at([(area.left, area.top), (area.right, area.bottom)])
        self.draw.rounded_rectangle((*low, *high), radius * self.factor, (*colour, alpha))

    def text(
        self, x: float, y: float, words: str, height: float, colour: Colour, anchor: str, edge: Colour | None = None
    ) -> None:
        font, ink = ImageFont.load_default(height * self.factor), (*colour, 255)
        width = 0 if edge is None else round(height * self.factor / 8)
        self.draw.text(self._at([(x, y)])[0], words, ink, font, anchor, stroke_width=width, stroke_fill=edge)

    def onto(self, picture: Image.Image) -> None:
        sheet = self.image.reduce(self.factor) if self.factor > 1 else self.image
        picture.paste(sheet.convert("RGB"), self.origin, sheet.getchannel("A"))


def annotate(
    rgb: NDArray[np.uint8],
    readings: Sequence[FaceReading],
    *,
    names: bool = False,
    ellipses: bool = False,
    bars: bool = True,
) -> Image.Image:
    """A copy of a photograph, uint8 (H, W, 3), with its readings drawn; a small photograph is enlarged.

    Args:
        rgb: the photograph.
        readings: its faces.
        names: writes the points' names beside the faces that are large enough for it; their numbers, from 1, where
            another face is in the way.
        ellipses: draws around the points of faces that have deviations what holds the true point with 95 %, were errors
            normal; along x and y since these are what deviations are given for.
        bars: draws the emotions' probabilities where nothing is hidden by them.
    """
    picture = Image.fromarray(rgb)
    scale = max(_LEAST / max(picture.size), 1.0)
    if scale > 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    frames = [_frame(reading, scale) for reading in readings]
    taken = list(frames)
    for reading, frame in zip(readings, frames, strict=True):
        detailed = bars and not names and len(readings) <= _CROWD
        _draw(picture, reading, frame, taken, scale, detailed, ellipses)
    if names:
        for reading, frame in zip(readings, frames, strict=True):
            _name(picture, (reading.points + 0.5) * scale, frame, taken)
    return picture


def _frame(reading: FaceReading, scale: float) -> _Area:
    box = reading.box
    return _Area(box.left * scale, box.top * scale, (box.left + box.size) * scale, (box.top + box.size) * scale)


def _draw(
    picture: Image.Image,
    reading: FaceReading,
    frame: _Area,
    taken: list[_Area],
    scale: float,
    detailed: bool,
    ellipses: bool,
) -> None:
    side = frame.right - frame.left
    height = min(max(side / 11, max(picture.size) / 75, 11.0), max(picture.size) / 24)
    title, panel = _places(picture.size, frame, reading, height, taken)
    panel = panel if detailed else None
    areas = [frame, *(area for area in (title, panel) if area)]
    pad = height
    layer = _Layer(
        _Area(
            max(min(area.left for area in areas) - pad, 0),
            max(min(area.top for area in areas) - pad, 0),
            min(max(area.right for area in areas) + pad, picture.width - 1),
            min(max(area.bottom for area in areas) + pad, picture.height - 1),
        )
    )
    colour = _EMOTION_COLOURS.get(reading.verdict or "", _PAPER)
    _brackets(layer, frame, colour)
    deviations = reading.deviations * scale if ellipses and reading.deviations is not None else None
    _points(layer, (reading.points + 0.5) * scale, side, deviations)
    if title:
        layer.plate(title, height / 2, colour)
        middle = (title.top + title.bottom) / 2
        layer.text((title.left + title.right) / 2, middle, reading.caption, height, _INK, "mm")
    if panel:
        _bars(layer, panel, reading, height * 0.72)
    layer.onto(picture)
    taken += [area for area in (title, panel) if area]


def _places(
    size: tuple[int, int], frame: _Area, reading: FaceReading, height: float, taken: Sequence[_Area]
) -> tuple[_Area | None, _Area | None]:
    """Where the caption and the probabilities go: the caption always, the probabilities where nothing is hidden."""
    if reading.emotion is None:
        return None, None
    gap = height * 0.6
    middle = (frame.left + frame.right) / 2
    half = ImageFont.load_default(height).getlength(reading.caption) / 2 + height * 0.7
    tall = height * 1.7
    others = [area for area in taken if area != frame]
    above = _Area(middle - half, frame.top - gap - tall, middle + half, frame.top - gap).moved_into(size)
    below = _Area(middle - half, frame.bottom + gap, middle + half, frame.bottom + gap + tall).moved_into(size)
    free = [area for area in (above, below) if not any(area.meets(other) for other in [*others, frame])]
    title = free[0] if free else above
    width, tall = height * 10, height * 0.72 * (1.55 * len(EMOTIONS) + 1.1)
    top = min(max(frame.top, 0.0), size[1] - tall)
    under = max(frame.bottom, title.bottom) + gap
    for left, high in ((frame.right + gap, top), (frame.left - gap - width, top), (middle - width / 2, under)):
        panel = _Area(left, high, left + width, high + tall)
        if panel.within(size) and not any(panel.meets(other) for other in [*others, title]):
            return title, panel
    return title, None


def _brackets(layer: _Layer, frame: _Area, colour: Colour) -> None:
    """The frame's four corners, on a dark shadow so that they show on any ground."""
    side = frame.right - frame.left
    arm, thick = side * 0.16, max(side / 90, 1.5)
    for ink, alpha, width in ((_INK, 110, thick * 2), (colour, 255, thick)):
        half = width / 2
        for x, dx in ((frame.left, arm), (frame.right, -arm)):
            for y, dy in ((frame.top, arm), (frame.bottom, -arm)):
                across = sorted((x, x + dx)), (y, y)
                along = (x, x), sorted((y, y + dy))
                for (left, right), (top, bottom) in (across, along):
                    layer.plate(_Area(left - half, top - half, right + half, bottom + half), half, ink, alpha)


def _points(
    layer: _Layer, points: NDArray[np.float32], side: float, deviations: NDArray[np.float32] | None = None
) -> None:
    places = {name: (float(x), float(y)) for name, (x, y) in zip(KEYPOINTS, points, strict=True)}
    if not np.isfinite(points).all():
        return
    radius = max(side / 80, 1.2)
    for line in _LINES:
        layer.line([places[name] for name in line], _point_colour(line[0]), 170, max(radius * 0.6, 1.2))
    if deviations is not None:
        radius *= 0.5  # a dot of the usual size would hide the ellipse of a sure point
        for (name, (x, y)), (across, down) in zip(places.items(), (ELLIPSE_95 * deviations).tolist(), strict=True):
            layer.ellipse(x, y, across, down, _point_colour(name), max(side / 240, 1.0))
    for name, (x, y) in places.items():
        layer.dot(x, y, radius * 1.45, _INK, 170)
        layer.dot(x, y, radius, _point_colour(name))


def _name(picture: Image.Image, points: NDArray[np.float32], frame: _Area, taken: list[_Area]) -> None:
    """Names in a column on either side of the face, with a thin line to each point; numbers where there is no room."""
    side = frame.right - frame.left
    if side < _NAMED or not np.isfinite(points).all():
        return
    height = min(max(side / 24, 12.0), 20.0)
    font, row, gap = ImageFont.load_default(height), height * 1.35, height * 0.5
    middle = float(np.median(points[:, 0]))
    plates = []
    for sign in (-1, 1):
        column = [(i, x, y) for i, (x, y) in enumerate(points) if (x >= middle) == (sign > 0)]
        column.sort(key=lambda place: float(place[2]))
        rows = _apart([float(y) for _, _, y in column], row, max(frame.top, 0.0), float(picture.height))
        for (i, x, y), at in zip(column, rows, strict=True):
            words = KEYPOINTS[i].replace("_", " ")
            width = font.getlength(words) + 2 * gap
            left = frame.right + gap if sign > 0 else frame.left - gap - width
            plate = _Area(left, at - row * 0.46, left + width, at + row * 0.46).moved_into(picture.size)
            plates.append((i, (float(x), float(y)), words, plate, (plate.left if sign > 0 else plate.right, at)))
    layer = _Layer(_Area(0, 0, picture.width - 1, picture.height - 1))
    if any(plate.meets(other) for _, _, _, plate, _ in plates for other in taken if other != frame):
        for i, (x, y) in enumerate(points, 1):
            layer.text(float(x), float(y) - max(side / 80, 1.2) * 1.6, str(i), max(side / 22, 9.0), _PAPER, "mb", _INK)
    else:
        for i, point, words, plate, edge in plates:
            colour = _point_colour(KEYPOINTS[i])
            layer.line([point, edge], colour, 200, max(side / 400, 1.0))
            layer.plate(plate, height * 0.3, _INK, 190)
            layer.text(plate.left + gap, edge[1], words, height, colour, "lm")
        taken += [plate for _, _, _, plate, _ in plates]
    layer.onto(picture)


def _apart(wanted: list[float], step: float, low: float, high: float) -> list[float]:
    """Ascending places near the wanted ones, at least a step from each other, between low and high if they fit."""
    places: list[float] = []
    for place in wanted:
        places.append(max(place, places[-1] + step if places else low + step / 2))
    limit = high - step / 2
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - step
    return places


def _point_colour(name: str) -> Colour:
    return next(colour for part, colour in _POINT_COLOURS.items() if part in name)


def _bars(layer: _Layer, panel: _Area, reading: FaceReading, height: float) -> None:
    layer.plate(panel, height * 0.8, _INK, 205)
    left, right = panel.left + height * 5.6, panel.right - height * 3.2
    for i, (name, value) in enumerate(zip(EMOTIONS, reading.probabilities, strict=True)):
        y = panel.top + height * (1.55 * (i + 0.5) + 0.55)
        ink = _PAPER if name == reading.emotion else (176, 180, 192)
        layer.text(panel.left + height * 0.9, y, name, height, ink, "lm")
        thick = height * 0.22
        layer.plate(_Area(left, y - thick, right, y + thick), thick, (70, 74, 88))
        if (length := float(value) * (right - left)) > 2 * thick:
            layer.plate(_Area(left, y - thick, left + length, y + thick), thick, _EMOTION_COLOURS[name])
        elif length > 0.05 * thick:
            layer.dot(left + thick, y, thick * max(float(value) ** 0.5, 0.25), _EMOTION_COLOURS[name])
        layer.text(panel.right - height * 0.8, y, f"{value:.0%}", height, ink, "rm")
