"""Smoothing steadies faces at rest and follows moving ones, face by face, at any resolution."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from emotion_ai.contract import MEAN_FACE
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.video.smoothing import OneEuroFilter, Smoother
from emotion_ai.vision.crops import Box

FPS = 25
MEAN = np.array(MEAN_FACE, np.float32)
cutoffs = st.floats(0.1, 10)
betas = st.floats(0, 20)
steps = st.lists(st.floats(0.001, 1), min_size=30, max_size=30)


def face(
    left: float, top: float, size: float, probabilities: tuple[float, ...] = (0.1, 0.1, 0.1, 0.6, 0.1)
) -> FaceReading:
    box = Box(left, top, size)
    return FaceReading(MEAN, np.array(probabilities, np.float32), box, box.to_photo(MEAN), 0.9, uncertain_below=0.5)


def jittered(seed: int, count: int, speed: float = 0.0, noise: float = 0.005) -> list[FaceReading]:
    """A face of 200 pixels that moves by so many of its sizes a second; places are off by so many of its sizes."""
    rng, frames = np.random.default_rng(seed), []
    for i in range(count):
        left, top, size = np.array([100 + 200 * speed * i / FPS, 80, 200]) + rng.normal(0, 200 * noise, 3)
        seen = face(left, top, size, tuple(rng.dirichlet(40 * np.array([0.1, 0.1, 0.1, 0.6, 0.1]))))
        points = seen.points + rng.normal(0, 200 * noise, seen.points.shape).astype(np.float32)
        frames.append(replace(seen, points=points, keypoints=seen.box.to_crop(points)))
    return frames


def steadied(frames: list[FaceReading], **settings: float) -> list[FaceReading]:
    smooth = Smoother(**settings)
    return [smooth([frame], [1], i / FPS)[0] for i, frame in enumerate(frames)]


@given(arrays(float, 3, elements=st.floats(-1e6, 1e6)), cutoffs, betas, steps)
def test_what_is_constant_stays(values: np.ndarray, cutoff: float, beta: float, gaps: list[float]) -> None:
    smooth = OneEuroFilter(cutoff, beta)
    for seconds in np.cumsum(gaps):
        np.testing.assert_array_equal(smooth(values, seconds), values)


@given(arrays(float, (30, 2), elements=st.floats(-1e3, 1e3)), cutoffs, betas, steps)
def test_results_lie_between_the_values_so_far(
    values: np.ndarray, cutoff: float, beta: float, gaps: list[float]
) -> None:
    smooth = OneEuroFilter(cutoff, beta)
    for i, seconds in enumerate(np.cumsum(gaps)):
        result, seen = smooth(values[i], seconds), values[: i + 1]
        assert (result >= seen.min(0) - 1e-9).all()
        assert (result <= seen.max(0) + 1e-9).all()


@given(st.integers(0, 1000), st.floats(1e-3, 1e3), cutoffs, betas)
def test_units_do_not_matter(seed: int, scale: float, cutoff: float, beta: float) -> None:
    values = np.random.default_rng(seed).normal(size=(20, 3))
    plain, scaled = OneEuroFilter(cutoff, beta), OneEuroFilter(cutoff, beta)
    for i, row in enumerate(values):
        result = scaled(row * scale, i / FPS, unit=scale)
        np.testing.assert_allclose(result, plain(row, i / FPS) * scale, rtol=1e-9, atol=1e-9 * scale)


@given(st.floats(0.01, 10), cutoffs, st.floats(0.5, 20), st.sampled_from([10, 25, 60]))
def test_the_lag_behind_a_ramp_is_bounded(speed: float, cutoff: float, beta: float, fps: int) -> None:
    """At a steady speed v a low-pass lags by v / (2 pi (min_cutoff + beta v)): by less than 1 / (2 pi beta)."""
    smooth = OneEuroFilter(cutoff, beta)
    lag = [speed * i / fps - float(smooth(speed * i / fps, i / fps)) for i in range(10 * fps)]
    assert min(lag) > -1e-9
    assert lag[-1] <= speed / (2 * np.pi * (cutoff + beta * speed)) * 1.001


def test_it_is_the_filter_of_the_paper() -> None:
    """By hand, from the paper's algorithm 1: min_cutoff 1, beta 0.5, d_cutoff 1, at 10 Hz."""

    def alpha(cutoff: float) -> float:
        tau, period = 1 / (2 * np.pi * cutoff), 0.1
        return 1 / (1 + tau / period)

    smooth = OneEuroFilter(1, 0.5, 1)
    assert smooth(2.0, 0.0) == 2
    speed = alpha(1) * (3.0 - 2.0) * 10
    first = 2 + alpha(1 + 0.5 * speed) * (3 - 2)
    assert smooth(3.0, 0.1) == pytest.approx(first)
    speed = alpha(1) * (1.0 - first) * 10 + (1 - alpha(1)) * speed
    assert smooth(1.0, 0.2) == pytest.approx(first + alpha(1 + 0.5 * abs(speed)) * (1 - first))


def test_nan_stays_nan_and_starts_afresh() -> None:
    smooth = OneEuroFilter()
    smooth([1.0, 2.0], 0)
    np.testing.assert_array_equal(np.isnan(smooth([1.0, np.nan], 1)), [False, True])
    np.testing.assert_array_equal(smooth([1.0, 9.0], 2), [1, 9])


