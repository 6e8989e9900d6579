"""Readings drawn onto a copy of their photo: crop, points, emotion and probabilities."""

import math
from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

from emotion_ai.class_set import ClassSet
from emotion_ai.contract import KEYPOINTS
from emotion_ai.inference.canvas import Area, Colour, Layer, Point
from emotion_ai.inference.captions import Caption, CaptionSize, place_captions
from emotion_ai.inference.legend import LegendEntry, with_legend
from emotion_ai.inference.results import FaceReading
from emotion_ai.vision.crops import check_rgb

ELLIPSE_95 = math.sqrt(-2 * math.log(0.05))
"""Half axes, in standard deviations, of the ellipse that holds 95 % of a normal distribution in 2-D."""

_CROWD = 4  # with more faces than these, no probabilities are drawn
_MAX_CAPTIONS = 20  # with more faces, numbers and a legend
_MIN_NAMED = 140  # pixels of a face, below which names would hide it
_MIN_SIDE = 640  # a smaller photo is enlarged to this longer side, for legible text
_INK = (18, 20, 28)
_PAPER = (250, 250, 252)
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


def annotate(
    rgb: NDArray[np.uint8],
    readings: Sequence[FaceReading],
    *,
    names: bool = False,
    ellipses: bool = False,
    bars: bool = True,
    tracks: Sequence[int] | None = None,
) -> Image.Image:
    """A copy of a photo, uint8 (H, W, 3), with its readings drawn; a small photo is enlarged.

    Captions lie beside their faces, never on another face or caption; where there is no room, a thin line leads to one.
    With more than 20 faces, or too little room, the faces are numbered and a legend is added below the photo.

    Args:
        rgb: the photo.
        readings: its faces; one that lies outside it is left out.
        names: writes the points' names beside large faces, or their numbers, from 1, if another face is in the way.
        ellipses: draws the 95 % region of each point with standard deviations, assuming normal errors along x and y.
        bars: draws the probabilities beside each face if there is room; not together with names.
        tracks: numbers of the people in a video, one for each face; they come before the captions, as in "#2 Happy
            83%", and replace the faces' numbers in the legend.

    Raises:
        ImageError: the photo is not colour, uint8 (H, W, 3).
    """
    picture = Image.fromarray(check_rgb(rgb, "the photo"))
    shown = [i for i, reading in enumerate(readings) if _is_in_picture(reading, picture.size)]
    readings = [readings[i] for i in shown]
    tracks = None if tracks is None else [tracks[i] for i in shown]
    scale = max(_MIN_SIDE / max(picture.size), 1.0)
    if scale > 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    faces = [_face_area(reading, scale) for reading in readings]
    captions, numbered = _captions(picture.size, readings, faces, tracks)
    for reading, face in zip(readings, faces, strict=True):
        _draw_face(picture, reading, face, scale, ellipses)
    for reading, caption in zip(readings, captions, strict=True):
        if caption is not None:
            _draw_caption(picture, caption, _colour(reading))
    occupied = [*faces, *(caption.area for caption in captions if caption is not None)]
    if bars and not names and len(readings) <= _CROWD:
        for reading, face, caption in zip(readings, faces, captions, strict=True):
            _draw_probabilities(picture, reading, face, caption, occupied)
    if names:
        for reading, face in zip(readings, faces, strict=True):
            _draw_names(picture, (reading.points + 0.5) * scale, face, occupied)
    return with_legend(picture, _legend(readings, tracks)) if numbered else picture


def _is_in_picture(reading: FaceReading, size: tuple[int, int]) -> bool:
    """Whether a part of the face lies in a picture of that size."""
    left, top, right, bottom = reading.box.bounds()
    return left < size[0] and top < size[1] and right > 0 and bottom > 0


def _face_area(reading: FaceReading, scale: float) -> Area:
    return Area(*(edge * scale for edge in reading.box.bounds()))


def _captions(
    size: tuple[int, int], readings: Sequence[FaceReading], faces: Sequence[Area], tracks: Sequence[int] | None = None
) -> tuple[list[Caption | None], bool]:
    """A caption for each face with an emotion, and whether they are numbers that a legend explains."""
    named = [reading.emotion is not None for reading in readings]
    heights = [_caption_size(face, size) for face in faces]
    if len(readings) <= _MAX_CAPTIONS:
        starts = [""] * len(readings) if tracks is None else [f"#{track} " for track in tracks]
        texts = [
            start + reading.caption if reading.emotion else None
            for start, reading in zip(starts, readings, strict=True)
        ]
        captions = place_captions(size, faces, texts, heights)
        if len(readings) == 1 or all(caption or not shown for caption, shown in zip(captions, named, strict=True)):
            return captions, False
    numbers = [str(i) if shown else None for i, shown in zip(tracks or count(1), named, strict=False)]
    return place_captions(size, faces, numbers, heights), any(named)


