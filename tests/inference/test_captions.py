"""Captions cover no other face and no other caption, however the faces lie; a legend replaces them in crowds."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_ai.class_set import FIVE
from emotion_ai.contract import EMOTIONS, MEAN_FACE
from emotion_ai.inference.canvas import Area
from emotion_ai.inference.captions import Caption, CaptionSize, place_captions
from emotion_ai.inference.drawing import _MAX_CAPTIONS, _captions, _legend, annotate
from emotion_ai.inference.legend import LegendEntry
from emotion_ai.inference.results import FaceReading
from emotion_ai.vision.crops import Box

MEAN = np.array(MEAN_FACE, np.float32)
SIZES = st.tuples(st.integers(640, 2000), st.integers(200, 2000))

COLOURS = {name: tuple(bytes.fromhex(FIVE.color(name)[1:])) for name in EMOTIONS}


def reading(left: float, top: float, size: float, emotion: int = 3) -> FaceReading:
    box = Box(left, top, size)
    probabilities = np.full(5, 0.05, np.float32)
    probabilities[emotion] = 0.8
    return FaceReading(MEAN, probabilities, box, box.to_photo(MEAN), 0.9)


@st.composite
def crowds(draw: st.DrawFn) -> tuple[tuple[int, int], list[FaceReading]]:
    """Faces anywhere, also over each other and beyond the picture's edge."""
    size = draw(SIZES)
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sides = rng.uniform(8, draw(st.sampled_from([40, 120, 400])), count)
    places = rng.uniform(0, 1, (count, 2)) * size - sides[:, None] / 2
    return size, [
        reading(float(x), float(y), float(s), i % 5) for i, ((x, y), s) in enumerate(zip(places, sides, strict=True))
    ]


def areas(readings: Sequence[FaceReading]) -> list[Area]:
    return [Area(r.box.left, r.box.top, r.box.left + r.box.size, r.box.top + r.box.size) for r in readings]


def check(size: tuple[int, int], faces: list[Area], captions: list[Caption | None]) -> None:
    for i, caption in enumerate(captions):
        if caption is None:
            continue
        assert caption.area.is_within(size)
        for j, (face, other) in enumerate(zip(faces, captions, strict=True)):
            if i == j:
                continue
            assert not caption.area.overlaps(face), (i, j)
            assert caption.line is None or not face.is_crossed(*caption.line), (i, j)
            if other is not None:
                assert not caption.area.overlaps(other.area), (i, j)
                assert caption.line is None or not other.area.is_crossed(*caption.line), (i, j)


@given(crowds())
@settings(max_examples=60)
def test_no_caption_covers_another_face_or_caption(crowd: tuple[tuple[int, int], list[FaceReading]]) -> None:
    size, readings = crowd
    faces = areas(readings)
    captions, numbered = _captions(size, readings, faces)
    check(size, faces, captions)
    for reading_, caption in zip(readings, captions, strict=True):
        if not numbered:
            assert caption is not None
            assert caption.text == reading_.caption
    assert numbered or len(readings) <= _MAX_CAPTIONS


@given(crowds())
@settings(max_examples=40)
def test_captions_of_faces_with_room_lie_beside_them(crowd: tuple[tuple[int, int], list[FaceReading]]) -> None:
    size, readings = crowd
    faces = areas(readings)
    texts: list[str | None] = [r.caption for r in readings]
    captions = place_captions(size, faces, texts, [CaptionSize(14, 11)] * len(faces))
    check(size, faces, captions)
    for face, caption in zip(faces, captions, strict=True):
        alone = face.is_within(size) and not any(face.distance(other) < 200 for other in faces if other is not face)
        if alone and face.top > 100 and caption is not None:
            assert caption.line is None
            assert caption.area.distance(face) < 20


def test_a_hemmed_in_face_gets_a_thin_line() -> None:
    faces = [Area(0, 0, 100, 100), Area(140, 0, 340, 200), Area(0, 104, 90, 194)]
    captions = place_captions((700, 340), faces, ["Happy 80%", "Sad 80%", "Angry 80%"], [CaptionSize(14, 11)] * 3)
    check((700, 340), faces, captions)
    hemmed = captions[0]
    assert hemmed is not None
    assert hemmed.line is not None
    (start, end) = hemmed.line
    assert faces[0].nearest(start) == start
    assert hemmed.area.nearest(end) == end
    colour = COLOURS["Happy"]
    readings = [reading(0, 0, 100), reading(140, 0, 200, 2), reading(0, 104, 90, 0)]
    drawn = np.asarray(annotate(np.full((340, 700, 3), 120, np.uint8), readings, bars=False)).astype(int)
    line = _captions((700, 340), readings, areas(readings))[0][0]
    assert line is not None
    assert line.line is not None
    (x0, y0), (x1, y1) = line.line
    along = [drawn[round(y0 + (y1 - y0) * t), round(x0 + (x1 - x0) * t)] for t in np.linspace(0.1, 0.9, 9)]
    assert np.mean([np.abs(ink - colour).max() < 60 for ink in along]) > 0.7


def test_a_caption_without_any_other_room_lies_on_its_own_face() -> None:
    (caption,) = place_captions((640, 480), [Area(-400, -400, 1600, 1600)], ["Happy 80%"], [CaptionSize(20, 11)])
    assert caption is not None
    assert caption.area.is_within((640, 480))


