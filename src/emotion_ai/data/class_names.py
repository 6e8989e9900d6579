"""Names and numbers of emotion classes in the datasets that people have."""

import re

from emotion_ai.contract import EMOTIONS

FER7 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's classes, by id."""

CONTEMPT = len(FER7)
"""The id that contempt gets here; FER2013 does not have it."""

_OTHER_NAMES = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "afraid": "fear",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "contemptuous": "contempt",
}
_IDS = {name: index for index, name in enumerate((*FER7, "contempt"))}

CLASS_IDS = _IDS | {other: _IDS[name] for other, name in _OTHER_NAMES.items()}
"""Ids as in FER2013, and `CONTEMPT`, by name in lower case; CK+, AffectNet and RAF-DB use these names."""

FIVE_OF_FER7 = tuple(EMOTIONS.index(name.title()) if name.title() in EMOTIONS else -1 for name in FER7) + (-1,)
"""Index in `EMOTIONS` by id; -1 for fear, neutral and contempt."""

_NUMBERED = {
    "FER2013": FER7,
    "RAF-DB": ("", "surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"),
    "AffectNet": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt"),
    "CK+": ("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise"),
}


def class_id(name: str) -> int | None:
    """The id of a class name such as `Happy` or `3_happiness`; None if it is unknown."""
    return CLASS_IDS.get(re.sub(r"^\d+[\s._-]+", "", name.strip().lower()))


def number_meanings(number: str) -> str:
    """What a numbered class is in each dataset that has it: "happy in FER2013, disgust in RAF-DB"; maybe empty."""
    if not re.fullmatch(r"\d{1,3}", number):
        return ""
    place = int(number)
    found = ((classes[place], name) for name, classes in _NUMBERED.items() if place < len(classes))
    return ", ".join(f"{emotion} in {name}" for emotion, name in found if emotion)
