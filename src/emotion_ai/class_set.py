"""Class sets: the classes that an expression network can name, with their other spellings and colours."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from emotion_ai.contract import EMOTIONS

_ALIASES: dict[str, tuple[str, ...]] = {
    "Angry": ("anger", "AN"),
    "Disgust": ("disgusted", "DI"),
    "Sad": ("sadness", "SA"),
    "Happy": ("happiness", "joy", "HA"),
    "Surprise": ("surprised", "SU"),
    "Fear": ("fearful", "afraid", "FE"),
    "Neutral": ("calm", "NE", "neutrality"),
    "Contempt": ("contemptuous", "CO"),
}
"""Names of known expressions and their other spellings in FER2013, FER+, AffectNet, RAF-DB, CK+ and JAFFE."""

_COLORS = {
    "Angry": "#d1495b",
    "Disgust": "#6a994e",
    "Sad": "#3d6fb6",
    "Happy": "#edae49",
    "Surprise": "#8e5ea2",
    "Fear": "#4f9d9d",
    "Neutral": "#8d99ae",
    "Contempt": "#a98467",
}
_PALETTE = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666")


def _key(name: str) -> str:
    """A spelling without case and without a leading number such as in `3_happiness`."""
    return re.sub(r"^\d+[\s._-]+", "", name.strip()).casefold()


_KNOWN = {_key(spelling): name for name, others in _ALIASES.items() for spelling in (name, *others)}


def known_expression(name: str) -> str | None:
    """The usual name of an expression, whatever its spelling: "Happy" for `3_happiness`; None if it is unknown."""
    return _KNOWN.get(_key(name))


@dataclass(frozen=True)
class ClassSet:
    """Classes in the order of a network's outputs.

    Attributes:
        names: at least two, each once.
        aliases: other spellings by name, besides those of the known expressions.
        colors: "#rrggbb" by name, for pictures.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    colors: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, names: tuple[str, ...] | list[str]) -> Self:
        return cls(tuple(names))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def emotions(self) -> int:
        """How many of the first classes the output `probabilities` covers: the five emotions, or all of another set."""
        return len(EMOTIONS) if self.names[: len(EMOTIONS)] == EMOTIONS else len(self.names)

    def index(self, name: str) -> int | None:
        """The index of a class by any of its spellings; None if it is none of the set."""
        spellings = {_key(other): own for own, others in self.aliases.items() for other in others}
        spellings |= {_key(own): own for own in self.names}
        own = spellings.get(_key(name)) or spellings.get(_key(known_expression(name) or ""))
        return None if own is None else self.names.index(own)

    def color(self, name: str) -> str:
        """The colour of a class in pictures, "#rrggbb"."""
        return self.colors.get(name) or _COLORS.get(name) or _PALETTE[self.names.index(name) % len(_PALETTE)]


FIVE = ClassSet(EMOTIONS)
"""The five emotions."""

SEVEN = ClassSet((*EMOTIONS, "Fear", "Neutral"))
"""The five emotions, Fear and Neutral: the classes of FER2013."""
