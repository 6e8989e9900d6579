"""Class sets: order, other spellings, colours, and how many classes are emotions."""

import pytest

from emotion_ai.class_set import FIVE, SEVEN, ClassSet, known_expression
from emotion_ai.errors import ConfigError


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("anger", "Angry"), ("AN", "Angry"), ("3_happiness", "Happy"), (" Sadness ", "Sad"), ("NE", "Neutral")],
)
def test_other_datasets_spellings_are_known(spelling: str, name: str) -> None:
    assert known_expression(spelling) == name
    assert SEVEN.index(spelling) == SEVEN.names.index(name)


def test_what_is_not_in_a_set_has_no_index() -> None:
    assert FIVE.index("fear") is None
    assert known_expression("cat") is None
    assert ClassSet.of(("cat", "dog")).index("happy") is None


def test_a_sets_own_spellings_come_first() -> None:
    own = ClassSet(("fine", "Sad"), aliases={"fine": ("happy",)})
    assert own.index("HAPPY") == 0
    assert own.index("sadness") == 1


@pytest.mark.parametrize(
    ("names", "emotions"), [(FIVE.names, 5), (SEVEN.names, 5), (("cat", "dog", "Happy"), 3), (SEVEN.names[1:], 6)]
)
def test_probabilities_cover_the_five_emotions_or_all_classes_of_another_set(
    names: tuple[str, ...], emotions: int
) -> None:
    assert ClassSet.of(names).emotions == emotions


def test_every_class_has_a_colour() -> None:
    own = ClassSet(("cat", "Happy"), colors={"cat": "#010203"})
    assert own.color("cat") == "#010203"
    assert own.color("Happy") == FIVE.color("Happy")
    assert all(len(ClassSet.of([str(i) for i in range(20)]).color(str(i))) == 7 for i in range(20))


def test_accents_may_be_written_in_either_way() -> None:
    own = ClassSet.of(("engag\u00e9", "bored"))
    assert own.index("engage\u0301") == 0
    with pytest.raises(ConfigError, match="means two classes"):
        ClassSet.of(("engag\u00e9", "engage\u0301"))
