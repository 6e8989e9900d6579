"""Antialiased shapes and text, drawn onto a picture."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Area:
    """A rectangle of a picture, in its pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Area") -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def is_within(self, size: tuple[int, int]) -> bool:
        """Whether it lies in a picture of that width and height."""
        return self.left >= 0 and self.top >= 0 and self.right <= size[0] and self.bottom <= size[1]

    def grown(self, margin: float) -> "Area":
        """The same rectangle with a margin on each side."""
        return Area(self.left - margin, self.top - margin, self.right + margin, self.bottom + margin)

    def nearest(self, point: Point) -> Point:
        """The point of the rectangle that is nearest to a point."""
        return min(max(point[0], self.left), self.right), min(max(point[1], self.top), self.bottom)

    def distance(self, other: "Area") -> float:
        """Of the two rectangles; 0 if they share a point."""
        across = max(self.left - other.right, other.left - self.right, 0.0)
        down = max(self.top - other.bottom, other.top - self.bottom, 0.0)
        return math.hypot(across, down)

    def is_crossed(self, start: Point, end: Point) -> bool:
        """Whether a line passes through the inside of the rectangle (Liang and Barsky 1984)."""
        enter, leave = 0.0, 1.0
        for at, to, low, high in ((start[0], end[0], self.left, self.right), (start[1], end[1], self.top, self.bottom)):
            step = to - at
            if step == 0:
                if not low < at < high:
                    return False
                continue
            first, last = sorted(((low - at) / step, (high - at) / step))
            enter, leave = max(enter, first), min(leave, last)
        return enter < leave

    def moved_into(self, size: tuple[int, int]) -> "Area":
        """The same rectangle, moved so that it lies in a picture of that width and height if it fits."""
        dx = max(-self.left, 0.0) - max(self.right - size[0], 0.0)
        dy = max(-self.top, 0.0) - max(self.bottom - size[1], 0.0)
        return Area(self.left + dx, self.top + dy, self.right + dx, self.bottom + dy)


class Layer:
    """A transparent sheet over an area of a picture, drawn enlarged and shrunk again for smooth edges."""

    def __init__(self, area: Area) -> None:
        self.origin = (int(area.left), int(area.top))
        width, height = int(area.right) + 2 - self.origin[0], int(area.bottom) + 2 - self.origin[1]
        self.factor = 4 if width * height < 1_000_000 else 2 if width * height < 8_000_000 else 1
        self.image = Image.new("RGBA", (width * self.factor, height * self.factor))
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: Iterable[Point], colour: Colour, alpha: int, width: float) -> None:
        """A line through several points."""
        self.draw.line(self._scaled(points), (*colour, alpha), max(round(width * self.factor), 1), "curve")

    def dot(self, x: float, y: float, radius: float, colour: Colour, alpha: int = 255) -> None:
        """A filled circle."""
        ((cx, cy),) = self._scaled([(x, y)])
        r = radius * self.factor
        self.draw.ellipse((cx - r, cy - r, cx + r, cy + r), (*colour, alpha))

    def ellipse(self, x: float, y: float, across: float, down: float, colour: Colour, width: float) -> None:
        """A tinted ellipse with an outline; `across` and `down` are its half axes."""
        low, high = self._scaled([(x - across, y - down), (x + across, y + down)])
        self.draw.ellipse((*low, *high), (*colour, 70), (*colour, 255), max(round(width * self.factor), 1))

    def plate(self, area: Area, radius: float, colour: Colour, alpha: int = 255) -> None:
        """A filled rectangle with round corners."""
        low, high = self._scaled([(area.left, area.top), (area.right, area.bottom)])
        self.draw.rounded_rectangle((*low, *high), radius * self.factor, (*colour, alpha))

    def text(
        self, x: float, y: float, words: str, height: float, colour: Colour, anchor: str, outline: Colour | None = None
    ) -> None:
        """Words of a height in pixels; `anchor` as in Pillow."""
        font, ink = ImageFont.load_default(height * self.factor), (*colour, 255)
        width = 0 if outline is None else round(height * self.factor / 8)
        self.draw.text(self._scaled([(x, y)])[0], words, ink, font, anchor, stroke_width=width, stroke_fill=outline)

    def paste_onto(self, picture: Image.Image) -> None:
        """Draws the sheet onto the picture."""
        sheet = self.image.reduce(self.factor) if self.factor > 1 else self.image
        picture.paste(sheet.convert("RGB"), self.origin, sheet.getchannel("A"))

    def _scaled(self, points: Iterable[Point]) -> list[Point]:
        return [((x - self.origin[0]) * self.factor, (y - self.origin[1]) * self.factor) for x, y in points]
