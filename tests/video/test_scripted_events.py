"""The scripted clip, from its frames to its events: each that is shown is found once, at its time, and no other."""

import pytest

from emotion_ai.video.events import Event, EventFinder
from emotion_ai.video.reading import VideoReader
from emotion_ai.video.script import EVENTS, ScriptedClip, ScriptedEvent

TOLERANCE = 0.5
FPS = 8.0


@pytest.fixture(scope="module")
def events() -> list[Event]:
    clip = ScriptedClip(FPS)
    read, find = VideoReader(clip.reader()), EventFinder()
    found = [event for frame in clip for event in find(read(frame)).ended]
    return [*found, *find.finish().ended]


def fits(event: Event, scripted: ScriptedEvent) -> bool:
    times = abs(event.start - scripted.start), abs(event.end - scripted.end)
    return event.expression == scripted.expression and max(times) <= TOLERANCE


def test_events_are_found_once_at_their_times(events: list[Event]) -> None:
    matched = [[event for event in events if fits(event, scripted)] for scripted in EVENTS]
    assert all(len(found) <= 1 for found in matched), "one event per occurrence"
    assert sum(map(len, matched)) == len(EVENTS) == len(events)


def test_each_person_keeps_a_track_within_a_scene(events: list[Event]) -> None:
    tracks: dict[int, set[int]] = {1: set(), 2: set()}
    for scripted in EVENTS:
        if scripted.end < 24:  # before the cut, the crossing included
            tracks[scripted.person].update(event.track for event in events if fits(event, scripted))
    assert all(len(found) == 1 for found in tracks.values())
    assert tracks[1] != tracks[2]
