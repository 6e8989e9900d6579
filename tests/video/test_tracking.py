"""Tracks keep their numbers through motion, occlusion, crossings and cuts, and faces are paired at the least cost."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from emotion_ai.contract import MEAN_FACE
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.video.appearance import as_text, blended, from_text, look_of
from emotion_ai.video.assignment import assign
from emotion_ai.video.tracking import Tracker
from emotion_ai.vision.crops import Box

FPS = 25
MEAN = np.array(MEAN_FACE, np.float32)


def face(left: float, top: float = 100, size: float = 100, points: bool = True) -> FaceReading:
    box = Box(left, top, size)
    found = box.to_photo(MEAN) if points else np.full_like(MEAN, np.nan)
    return FaceReading(MEAN, np.full(5, 0.2, np.float32), box, found, 0.9)


def picture(*people: tuple[float, int], width: int = 800, top: int = 100, size: int = 100) -> np.ndarray:
    """A gray wall with random patterns as faces: (left, person) each, the last one in front."""
    rgb = np.full((300, width, 3), 120, np.uint8)
    for left, person in people:
        pattern = np.random.default_rng(person).integers(0, 256, (8, 8, 3), np.uint8)
        rgb[top : top + size, round(left) : round(left) + size] = np.kron(pattern, np.ones((13, 13, 1), np.uint8))[
            :size, :size
        ]
    return rgb


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 10**6), st.floats(0.1, 2))
def test_pairs_have_the_least_total_cost(rows: int, columns: int, seed: int, unpaired: float) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.random((rows, columns))
    costs[rng.random(costs.shape) < 0.3] = np.inf
    pairs = assign(costs, unpaired)
    assert len(set(pairs.values())) == len(pairs)
    total = sum(costs[row, column] for row, column in pairs.items()) + unpaired * (rows - len(pairs))
    finite = np.where(costs <= unpaired, costs, 1e6)
    padded = np.concatenate([finite, np.where(np.eye(rows, dtype=bool), unpaired, 1e6)], 1)
    assert total == pytest.approx(padded[linear_sum_assignment(padded)].sum())


def test_a_face_that_moves_keeps_its_number() -> None:
    for speed, points in itertools.product((0, 100, 500), (True, False)):
        tracker = Tracker()
        assert [tracker([face(50 + speed * i / FPS, points=points)], i / FPS) for i in range(30)] == [[1]] * 30


def test_numbers_are_given_in_the_order_of_appearance_and_never_twice() -> None:
    tracker = Tracker()
    assert tracker([face(400), face(0)], 0) == [1, 2]
    assert tracker([face(0), face(800), face(401)], 0.04) == [2, 3, 1]
    assert tracker([], 0.08) == []
    assert tracker([face(400), face(1200)], 0.12) == [1, 4]


def test_a_face_behind_another_is_expected_where_its_motion_leads() -> None:
    """Both walk at the same height without looks; the second is hidden for half a second."""
    tracker = Tracker()
    for i in range(51):
        seconds = i / FPS
        first, second = face(100 + 200 * seconds), face(500 - 200 * seconds)
        hidden = 0.75 < seconds < 1.25
        faces = [first] if hidden else [first, second]
        assert tracker(faces, seconds) == ([1] if hidden else [1, 2])


def test_looks_decide_where_places_do_not() -> None:
    """Both stop behind each other and turn back: constant velocity alone would swap them."""
    for looks in (True, False):
        tracker = Tracker()
        for i in range(76):
            seconds = i / FPS
            way = min(seconds, 3 - seconds)
            lefts = (100 + 150 * way, 500 - 150 * way)
            rgb = picture((lefts[1], 2), (lefts[0], 1)) if looks else None
            hidden = abs(lefts[0] - lefts[1]) < 60
            numbers = tracker([face(left) for left in lefts[: 1 if hidden else 2]], seconds, rgb)
        if looks:
            assert numbers == [1, 2]


def test_somebody_else_in_the_same_place_is_a_new_person() -> None:
    tracker = Tracker()
    assert tracker([face(100)], 0.0, picture((100, 1))) == [1]
    assert tracker([face(100)], 1.0, picture((100, 2)), cut=True) == [2]


def test_a_person_is_recognised_after_a_cut_and_after_an_absence() -> None:
    tracker = Tracker()
    assert tracker([face(100), face(500)], 0.0, picture((100, 1), (500, 2))) == [1, 2]
    swapped = picture((100, 2), (500, 1))
    assert tracker([face(100), face(500)], 0.04, swapped, cut=True) == [2, 1]
    assert tracker([face(300)], 20.0, picture((300, 1))) == [1]
    assert tracker([face(300)], 100.0, picture((300, 1))) == [3], "forgotten after a minute"


def test_two_who_look_alike_are_not_guessed_apart() -> None:
    tracker = Tracker()
    tracker([face(100), face(500)], 0.0, picture((100, 1), (500, 1)))
    assert tracker([face(300)], 10.0, picture((300, 1))) == [3]


def test_a_face_of_another_size_is_another_face() -> None:
    tracker = Tracker()
    tracker([face(100, 100, 100)], 0)
    assert tracker([face(130, 130, 40)], 0.04) == [2]


def test_many_people_are_forgotten_in_the_end() -> None:
    tracker = Tracker()
    for i in range(400):
        assert tracker([face(0)], 3.0 * i) == [i + 1], "seen again after more than the occlusion, without looks"
    assert len(tracker.tracks) <= 21, "those of a minute"


def test_a_restored_tracker_continues_exactly() -> None:
    rng = np.random.default_rng(0)
    tracker, restored = Tracker(), Tracker()
    restored.restore(json.loads(json.dumps(tracker.state(), allow_nan=False)))
    for i in range(40):
        lefts = [100 + 7.3 * i, 500 - 7.1 * i]
        faces = [face(left + rng.normal(0, 1), size=100 + rng.normal(0, 1)) for left in lefts if rng.random() < 0.8]
        numbers = tracker(faces, i / FPS, picture((lefts[1], 2), (lefts[0], 1)))
        assert numbers == restored(faces, i / FPS, picture((lefts[1], 2), (lefts[0], 1)))
        assert tracker.state() == restored.state()
        state, restored = json.loads(json.dumps(tracker.state(), allow_nan=False)), Tracker()
        restored.restore(state)


def test_bad_settings_and_times_are_one_line() -> None:
    with pytest.raises(ConfigError, match="`occlusion` and `memory` must be >= 0, got -1 and 60"):
        Tracker(occlusion=-1)
    tracker = Tracker()
    tracker([face(0)], 1)
    for seconds in (1, 0.5, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="times must increase, got .* after 1 s"):
            tracker([face(0)], seconds)
    assert tracker([face(0)], 2) == [1], "an error leaves no trace"


def test_a_look_is_free_of_light_and_of_what_is_behind_the_face() -> None:
    box = Box(100, 100, 100)
    rgb = picture((100, 1)).astype(float)
    look = look_of(rgb.astype(np.uint8), box)
    assert np.linalg.norm(look) == pytest.approx(1, abs=1e-5)
    darker = look_of((rgb * 0.5 + 20).astype(np.uint8), box)
    assert look @ darker > 0.99
    framed = picture((100, 1))
    framed[:, :100] = framed[:, 200:] = 255
    assert look @ look_of(framed, box) > 0.99
    assert look @ look_of(picture((100, 2)), box) < 0.5
    assert not look_of(np.full((300, 300, 3), 90, np.uint8), box).any(), "a single colour looks like nothing"
    np.testing.assert_array_equal(from_text(as_text(look)), look)
    assert look @ blended(look, darker) > 0.99


def test_models_without_points_are_followed_by_their_boxes() -> None:
    tracker = Tracker()
    seen = face(100)
    assert tracker([seen], 0) == [1]
    assert tracker([replace(seen, points=np.full_like(MEAN, np.nan))], 0.04) == [1], "another version answers"
