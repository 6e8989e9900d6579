"""Seconds always increase, whatever a clock does."""

import math

import pytest

from emotion_ai.video.times import Times, WallTimes


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ([3, 3.04, 3.08], [0, 0.04, 0.08]),
        ([None, None, None], [0, 0.04, 0.08]),
        ([5, None, 5.08], [0, 0.04, 0.08]),
        ([5, 5.04, 5.04, 5.08], [0, 0.04, 0.041, 0.08]),  # the same time twice delays nothing
        ([5, 5.04, 5.02, 5.08], [0, 0.04, 0.041, 0.08]),
        ([100, 100.04, 0, 0.04], [0, 0.04, 0.08, 0.12]),  # set anew
        ([0, math.nan, math.inf, 0.12], [0, 0.04, 0.08, 0.12]),
        ([0, 0.04, 50, 50.04], [0, 0.04, 50, 50.04]),  # a gap stays
        ([95443.68, 95443.72, 0.04, 95443.8, 0.12], [0, 0.04, 0.08, 0.12, 0.16]),  # starts anew between B-frames
        ([-1, -0.96], [0, 0.04]),
    ],
)
def test_times_of_a_file(clock: list[float | None], expected: list[float]) -> None:
    times = Times(25)
    assert [times(time) for time in clock] == pytest.approx(expected)


def test_times_of_a_live_source() -> None:
    wall = iter([100, 100, 100.1, 100.2, 130, 130.1, 130.1])
    times = WallTimes(lambda: next(wall))
    assert [times(time) for time in (7, 7.04, None)] == pytest.approx([0, 0.04, 0.2], abs=0.07)
    times.restart()
    assert [times(time) for time in (0, 0.04, 900)] == pytest.approx([30, 30.04, 30.1])