def _caption_size(face: Area, size: tuple[int, int]) -> CaptionSize:
    """A share of the face, within what is legible in the whole picture."""
    longer = max(size)
    least = max(longer / 110, 10.0)
    return CaptionSize(min(max((face.right - face.left) / 9, least), max(longer / 24, least)), least)


def _legend(readings: Sequence[FaceReading], tracks: Sequence[int] | None = None) -> list[LegendEntry]:
    """Which faces have which verdict: the classes in their order, then the others."""
    numbers: dict[str, list[int]] = {}
    colours = {}
    for i, reading in zip(tracks or count(1), readings, strict=False):
        if reading.verdict is not None:
            numbers.setdefault(reading.verdict, []).append(i)
            colours[reading.verdict] = _colour(reading)
    classes = list(dict.fromkeys(name for reading in readings for name in reading.classes))
    order = [*(name for name in classes if name in numbers), *(name for name in numbers if name not in classes)]
    return [LegendEntry(name, colours[name], numbers[name]) for name in order]


def _colour(reading: FaceReading) -> Colour:
    return _class_colour(reading, reading.verdict)


def _draw_face(picture: Image.Image, reading: FaceReading, face: Area, scale: float, ellipses: bool) -> None:
    side = reading.box.size * scale
    layer = Layer(_visible(face.grown(side / 24 + 2), picture.size))
    _draw_corners(layer, (reading.box.corners() + 0.5) * scale, _colour(reading))
    deviations = reading.deviations * scale if ellipses and reading.deviations is not None else None
    _draw_points(layer, (reading.points + 0.5) * scale, side, deviations)
    layer.paste_onto(picture)


def _draw_caption(picture: Image.Image, caption: Caption, colour: Colour) -> None:
    area, height = caption.area, caption.height
    ends = caption.line or ()
    across, down = [area.left, area.right, *(x for x, _ in ends)], [area.top, area.bottom, *(y for _, y in ends)]
    layer = Layer(_visible(Area(min(across), min(down), max(across), max(down)).grown(2), picture.size))
    if ends:
        width = max(height / 9, 1.0)
        for ink, alpha, thick in ((_INK, 140, 2 * width), (colour, 255, width)):
            layer.line(ends, ink, alpha, thick)
    layer.plate(area, height / 2, colour)
    layer.text((area.left + area.right) / 2, (area.top + area.bottom) / 2, caption.text, height, _INK, "mm")
    layer.paste_onto(picture)


def _draw_probabilities(
    picture: Image.Image, reading: FaceReading, face: Area, caption: Caption | None, occupied: list[Area]
) -> None:
    """The panel right of the face, left of it or below, if it hides nothing there."""
    if caption is None:
        return
    gap = caption.height * 0.6
    width, tall = caption.height * 10, caption.height * 0.72 * (1.55 * len(reading.classes) + 1.1)
    top = min(max(face.top, 0.0), picture.height - tall)
    under = max(face.bottom, caption.area.bottom) + gap
    middle = (face.left + face.right - width) / 2
    for left, high in ((face.right + gap, top), (face.left - gap - width, top), (middle, under)):
        panel = Area(left, high, left + width, high + tall)
        if panel.is_within(picture.size) and not any(panel.overlaps(other) for other in occupied):
            layer = Layer(panel.grown(2))
            _draw_bars(layer, panel, reading, caption.height * 0.72)
            layer.paste_onto(picture)
            occupied.append(panel)
            return


def _visible(area: Area, size: tuple[int, int]) -> Area:
    """The part of an area in a picture."""
    return Area(max(area.left, 0), max(area.top, 0), min(area.right, size[0] - 1), min(area.bottom, size[1] - 1))


def _class_colour(reading: FaceReading, name: str | None) -> Colour:
    """The colour of a class; that of paper for "uncertain"."""
    if name not in reading.classes:
        return _PAPER
    red, green, blue = bytes.fromhex(ClassSet.of(reading.classes).color(name)[1:])
    return red, green, blue


def _draw_corners(layer: Layer, corners: NDArray[np.float64], colour: Colour) -> None:
    """The crop's four corners, (4, 2), turned like the face, on a dark shadow that shows on any background."""
    thick = max(float(np.linalg.norm(corners[1] - corners[0])) / 90, 1.5)
    for ink, alpha, width in ((_INK, 110, thick * 2), (colour, 255, thick)):
        for before, corner, after in zip(np.roll(corners, 1, 0), corners, np.roll(corners, -1, 0), strict=True):
            arms = (corner + 0.16 * (before - corner), corner, corner + 0.16 * (after - corner))
            layer.line([(float(x), float(y)) for x, y in arms], ink, alpha, width)


