"""Events in readings that flicker, from 2 to 30 frames per second."""

import pytest

from emotion_ai.benchmarks.events import FPS, EventScore, event_score, main, score
from emotion_ai.video.events import Event
from emotion_ai.video.script import ScriptedEvent

FEW_FRAMES = {(5.0, 0.2): 0.87, (2.0, 0.2): 0.85}
"""What can be asked where chance alone often makes two of an event's few frames wrong."""


@pytest.mark.parametrize("flicker", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("fps", FPS)
def test_events_are_found_at_their_times_whatever_the_frame_rate(fps: float, flicker: float) -> None:
    found = event_score(fps, flicker, clips=round(7 + 40 / fps), smooth=fps == 8)
    least = FEW_FRAMES.get((fps, flicker), 0.93)
    assert found.precision >= least
    assert found.recall >= least
    assert found.scripted > 15


def test_each_occurrence_counts_once() -> None:
    script = [ScriptedEvent(1, 2.0, 4.0, "Happy"), ScriptedEvent(1, 8.0, 9.0, "Sad")]
    twice = [Event(1, 2.1, 3.9, "Happy", 0.9, 3.0), Event(1, 2.0, 4.0, "Happy", 0.9, 3.0)]
    late = [Event(1, 8.6, 9.0, "Sad", 0.9, 8.7)]
    assert score(script, [*twice, *late]) == EventScore(1, 2, 3)


def test_the_command_refuses_bad_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["events", "--clips", "0"])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