def test_small_faces_get_small_captions() -> None:
    size, readings = (1600, 1000), [reading(100, 300, 40), reading(400, 300, 200), reading(900, 300, 420)]
    captions, _ = _captions(size, readings, areas(readings))
    heights = [caption.height for caption in captions if caption is not None]
    assert heights[0] < heights[1] < heights[2]
    assert heights[0] <= 1600 / 100
    assert heights[2] <= 1600 / 20


@pytest.mark.parametrize("count", [15, 20, 30])
def test_no_pixel_of_a_caption_lies_on_a_face(count: int) -> None:
    photo = np.full((900, 1500, 3), 120, np.uint8)
    rng = np.random.default_rng(count)
    blind = np.full((15, 2), np.nan, np.float32)  # hides the points
    faces = [
        replace(
            reading(20 + i % 6 * 245 + rng.uniform(0, 60), 40 + i // 6 * 170, rng.uniform(50, 130), i % 5), points=blind
        )
        for i in range(count)
    ]
    drawn = np.asarray(annotate(photo, faces))[: photo.shape[0]]
    for face in faces:
        thick = face.box.size / 30 + 3  # of the corners
        left, top, right, bottom = (
            round(face.box.left + thick), round(face.box.top + thick),
            round(face.box.left + face.box.size - thick), round(face.box.top + face.box.size - thick),
        )  # fmt: skip
        assert (drawn[top:bottom, left:right] == 120).all()
    plates = sum(int((drawn == colour).all(-1).sum()) for colour in COLOURS.values())
    assert plates > 150 * count


def test_probabilities_cover_no_caption() -> None:
    photo = np.full((700, 1200, 3), 120, np.uint8)
    faces = [reading(100, 100, 160, 0), reading(330, 130, 150, 1), reading(560, 330, 200, 2), reading(330, 480, 120, 4)]
    with_bars, without = (np.asarray(annotate(photo, faces, bars=bars)) for bars in (True, False))
    assert (with_bars != without).any()
    for colour in list(COLOURS.values()):
        plate = (without == colour).all(-1)
        assert (with_bars[plate] == colour).all()


def test_a_crowd_is_numbered_and_has_a_legend_below() -> None:
    photo = np.full((800, 1400, 3), 120, np.uint8)
    faces = [reading(30 + i % 8 * 170, 60 + i // 8 * 180, 90, i % 5) for i in range(_MAX_CAPTIONS + 1)]
    drawn = np.asarray(annotate(photo, faces))
    assert drawn.shape[1] == 1400
    assert drawn.shape[0] > 800
    for colour in COLOURS.values():
        assert (drawn[800:] == colour).all(-1).sum() > 50
    captions, numbered = _captions((1400, 800), faces, areas(faces))
    assert numbered
    assert [caption and caption.text for caption in captions] == [str(i) for i in range(1, len(faces) + 1)]
    fewer = np.asarray(annotate(photo, faces[:-1]))
    assert fewer.shape == photo.shape


def test_too_little_room_gives_a_legend_however_few_the_faces() -> None:
    faces = [reading(80 * i, 80 * j, 80, (i + j) % 5) for i, j in itertools.product(range(8), range(2))]
    drawn = annotate(np.full((160, 640, 3), 120, np.uint8), faces)
    assert drawn.width == 640
    assert drawn.height > 160
    captions, numbered = _captions((640, 160), faces, areas(faces))
    assert numbered
    for face, caption in zip(areas(faces), captions, strict=True):
        assert caption is not None
        assert (caption.area.right - caption.area.left) * (caption.area.bottom - caption.area.top) < 0.15 * 80 * 80
        assert caption.area.overlaps(face)


def test_a_crowd_without_emotions_has_no_legend() -> None:
    blank = np.full(5, np.nan, np.float32)
    faces = [replace(reading(30 * i, 100, 28), probabilities=blank) for i in range(40)]
    assert annotate(np.full((300, 1300, 3), 120, np.uint8), faces).size == (1300, 300)


def test_the_legend_joins_neighbouring_numbers() -> None:
    assert LegendEntry("Sad", (0, 0, 0), [1, 4, 7, 8, 9, 11, 12]).ranges == ["1,", "4,", "7-9,", "11,", "12"]
    assert LegendEntry("Sad", (0, 0, 0), [3]).ranges == ["3"]


@given(st.lists(st.integers(1, 60), min_size=1, unique=True).map(sorted))
def test_the_legend_names_every_face_once(numbers: list[int]) -> None:
    listed: list[int] = []
    for text in LegendEntry("Sad", (0, 0, 0), numbers).ranges:
        first, _, last = text.rstrip(",").partition("-")
        listed += range(int(first), int(last or first) + 1)
    assert listed == numbers


def test_every_emotion_is_in_the_legends_order() -> None:
    faces = [reading(10 + i % 8 * 75, 20 + i // 8 * 90, 40, 4 - i % 5) for i in range(25)]
    assert [entry.name for entry in _legend(faces)] == list(EMOTIONS)
    assert [entry.numbers for entry in _legend(faces)][4] == [1, 6, 11, 16, 21]
