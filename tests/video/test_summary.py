"""Totals count each verdict's time, and the timeline shows it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from emotion_ai.class_set import SEVEN, UNCERTAIN
from emotion_ai.inference.tables import csv_text
from emotion_ai.video.frames import FrameReading
from emotion_ai.video.rows import error_row, frame_rows, video_columns
from emotion_ai.video.summary import Span, Totals, TrackTotals, lanes, shown_frames, total, totals_record
from emotion_ai.video.timeline import MAX_LANES, Timeline, clock, draw_timeline
from tests.video.fakes import face, frame, frames, probabilities


def table(path: Path, readings: Sequence[FrameReading]) -> Path:
    rows = [row for reading in readings for row in frame_rows("clip.mp4", reading)]
    path.write_text(csv_text(rows, video_columns(SEVEN.names)), encoding="utf-8")
    return path


def test_shares_of_time_have_neutral_and_uncertain_as_such(tmp_path: Path) -> None:
    readings = list(frames({1: [(0, 4, "Happy"), (8, 10, "")], 2: [(0, 6, ""), (6, 10, "Sad")]}, 10))
    unsure = frame(250, 10.0, {1: face(probabilities("Happy", 0.52))})
    totals = total(table(tmp_path / "rows.csv", [*readings, unsure]))
    record = totals_record(totals, SEVEN.names, {1: 1})
    assert record["seconds"] == pytest.approx(10.04)
    assert record["face_seconds"] == pytest.approx(12.04)
    one, two = record["tracks"]
    assert one["shares"] == pytest.approx(
        dict.fromkeys(SEVEN.names, 0) | {"Happy": 4 / 8.04, "Neutral": 4 / 8.04, UNCERTAIN: 0.04 / 8.04}, abs=1e-4
    )
    assert two["shares"]["Sad"] == 1
    assert (two["first"], two["last"], two["seconds"], two["events"]) == (6, 10, 4, 0)
    assert (one["first"], one["last"], one["events"]) == (0, 10.04, 1)
    assert record["shares"]["Sad"] == pytest.approx(4 / 12.04, abs=1e-4)


def test_a_frame_counts_until_the_next_one(tmp_path: Path) -> None:
    happy, sad = face(probabilities("Happy")), face(probabilities("Sad"))
    readings = [frame(0, 0.0, {1: happy}), frame(1, 0.1, {1: sad}), frame(2, 5.0, {}), frame(3, 5.2, {1: sad})]
    path = table(tmp_path / "rows.csv", readings)
    assert [round(shown.end - shown.start, 6) for shown in shown_frames(path)] == [0.1, 4.9, 0.2, 0.2]
    assert [round(shown.end - shown.start, 6) for shown in shown_frames(path, longest=1)] == [0.1, 1, 0.2, 0.2]
    assert total(path).without_face == pytest.approx(0.2)
    assert total(path).tracks[1].shown == pytest.approx({"Happy": 0.1, "Sad": 5.1})


def test_one_frame_and_none(tmp_path: Path) -> None:
    path = table(tmp_path / "rows.csv", [frame(0, 0.0, {1: face(probabilities("Happy"))})])
    assert totals_record(total(path), SEVEN.names, {})["shares"]["Happy"] == 1
    empty = total(table(tmp_path / "rows.csv", []))
    assert (empty.frames, empty.seconds, empty.tracks) == (0, 0, {})
    assert totals_record(empty, SEVEN.names, {})["tracks"] == []


def test_failed_frames_are_no_frames_without_a_face(tmp_path: Path) -> None:
    rows = [error_row("clip.mp4", number, number / 10, "bad\nframe") for number in range(3)]
    path = tmp_path / "rows.csv"
    path.write_text(csv_text(rows, video_columns(SEVEN.names)), encoding="utf-8")
    totals = total(path)
    assert totals.failed == pytest.approx(0.3)
    assert totals.without_face == 0


def test_lanes_have_what_lasted_longest_in_each_part(tmp_path: Path) -> None:
    path = table(tmp_path / "rows.csv", list(frames({1: [(0, 4, "Happy"), (6, 8, "")]}, 10)))
    (spans,) = lanes(path, [1], 0, 10, bins=100).values()
    found = [(round(span.start, 6), round(span.end, 6), span.verdict) for span in spans]
    assert found == [(0, 4, "Happy"), (4, 6, "Neutral"), (8, 10, "Neutral")]
    assert lanes(path, [9], 0, 10) == {9: []}


def drawn(path: Path, timeline: Timeline) -> np.ndarray:
    draw_timeline(path, timeline)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def some(tracks: int, verdict: str | None, seconds: float = 10.0) -> Timeline:
    spans = {track: [Span(0, seconds, verdict)] for track in range(1, min(tracks, MAX_LANES) + 1)}
    totals = Totals(1, 0, seconds, seconds)
    totals.tracks = {track: TrackTotals(0, seconds, {verdict: seconds}) for track in range(1, tracks + 1)}
    return Timeline("clip $x$ \u4e2d.mp4", spans, [], SEVEN.names, totals)


@pytest.mark.parametrize("expression", ["Happy", "Neutral"])
def test_a_lane_has_the_colour_of_its_expression(tmp_path: Path, expression: str) -> None:
    picture = drawn(tmp_path / "timeline.png", some(1, expression))
    color = ImageColor.getrgb(SEVEN.color(expression))
    assert (picture == color).all(-1).mean() > 0.1


def test_uncertain_time_is_hatched(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "timeline.png", some(1, UNCERTAIN))
    lane = picture[130:170, 400:1600]  # white and gray lines across it
    assert len(np.unique(lane.reshape(-1, 3), axis=0)) > 5
    assert 0.2 < (lane > 240).all(-1).mean() < 0.9


@pytest.mark.parametrize("tracks", [0, 12, 40])
def test_lanes_are_drawn_up_to_a_limit(tmp_path: Path, tracks: int) -> None:
    heights = [drawn(tmp_path / "timeline.png", some(count, "Happy")).shape[0] for count in (1, tracks)]
    assert heights[1] - heights[0] == pytest.approx((min(max(tracks, 1), MAX_LANES) - 1) * 78, abs=2)


def test_without_emotions_a_lane_shows_when_a_face_is_seen(tmp_path: Path) -> None:
    assert (drawn(tmp_path / "timeline.png", some(1, None)) == (0x8F, 0xA3, 0xBF)).all(-1).mean() > 0.1


def test_times_on_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 61, 3600, 3725)] == ["0:00", "1:01", "1:00:00", "1:02:05"]