def test_bad_settings_and_times_are_one_line() -> None:
    for settings in ({"min_cutoff": 0}, {"beta": -1}, {"d_cutoff": -1}, {"min_cutoff": float("nan")}):
        with pytest.raises(ConfigError, match="must be > 0 and `beta` >= 0"):
            OneEuroFilter(**settings)
    smooth = OneEuroFilter()
    smooth([1.0], 5)
    for seconds in (5, 4.9, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="times must increase, got .* s after 5 s"):
            smooth([1.0], seconds)
    with pytest.raises(ConfigError, match=r"must stay \(1,\), got \(2,\)"):
        smooth([1.0, 2.0], 6)
    assert smooth([1.0], 6) == 1, "an error leaves no trace"
    steady = Smoother()
    steady([], [], 1)
    with pytest.raises(ConfigError, match="got 1 s after 1 s"):
        steady([face(0, 0, 100)], [1], 1)


def test_a_face_at_rest_jitters_less() -> None:
    frames = jittered(0, 200)
    calm = steadied(frames)[50:]
    parts: list[Callable[[FaceReading], NDArray[np.float32] | float]] = [
        lambda reading: reading.points,
        lambda reading: reading.probabilities,
        lambda reading: reading.box.left,
    ]
    for part in parts:
        before, after = (
            np.std([np.asarray(part(reading)) for reading in some], axis=0) for some in (frames[50:], calm)
        )
        assert (after < 0.65 * before).all()


def test_a_moving_face_is_followed() -> None:
    for speed in (0.2, 1.0, 3.0):
        frames = jittered(0, 75, speed, noise=0)
        lag = frames[-1].points - steadied(frames)[-1].points
        assert 0 <= lag[:, 0].max() / 200 < 1 / (2 * np.pi * Smoother().beta)


@given(st.integers(0, 100), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_the_resolution_does_not_matter(seed: int, scale: float) -> None:
    frames = jittered(seed, 12, speed=0.5)
    larger = [
        replace(
            f, box=Box(*(scale * np.array([f.box.left, f.box.top, f.box.size]))), points=f.points * np.float32(scale)
        )
        for f in frames
    ]
    for one, other in zip(steadied(frames), steadied(larger), strict=True):
        np.testing.assert_allclose(one.points * scale, other.points, rtol=1e-5)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_readings_stay_whole() -> None:
    for reading in steadied(jittered(0, 20, speed=1)):
        np.testing.assert_allclose(reading.box.to_photo(reading.keypoints), reading.points, atol=1e-3)
        assert reading.probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert reading.points.dtype == reading.keypoints.dtype == reading.probabilities.dtype == np.float32
        assert (reading.score, reading.uncertain_below) == (0.9, 0.5)


def test_a_model_without_emotions_is_smoothed_too() -> None:
    frames = [replace(f, probabilities=np.full(5, np.nan, np.float32)) for f in jittered(0, 5)]
    assert all(reading.emotion is None for reading in steadied(frames))


def test_each_track_is_smoothed_with_its_own_past() -> None:
    """Two faces pass along, a third comes, the order changes, one is gone for a while."""
    smooth = Smoother()
    smooth([face(0, 0, 100), face(200, 0, 100)], [1, 2], 0.0)
    second, first = smooth([face(210, 0, 100), face(10, 0, 100)], [2, 1], 0.04)
    assert 0 < first.box.left < 10
    assert 200 < second.box.left < 210
    fresh, first = smooth([face(500, 0, 100), face(10, 0, 100)], [3, 1], 0.08)
    assert fresh.box.left == 500
    again = smooth([face(220, 0, 100)], [2], 0.4)[0]
    assert 210 < again.box.left < 220, "it was gone for less than half a second"
    assert smooth([face(230, 0, 100)], [2], 1.0)[0].box.left == 230, "it starts afresh after it"


def test_forgetting_starts_each_track_afresh() -> None:
    smooth = Smoother()
    smooth([face(0, 0, 100)], [1], 0.0)
    smooth.forget()
    assert smooth([face(50, 0, 100)], [1], 0.04)[0].box.left == 50


def test_a_restored_smoother_continues_exactly() -> None:
    """Through JSON, with an output that is NaN and one that has not been seen yet."""
    frames = jittered(3, 30, speed=1)
    smooth, restored = Smoother(), Smoother()
    restored.restore(json.loads(json.dumps(smooth.state(), allow_nan=False)))
    for i, frame in enumerate(frames):
        pointless = replace(frame, probabilities=np.full(5, np.nan, np.float32))
        pair = ([frame, pointless], [1, 2], i / FPS)
        for one, other in zip(smooth(*pair), restored(*pair), strict=True):
            assert one.box == other.box
            np.testing.assert_array_equal(one.points, other.points)
            np.testing.assert_array_equal(one.probabilities, other.probabilities)
        state, restored = json.loads(json.dumps(smooth.state(), allow_nan=False)), Smoother()
        restored.restore(state)


def test_a_roll_across_180_degrees_is_a_small_step() -> None:
    smooth, seen = Smoother(), face(100, 0, 100)
    rolls = [(179 + 0.5 * i + 180) % 360 - 180 for i in range(8)]
    for i, roll in enumerate(rolls):
        box = replace(seen.box, roll=roll)
        (smoothed,) = smooth([replace(seen, box=box, points=box.to_photo(MEAN))], [1], 1 + i / 25)
        assert smoothed.box.size == pytest.approx(100, rel=0.01)
        assert abs((smoothed.box.roll - roll + 180) % 360 - 180) < 3
        np.testing.assert_allclose(smoothed.box.to_photo(smoothed.keypoints), smoothed.points, atol=1e-3)
