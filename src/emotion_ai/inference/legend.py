"""A legend below a picture: which numbered faces have which verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageFont

from emotion_ai.inference.canvas import Area, Colour, Layer

_BACKGROUND, _WORDS, _NUMBERS = (18, 20, 28), (250, 250, 252), (176, 180, 192)


@dataclass(frozen=True)
class LegendEntry:
    """A verdict, its colour, and the numbers of the faces that have it, ascending."""

    name: str
    colour: Colour
    numbers: Sequence[int]

    @property
    def ranges(self) -> list[str]:
        """The numbers, three and more neighbours joined: 1, 4, 7-9."""
        shown: list[str] = []
        start = 0
        for i in range(1, len(self.numbers) + 1):
            if i < len(self.numbers) and self.numbers[i] == self.numbers[i - 1] + 1:
                continue
            group = self.numbers[start:i]
            shown += [f"{group[0]}-{group[-1]}"] if len(group) > 2 else [str(number) for number in group]
            start = i
        return [f"{text}," for text in shown[:-1]] + shown[-1:]


@dataclass(frozen=True)
class _Word:
    """One word of the legend: where it starts, in which line, and the colour of the dot before it, if any."""

    text: str
    left: float
    line: int
    dot: Colour | None
    ink: Colour


def with_legend(picture: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """The picture with a band below it that lists the entries in lines as wide as the picture."""
    height = max(max(picture.size) / 60, 12.0)
    row = height * 1.7
    words = list(_words(entries, height, picture.width))
    tall = round(row * (words[-1].line + 1) + height) if words else 0
    framed = Image.new("RGB", (picture.width, picture.height + tall), _BACKGROUND)
    framed.paste(picture)
    if words:
        layer = Layer(Area(0, picture.height, picture.width - 1, picture.height + tall - 1))
        for word in words:
            middle = picture.height + height / 2 + row * (word.line + 0.5)
            if word.dot is not None:
                layer.dot(word.left - height * 0.8, middle, height * 0.42, word.dot)
            layer.text(word.left, middle, word.text, height, word.ink, "lm")
        layer.paste_onto(framed)
    return framed


def _words(entries: Sequence[LegendEntry], height: float, width: int) -> Iterator[_Word]:
    font, margin = ImageFont.load_default(height), height
    x, line = margin, 0
    for entry in entries:
        for i, text in enumerate((entry.name, *entry.ranges)):
            before = height * (1.5 if i == 0 else 0.0)
            if x > margin and x + before + font.getlength(text) > width - margin:
                x, line = margin + (0.0 if i == 0 else height * 1.5), line + 1
            x += before
            yield _Word(text, x, line, entry.colour if i == 0 else None, _WORDS if i == 0 else _NUMBERS)
            x += font.getlength(text) + height * 0.5
        x += height
