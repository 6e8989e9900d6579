"""Readings are drawn where they are, legibly on any size, on a copy."""

from dataclasses import replace

import numpy as np
import pytest

from emotion_ai.class_set import FIVE
from emotion_ai.contract import EMOTIONS, KEYPOINTS, MEAN_FACE
from emotion_ai.inference.drawing import _PAPER, _POINT_COLOURS, _point_colour, annotate
from emotion_ai.inference.results import FaceReading
from emotion_ai.vision.crops import Box

MEAN = np.array(MEAN_FACE, np.float32)

COLOURS = {name: tuple(bytes.fromhex(FIVE.color(name)[1:])) for name in EMOTIONS}


def reading(left: float, top: float, size: float, emotion: int | None = 3) -> FaceReading:
    box = Box(left, top, size)
    probabilities = np.full(5, np.nan if emotion is None else 0.05, np.float32)
    if emotion is not None:
        probabilities[emotion] = 0.8
    return FaceReading(MEAN, probabilities, box, box.to_photo(MEAN), 0.9)


def test_every_point_and_emotion_has_a_colour() -> None:
    assert {_point_colour(name) for name in KEYPOINTS} == set(_POINT_COLOURS.values())
    assert _point_colour("left_eyebrow_inner_end") != _point_colour("left_eye_inner_corner")


@pytest.mark.parametrize("size", [(900, 900), (1800, 1200)])
def test_dots_lie_on_their_points(size: tuple[int, int]) -> None:
    photo = np.full((size[1], size[0], 3), 120, np.uint8)
    face = reading(250.4, 300.7, 480)
    drawn = np.asarray(annotate(photo, [face]))
    assert drawn.shape == photo.shape
    assert (photo == 120).all()
    for name, (x, y) in zip(KEYPOINTS, face.points, strict=True):
        ink = drawn[round(float(y)), round(float(x))].astype(int)
        assert np.abs(ink - _point_colour(name)).max() < 20, name


def test_small_photos_are_enlarged_and_points_with_them() -> None:
    face = reading(2, 3, 90)
    drawn = np.asarray(annotate(np.full((100, 100, 3), 120, np.uint8), [face]))
    assert drawn.shape == (640, 640, 3)
    x, y = (face.points[10] + 0.5) * 6.4 - 0.5
    assert drawn[round(float(y)), round(float(x))].min() > 230, "the nose's white dot"


def test_the_caption_has_the_emotions_colour_and_the_rest_stays_untouched() -> None:
    photo = np.full((1000, 1000, 3), 120, np.uint8)
    for emotion, colour in enumerate(COLOURS.values()):
        drawn = np.asarray(annotate(photo, [reading(300, 300, 300, emotion)]))
        assert (drawn[:290] == colour).all(-1).sum() > 1000
    assert (drawn[700:] == 120).all()
    plain = np.asarray(annotate(photo, [reading(300, 300, 300, None)]))
    assert (plain[:280] == 120).all(), "no caption without an emotion"


def test_an_uncertain_emotion_is_not_coloured_as_one() -> None:
    photo = np.full((1000, 1000, 3), 120, np.uint8)
    drawn = np.asarray(annotate(photo, [replace(reading(300, 300, 300), uncertain_below=0.9)]))
    assert not (drawn[:290] == COLOURS["Happy"]).all(-1).any()
    assert (drawn[:290] == _PAPER).all(-1).sum() > 1000


@pytest.mark.parametrize("box", [(-50, -60, 300), (500, 380, 300), (0, 0, 640), (-400, -400, 2000), (5, 5, 3)])
def test_faces_at_and_beyond_the_edge(box: tuple[float, float, float]) -> None:
    drawn = annotate(np.full((480, 640, 3), 120, np.uint8), [reading(*box)])
    assert drawn.size == (640, 480)
    assert (np.asarray(drawn) != 120).any()


def test_captions_of_neighbours_do_not_cover_each_other() -> None:
    photo = np.full((700, 1600, 3), 120, np.uint8)
    faces = [reading(100 + 140 * i, 200, 130, i % 5) for i in range(10)]
    drawn = np.asarray(annotate(photo, faces))
    for i, face in enumerate(faces):
        colour = list(COLOURS.values())[i % 5]
        middle = slice(int(face.box.left), int(face.box.left + face.box.size))
        assert (drawn[:, middle] == colour).all(-1).sum() > 300, i


def test_no_readings_give_the_photo() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(annotate(photo, [])), photo)


def test_ellipses_hold_95_percent() -> None:
    photo = np.full((1000, 1000, 3), 120, np.uint8)
    deviations = np.tile(np.array([24, 12], np.float32) / np.float32(2.4477), (15, 1))
    face = replace(reading(100, 100, 800), deviations=deviations)
    dots = np.asarray(annotate(photo, [face])).astype(int)
    drawn = np.asarray(annotate(photo, [face], ellipses=True)).astype(int)
    x, y = face.points[KEYPOINTS.index("nose_tip")]
    white = np.array(_point_colour("nose_tip"))
    for dx, dy in ((24, 0), (-24, 0), (0, 12), (0, -12), (17, 8.5)):  # 24 and 12, and half-way around
        near = drawn[round(y + dy) - 2 : round(y + dy) + 3, round(x + dx) - 2 : round(x + dx) + 3]
        assert np.abs(near - white).max(-1).min() < 30, (dx, dy)
    assert (drawn[round(y), round(x + 18)] > 140).all(), "its inside is tinted"
    for dx, dy in ((29, 0), (0, 16), (22, 10)):
        np.testing.assert_array_equal(drawn[round(y + dy), round(x + dx)], dots[round(y + dy), round(x + dx)])


def test_without_deviations_there_is_no_ellipse() -> None:
    photo = np.full((700, 700, 3), 120, np.uint8)
    plain = np.asarray(annotate(photo, [reading(100, 100, 400)]))
    np.testing.assert_array_equal(np.asarray(annotate(photo, [reading(100, 100, 400)], ellipses=True)), plain)
    face = replace(reading(100, 100, 400), deviations=np.full((15, 2), 9, np.float32))
    np.testing.assert_array_equal(np.asarray(annotate(photo, [face])), plain)


def test_names_are_written_beside_a_large_face_and_numbers_in_a_crowd() -> None:
    photo = np.full((700, 1600, 3), 120, np.uint8)
    alone, crowd = [reading(600, 200, 300)], [reading(300 + 320 * i, 200, 300) for i in range(3)]
    for faces, beside in ((alone, True), (crowd, False)):
        plain, named = (np.asarray(annotate(photo, faces, names=names, bars=False)) for names in (False, True))
        changed = (plain != named).any(-1)
        assert changed.any()
        left = int(faces[0].box.left)
        assert bool(changed[:, left - 150 : left - 20].any()) == beside
    small = [reading(100, 100, 90)]
    assert annotate(photo, small, bars=False) == annotate(photo, small, names=True, bars=False)


@pytest.mark.parametrize("place", [(-90.5, 10.0), (159.6, 10.0), (10.0, 119.9), (500.0, 10.0), (10.0, -300.0)])
def test_a_face_that_leaves_the_picture_is_cut_off(place: tuple[float, float]) -> None:
    photo = np.full((120, 160, 3), 120, np.uint8)
    gone = reading(*place, 91)
    drawn = np.asarray(annotate(photo, [gone, reading(20, 20, 60)], tracks=[1, 2]))
    alone = np.asarray(annotate(photo, [reading(20, 20, 60)], tracks=[2]))
    if place in ((500.0, 10.0), (10.0, -300.0)):
        np.testing.assert_array_equal(drawn, alone)
    assert drawn.shape == alone.shape
