"""Events: one for each time that a person shows an expression, at its right time."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.video.events import Event, EventFinder
from emotion_ai.video.frames import FrameReading, TrackedFace
from emotion_ai.vision.quality import FaceQuality
from tests.video.fakes import Shown, face, frame, frames, probabilities


def found(readings: Iterable[FrameReading], finder: EventFinder | None = None) -> list[Event]:
    finder = finder or EventFinder()
    events = [event for reading in readings for event in finder(reading).ended]
    return [*events, *finder.finish().ended]


def spans(events: Iterable[Event]) -> list[tuple[int, str, float, float]]:
    ordered = sorted(events, key=lambda event: (event.track, event.start))
    return [(event.track, event.expression, round(event.start, 2), round(event.end, 2)) for event in ordered]


def test_each_occurrence_is_one_event_with_its_times() -> None:
    script: dict[int, list[Shown]] = {
        1: [(1, 3, "Happy"), (3, 5, "Sad"), (8, 8.6, "Happy")],
        2: [(2, 4, "Angry"), (4, 6, "")],
    }
    assert spans(found(frames(script, 10))) == [
        (1, "Happy", 1, 3),
        (1, "Sad", 3, 5),
        (1, "Happy", 8, 8.6),
        (2, "Angry", 2, 4),
    ]


def test_an_event_has_its_mean_confidence_and_its_peak() -> None:
    readings = [
        frame(i, i / 10, {1: face(probabilities("Happy", confidence))})
        for i, confidence in enumerate([0.6, 0.7, 0.95, 0.8, 0.7, 0.6])
    ]
    (event,) = found(readings)
    assert event.confidence == pytest.approx(0.725)
    assert event.peak == pytest.approx(0.2)
    assert event.as_dict() == {
        "track": 1,
        "start": 0.0,
        "end": 0.6,
        "expression": "Happy",
        "confidence": 0.725,
        "peak": 0.2,
    }


def test_what_holds_for_less_than_hold_is_no_event() -> None:
    assert spans(found(frames({1: [(1, 1.48, "Happy"), (2, 2.52, "Sad")]}, 5))) == [(1, "Sad", 2, 2.52)]
    assert spans(found(frames({1: [(1, 2.9, "Happy")]}, 5), EventFinder(hold=2))) == []


def test_flashes_do_not_add_up_to_an_event() -> None:
    flashes = [(i * 0.5, i * 0.5 + 0.1, "Happy") for i in range(20)]
    assert found(frames({1: flashes}, 10)) == []


def test_neutral_is_no_event() -> None:
    assert found(frames({1: []}, 3)) == []


@pytest.mark.parametrize("between", ["", "Sad", "Neutral"])
def test_an_interruption_belongs_to_the_event_if_it_is_short(between: str) -> None:
    def script(gap: float) -> Mapping[int, list[tuple[float, float, str]]]:
        return {1: [(1, 3, "Happy"), (3, 3 + gap, between), (3 + gap, 7, "Happy")]}

    assert spans(found(frames(script(0.4), 9))) == [(1, "Happy", 1, 7)]
    assert len(found(frames(script(0.4), 9), EventFinder(gap=0.2, cooldown=0))) == 2


def test_a_long_interruption_separates_events() -> None:
    script = {1: [(1, 3, "Happy"), (5, 7, "Happy")]}
    assert spans(found(frames(script, 9))) == [(1, "Happy", 1, 3), (1, "Happy", 5, 7)]


def test_flicker_around_the_threshold_is_one_event() -> None:
    rng = np.random.default_rng(0)
    readings = [
        frame(i, i / 25, {1: face(probabilities("Happy", float(np.clip(rng.normal(0.56, 0.05), 0.46, 0.99))))})
        for i in range(250)
    ]
    assert any(reading.faces[0].reading.uncertain for reading in readings)
    assert len(found(readings)) == 1


def test_hysteresis_keeps_an_event_while_another_class_is_barely_ahead() -> None:
    def script() -> Iterable[FrameReading]:
        for i in range(100):
            confidence = 0.6 if i < 50 else 0.47
            yield frame(i, i / 25, {1: face(probabilities("Happy", confidence, "Sad"), threshold=0.5)})

    assert spans(found(script())) == [(1, "Happy", 0, 4)]
    assert spans(found(script(), EventFinder(hysteresis=0))) == [(1, "Happy", 0, 2), (1, "Sad", 2, 4)]


def test_a_face_that_cannot_be_judged_interrupts() -> None:
    blurred = FaceQuality(size=90, sharpness=0.0, brightness=100, contrast=50)
    sure = face(probabilities("Happy"))
    doubtful = replace(sure, quality=blurred)
    assert doubtful.doubts
    readings = [frame(i, i / 25, {1: sure if i < 50 else doubtful}) for i in range(150)]
    assert spans(found(readings)) == [(1, "Happy", 0, 2)]


def test_cooldown_drops_what_recurs_briefly_and_keeps_what_lasts() -> None:
    finder = EventFinder(cooldown=5)
    script: dict[int, list[Shown]] = {
        1: [(1, 3, "Happy"), (4.5, 5.5, "Happy"), (7, 12, "Happy")],
        2: [(3, 5, "Happy")],
    }
    assert spans(found(frames(script, 14), finder)) == [(1, "Happy", 1, 3), (1, "Happy", 7, 12), (2, "Happy", 3, 5)]
    other = {1: [(1, 3, "Happy"), (3, 5, "Sad")]}
    assert len(found(frames(other, 14), EventFinder(cooldown=5))) == 2  # of another expression


def test_a_change_of_expression_at_once_ends_one_event_and_begins_the_other() -> None:
    finder = EventFinder()
    changes = [finder(reading) for reading in frames({1: [(0, 2, "Happy"), (2, 4, "Sad")]}, 3.9)]
    began = [(event.expression, event.start) for change in changes for event in change.began]
    assert began == [("Happy", 0), ("Sad", 2)]
    assert [event.end for change in changes for event in change.ended] == [2]
    last = finder.finish()
    assert [event.expression for event in last.ended] == ["Sad"]
    assert not last.began


def test_the_beginning_and_the_end_have_the_same_key() -> None:
    finder = EventFinder()
    changes = [finder(reading) for reading in frames({1: [(0, 2, "Happy")]}, 5)]
    (began,) = [event for change in changes for event in change.began]
    (ended,) = [event for change in changes for event in change.ended]
    assert began.key == ended.key == "1-Happy-0.000"


def test_an_event_that_has_held_when_the_video_ends_begins_then() -> None:
    finder = EventFinder(hold=0.6)
    for reading in frames({1: [(0.4, 1, "Happy")]}, 1):
        assert not finder(reading).began
    last = finder.finish()
    assert spans(last.began) == spans(last.ended) == [(1, "Happy", 0.4, 1)]


def test_frames_that_are_far_apart() -> None:
    script = {1: [(4, 10, "Happy"), (10, 20, "Sad")]}
    assert spans(found(frames(script, 24, fps=0.5))) == [(1, "Happy", 4, 10), (1, "Sad", 10, 20)]


def test_a_standstill_is_not_shown_time() -> None:
    readings = list(frames({1: [(0, 9, "Happy")]}, 4))
    later = [replace(reading, seconds=reading.seconds + 60) for reading in readings[50:]]
    assert spans(found([*readings[:50], *later])) == [(1, "Happy", 0, 2), (1, "Happy", 62, 64)]


def test_without_emotions_there_are_no_events() -> None:
    nothing = replace(face(probabilities("Happy")), probabilities=np.full(5, np.nan, np.float32), expressions=None)
    assert found([frame(i, i / 25, {1: nothing}) for i in range(100)]) == []


def test_a_restored_finder_goes_on_exactly() -> None:
    rng = np.random.default_rng(1)

    def restless(number: int) -> FaceReading:
        shown = 5 * (np.arange(7) == number // 6 % 5)
        return face(rng.dirichlet(0.3 + shown).astype(np.float32))

    readings = [frame(i, i / 25, {1: restless(i), 2 + i // 300: restless(i + 3)}) for i in range(600)]
    whole = EventFinder(hold=0.08, gap=0.12, cooldown=0.3)
    resumed = EventFinder(hold=0.08, gap=0.12, cooldown=0.3)
    count = 0
    for reading in readings:
        changes = whole(reading)
        assert resumed(reading) == changes
        count += len(changes.ended)
        state = json.loads(json.dumps(resumed.state()))
        resumed = EventFinder(hold=0.08, gap=0.12, cooldown=0.3)
        resumed.restore(state)
    assert resumed.finish() == whole.finish()
    assert count > 20


def test_memory_does_not_grow_with_tracks_that_are_gone() -> None:
    finder = EventFinder()
    sizes = []
    for i in range(3000):
        finder(frame(i, i / 25, {1 + i // 50: face(probabilities("Happy"))}))
        sizes.append(len(json.dumps(finder.state())))
    assert max(sizes[2000:]) < 1.2 * max(sizes[200:1000])


@pytest.mark.parametrize("settings", [{"hold": -1}, {"gap": math.nan}, {"cooldown": math.inf}, {"hysteresis": 2}])
def test_settings_are_checked(settings: dict[str, float]) -> None:
    (name,) = settings
    with pytest.raises(ConfigError, match=f"`{name}` must be"):
        EventFinder(**settings)


def test_times_must_increase() -> None:
    finder = EventFinder()
    finder(FrameReading(0, 1.0, (), np.zeros((1, 1, 3), np.uint8)))
    with pytest.raises(ConfigError, match="times must increase"):
        finder(frame(1, 1.0, {}))


def test_smoothed_readings_decide() -> None:
    happy, sad = face(probabilities("Happy")), face(probabilities("Sad"))
    readings = [
        FrameReading(i, i / 25, (TrackedFace(1, happy, sad),), np.zeros((1, 1, 3), np.uint8)) for i in range(50)
    ]
    assert {event.expression for event in found(readings)} == {"Happy"}


def test_single_wrong_frames_neither_prolong_nor_split_nor_hide_an_event() -> None:
    flicker = [(2.2, 2.24, "Angry"), (2.6, 2.64, "Neutral"), (3.2, 3.24, "Happy"), (3.8, 3.84, "Happy")]
    shown = [(1, 2.2, "Happy"), (2.24, 2.6, "Happy"), (2.64, 3, "Happy")]
    assert spans(found(frames({1: [*flicker, *shown]}, 6))) == [(1, "Happy", 1, 3)]


def test_a_return_counts_once_it_has_lasted_as_long_as_the_interruption() -> None:
    def script(back: float) -> Mapping[int, list[Shown]]:
        return {1: [(1, 3, "Happy"), (3.3, 3.3 + back, "Happy")]}

    assert spans(found(frames(script(0.28), 6, fps=50))) == [(1, "Happy", 1, 3)]
    assert spans(found(frames(script(0.3), 6, fps=50))) == [(1, "Happy", 1, 3.6)]
    assert spans(found(frames(script(0.5), 6, fps=50))) == [(1, "Happy", 1, 3.8)]


@pytest.mark.parametrize("fps", [2.0, 5.0, 25.0])
def test_one_or_two_frames_are_no_event(fps: float) -> None:
    few: dict[int, list[Shown]] = {1: [(4, 4 + 1.5 / fps, "Sad"), (10, 10 + 2 / fps, "Happy")]}
    assert found(frames(few, 14, fps), EventFinder(hold=0.04)) == []
    three: dict[int, list[Shown]] = {1: [(4, 4 + 3 / fps, "Sad")]}
    assert len(found(frames(three, 14, fps), EventFinder(hold=0.04))) == 1


def test_without_hold_each_verdict_is_an_event() -> None:
    finder = EventFinder(hold=0, gap=0, cooldown=0, hysteresis=0)
    events = found(frames({1: [(1, 1.04, "Happy"), (1.04, 1.08, "Sad"), (2, 3, "Sad")]}, 4), finder)
    assert spans(events) == [(1, "Happy", 1, 1.04), (1, "Sad", 1.04, 1.08), (1, "Sad", 2, 3)]


def test_a_face_between_two_expressions_shows_neither() -> None:
    names = ("Happy", "Sad")
    readings = [frame(i, i / 25, {1: face(probabilities(names[i % 2]))}) for i in range(500)]
    assert found(readings) == []
