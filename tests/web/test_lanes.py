"""What tracks show over time, how it is drawn, and what the Live tab remembers."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from emotion_ai.video.frames import TrackedFace
from emotion_ai.web.lanes import GAP_SECONDS, MAX_LANES, Lanes, Span, clock, draw_lanes, draw_legend
from emotion_ai.web.live_tab import SHOWN_SECONDS, LiveState
from tests.video.fakes import face, probabilities

CLASSES = ("Happy", "Sad", "Neutral")


def tracked(track: int, expression: str, confidence: float = 0.9) -> TrackedFace:
    reading = face(probabilities(expression, confidence))
    return TrackedFace(track, reading, reading)


def test_a_span_lasts_until_something_else_is_shown() -> None:
    lanes = Lanes()
    for number, expression in enumerate(("Happy", "Happy", "Sad", "Sad")):
        lanes.add(number * 0.1, [tracked(1, expression)])
    lanes.add(0.4, [tracked(1, "Sad", 0.5)])
    assert [(round(s.start, 6), round(s.end, 6), s.label) for s in lanes.tracks[1]] == [
        (0.0, 0.2, "Happy"),
        (0.2, 0.4, "Sad"),
        (0.4, 0.4, "uncertain"),
    ]


def test_a_face_that_was_away_begins_another_span() -> None:
    lanes = Lanes()
    for seconds in (0.0, GAP_SECONDS, 2 * GAP_SECONDS + 0.1):
        lanes.add(seconds, [tracked(1, "Happy")])
    assert [(span.start, span.end) for span in lanes.tracks[1]] == [
        (0.0, GAP_SECONDS),
        (2 * GAP_SECONDS + 0.1, 2 * GAP_SECONDS + 0.1),
    ]


def test_what_is_older_than_the_memory_is_forgotten() -> None:
    lanes = Lanes(memory=10)
    for number in range(1000):
        lanes.add(number * 0.1, [tracked(1 + number // 100, ("Happy", "Sad")[number % 2])])
    assert sorted(lanes.tracks) == [9, 10]
    assert sum(map(len, lanes.tracks.values())) <= 110


def test_lanes_are_drawn_to_scale_within_their_time() -> None:
    drawn = draw_lanes({1: [Span(0, 5, "Happy"), Span(8, 30, "uncertain")], 2: [Span(1, 2, "<b>")]}, 0, 10, CLASSES)
    places = re.findall(r"left:([\d.]+)%;width:([\d.]+)%", drawn)
    assert places == [("0.00", "50.00"), ("80.00", "20.00"), ("10.00", "10.00")]
    assert "repeating-linear-gradient" in drawn
    assert "<b>" not in drawn
    later = draw_lanes({1: [Span(0, 5, "Happy"), Span(8, 9, "Sad")]}, 6, 10, CLASSES)
    assert re.findall(r"left:([\d.]+)%;width:([\d.]+)%", later) == [("50.00", "25.00")]


def test_many_tracks_and_spans_stay_a_small_page() -> None:
    tracks = {n: [Span(i * 0.01, i * 0.01 + 0.005, "Happy") for i in range(2000)] for n in range(1, 50)}
    tracks[7] = [Span(0, 20, "Sad")]
    drawn = draw_lanes(tracks, 0, 20, CLASSES)
    assert drawn.count('ea-lane"') == MAX_LANES
    assert len(drawn) < 10_000
    legend = draw_legend(tracks, CLASSES)
    assert f"{49 - MAX_LANES} more tracks" in legend
    assert legend.count("</i>") == 2


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00.0"), (62.54, "1:02.5"), (59.96, "1:00.0"), (600, "10:00.0")])
def test_times(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_live_face_is_smoothed(monkeypatch: pytest.MonkeyPatch) -> None:
    now, rng, state = [100.0], np.random.default_rng(0), LiveState()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    raw, smoothed = [], []
    for number in range(40):
        now[0] += 0.15
        named = face(probabilities("Happy" if number % 8 else "Sad", 0.8))
        (found,) = state.add([replace(named, points=named.points + rng.normal(0, 1, (15, 2)).astype(np.float32))])
        raw.append(found.raw)
        smoothed.append(found.reading)
    rest = [np.std([reading.points for reading in readings[10:]], 0).mean() for readings in (raw, smoothed)]
    assert rest[1] < 0.8 * rest[0]
    assert {reading.emotion for reading in raw[10:]} == {"Happy", "Sad"}
    assert {reading.emotion for reading in smoothed[10:]} == {"Happy"}, "a single frame does not flicker"


def test_a_live_face_keeps_its_number_and_has_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    state = LiveState()
    for number in range(10):
        now[0] += 0.2
        faces = [face(probabilities("Happy"), left=300.0), face(probabilities("Sad"), left=3.0 * number)]
        first, second = state.add(faces)
        assert (first.track, second.track) == (1, 2), "from left to right in the first frame"
        assert (first.reading.emotion, second.reading.emotion) == ("Sad", "Happy")
    now[0] += 0.2
    assert state.add([]) == ()
    shown = state.timeline()
    assert shown.count('"ea-lane"') == 2
    assert "Happy" in shown
    now[0] += SHOWN_SECONDS + 1
    state.add([])
    assert '"ea-lane"' not in state.timeline()
