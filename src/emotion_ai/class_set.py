"""Class sets: the classes that an expression network can name, with their other spellings and colours."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from unicodedata import normalize

from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import ConfigError

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
    "Angry": "#f0544f",
    "Disgust": "#7cbe48",
    "Sad": "#5c96ff",
    "Happy": "#ffc83d",
    "Surprise": "#be87ff",
    "Fear": "#45c4b0",
    "Neutral": "#aab3c5",
    "Contempt": "#c99a6b",
}

UNCERTAIN = "uncertain"
"""The verdict on a face that no class fits well enough; no class has this name."""

MAX_NAME = 100
"""Characters of a class's name."""

_PALETTE = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666")


def _key(name: str) -> str:
    """A spelling without case, without a leading number such as in `3_happiness`, accents written in one way."""
    return re.sub(r"^\d+[\s._-]+", "", normalize("NFC", name).strip()).casefold()


FER7 = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")
"""FER2013's classes, by id."""

_NUMBERED: dict[str, tuple[str, ...]] = {
    "FER2013": FER7,
    "RAF-DB": ("", "Surprise", "Fear", "Disgust", "Happy", "Sad", "Angry", "Neutral"),
    "AffectNet": ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Angry", "Contempt"),
    "CK+": ("Neutral", "Angry", "Contempt", "Disgust", "Fear", "Happy", "Sad", "Surprise"),
}

_KNOWN = {_key(spelling): name for name, others in _ALIASES.items() for spelling in (name, *others)}


def known_expression(name: str) -> str | None:
    """The usual name of an expression, whatever its spelling: "Happy" for `3_happiness`; None if it is unknown."""
    return _KNOWN.get(_key(name))


def known_spellings() -> list[str]:
    """The spellings of known expressions, in lower case and sorted, without the two letters of JAFFE."""
    return sorted(name for name in _KNOWN if len(name) > 2)


def number_meanings(number: str) -> str:
    """What a numbered class is in each dataset that has it: "happy in FER2013, disgust in RAF-DB"; maybe empty."""
    if not re.fullmatch(r"\d{1,3}", number):
        return ""
    place = int(number)
    found = ((classes[place], name) for name, classes in _NUMBERED.items() if place < len(classes))
    return ", ".join(f"{expression.lower()} in {name}" for expression, name in found if expression)


@dataclass(frozen=True)
class ClassSet:
    """Classes in the order of a network's outputs.

    Attributes:
        names: at least two, each once.
        aliases: other spellings by name, besides those of the known expressions.
        colors: "#rrggbb" by name, for pictures.

    Raises:
        ConfigError: fewer than two classes, one of them twice, or names, aliases or colours that cannot be used.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    colors: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise ConfigError(f"classes.names: a network needs at least two classes, got {list(self.names)}")
        spelled: dict[str, str] = {}
        for name in self.names:
            for spelling in (name, *self.aliases.get(name, ())):
                if not isinstance(spelling, str) or not 0 < len(spelling.strip()) <= MAX_NAME:
                    raise ConfigError(f"classes: a name must be a text of 1 to {MAX_NAME} characters, got {spelling!r}")
                if not spelling.isprintable() or spelling == UNCERTAIN:
                    raise ConfigError(f"classes: {spelling!r} cannot be a class's name; choose another")
                if (other := spelled.setdefault(_key(spelling), name)) != name or self.names.count(name) > 1:
                    raise ConfigError(f"classes: {spelling!r} means two classes ({other} and {name}); rename one")
        for what, by_name in (("aliases", self.aliases), ("colors", self.colors)):
            if unknown := [name for name in by_name if name not in self.names]:
                raise ConfigError(f"classes.{what}: {unknown[0]!r} is none of {', '.join(self.names)}")
        for name, color in self.colors.items():
            if not re.fullmatch(r"#[0-9a-fA-F]{6}", str(color)):
                raise ConfigError(f"classes.colors.{name}: {color!r} is no colour such as #d1495b")

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
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

CLASS_SETS: dict[str, ClassSet | None] = {"five": FIVE, "seven": SEVEN, "folders": None}
"""By the names of the configs in `conf/classes`; "folders" stands for the names of the data's class folders."""
