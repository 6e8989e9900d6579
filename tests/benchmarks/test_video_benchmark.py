"""The video benchmark's measures on the scripted clip."""

import pytest

from emotion_ai.benchmarks.video import TimedSecond, identities, main, ratio, repeated
from emotion_ai.video import read
from emotion_ai.video.script import SECONDS, ScriptedClip


def test_numbers_and_times_of_a_repeated_clip_go_on() -> None:
    clip = ScriptedClip(1)
    frames = list(repeated(clip, 2))
    assert [frame.number for frame in frames] == list(range(120))
    assert frames[60].seconds == SECONDS


def test_identities_of_the_truth_are_perfect_and_swapped_ones_are_counted() -> None:
    clip = ScriptedClip(2, end=12)
    right = list(read(clip, clip.reader()))
    assert identities(clip, right) == (1.0, 0)
    before, after = (list(read(ScriptedClip(2, start=start, end=start + 4), clip.reader())) for start in (0, 18))
    idf1, switches = identities(clip, before + after)
    assert switches == 2, "numbered from left to right again, after they have crossed"
    assert idf1 < 0.8


def test_the_ratio_is_paired() -> None:
    seconds = [TimedSecond(load, 3 * load, 2) for load in (0.01, 0.05, 0.2)]
    value, interval, count = ratio(seconds)
    assert interval is not None
    assert (value, interval.low, interval.high) == pytest.approx((3, 3, 3))
    assert count == 3
    assert ratio(seconds[:1]) == (None, None, 1)


def test_the_command_refuses_bad_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["--fps", "0"], ["--minutes", "0"], ["--end", "0"]):
        monkeypatch.setattr("sys.argv", ["video", *arguments])
        with pytest.raises(SystemExit) as error:
            main()
        assert error.value.code == 2