def _draw_points(
    layer: Layer, points: NDArray[np.float32], side: float, deviations: NDArray[np.float32] | None = None
) -> None:
    places = {name: (float(x), float(y)) for name, (x, y) in zip(KEYPOINTS, points, strict=True)}
    if not np.isfinite(points).all():
        return
    radius = max(side / 80, 1.2)
    for line in _LINES:
        layer.line([places[name] for name in line], _point_colour(line[0]), 170, max(radius * 0.6, 1.2))
    if deviations is not None:
        radius *= 0.5  # a dot of the usual size would hide a small ellipse
        for (name, (x, y)), (across, down) in zip(places.items(), (ELLIPSE_95 * deviations).tolist(), strict=True):
            layer.ellipse(x, y, across, down, _point_colour(name), max(side / 240, 1.0))
    for name, (x, y) in places.items():
        layer.dot(x, y, radius * 1.45, _INK, 170)
        layer.dot(x, y, radius, _point_colour(name))


def _draw_bars(layer: Layer, panel: Area, reading: FaceReading, height: float) -> None:
    layer.plate(panel, height * 0.8, _INK, 205)
    left, right = panel.left + height * 5.6, panel.right - height * 3.2
    for i, (name, value) in enumerate(reading.by_class.items()):
        y = panel.top + height * (1.55 * (i + 0.5) + 0.55)
        ink = _PAPER if name == reading.emotion else (176, 180, 192)
        layer.text(panel.left + height * 0.9, y, name, height, ink, "lm")
        thick = height * 0.22
        layer.plate(Area(left, y - thick, right, y + thick), thick, (70, 74, 88))
        if (length := float(value) * (right - left)) > 2 * thick:
            layer.plate(Area(left, y - thick, left + length, y + thick), thick, _class_colour(reading, name))
        elif length > 0.05 * thick:
            layer.dot(left + thick, y, thick * max(float(value) ** 0.5, 0.25), _class_colour(reading, name))
        layer.text(panel.right - height * 0.8, y, f"{value:.0%}", height, ink, "rm")


def _draw_names(picture: Image.Image, points: NDArray[np.float32], face: Area, occupied: list[Area]) -> None:
    """Names in a column on either side of the face, each with a line to its point; numbers if there is no room."""
    side = face.right - face.left
    if side < _MIN_NAMED or not np.isfinite(points).all():
        return
    height = min(max(side / 24, 12.0), 20.0)
    font, row, gap = ImageFont.load_default(height), height * 1.35, height * 0.5
    middle = float(np.median(points[:, 0]))
    plates: list[tuple[int, Point, Area, Point]] = []  # a point's number and place, its plate, the line's end
    for sign in (-1, 1):
        column = [(i, float(x), float(y)) for i, (x, y) in enumerate(points) if (x >= middle) == (sign > 0)]
        column.sort(key=lambda place: place[2])
        rows = _spread([y for _, _, y in column], row, max(face.top, 0.0), float(picture.height))
        for (i, x, y), at in zip(column, rows, strict=True):
            width = font.getlength(_words(i)) + 2 * gap
            left = face.right + gap if sign > 0 else face.left - gap - width
            plate = Area(left, at - row * 0.46, left + width, at + row * 0.46).moved_into(picture.size)
            plates.append((i, (x, y), plate, (plate.left if sign > 0 else plate.right, at)))
    layer = Layer(Area(0, 0, picture.width - 1, picture.height - 1))
    if any(plate.overlaps(other) for _, _, plate, _ in plates for other in occupied if other != face):
        for i, (x, y) in enumerate(points, 1):
            layer.text(float(x), float(y) - max(side / 80, 1.2) * 1.6, str(i), max(side / 22, 9.0), _PAPER, "mb", _INK)
    else:
        for i, point, plate, end in plates:
            colour = _point_colour(KEYPOINTS[i])
            layer.line([point, end], colour, 200, max(side / 400, 1.0))
            layer.plate(plate, height * 0.3, _INK, 190)
            layer.text(plate.left + gap, end[1], _words(i), height, colour, "lm")
        occupied += [plate for _, _, plate, _ in plates]
    layer.paste_onto(picture)


def _spread(places: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Ascending places near the given ones, at least a step apart, between low and high if they fit."""
    spread: list[float] = []
    for place in places:
        spread.append(max(place, spread[-1] + step if spread else low + step / 2))
    limit = high - step / 2
    for i in reversed(range(len(spread))):
        spread[i] = min(spread[i], limit)
        limit = spread[i] - step
    return spread


def _words(keypoint: int) -> str:
    return KEYPOINTS[keypoint].replace("_", " ")


def _point_colour(name: str) -> Colour:
    return next(colour for part, colour in _POINT_COLOURS.items() if part in name)
