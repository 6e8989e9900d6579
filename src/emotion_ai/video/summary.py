"""Totals of a video: for how long each person, and all of them, showed what."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from emotion_ai.class_set import UNCERTAIN
from emotion_ai.video.rows import read_columns

Verdict = str | None
"""A class, "uncertain", or None where the model has no emotions."""


@dataclass
class TrackTotals:
    """For how long one person was seen, and showed what.

    Attributes:
        first: seconds at which the person appeared.
        last: seconds until which they were seen.
        shown: seconds of each verdict.
    """

    first: float
    last: float
    shown: dict[Verdict, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """For how long the person was seen."""
        return sum(self.shown.values())


@dataclass
class Totals:
    """Totals of a video; a frame counts until the next one begins.

    Attributes:
        frames: with a reading or an error.
        start: seconds of the first frame.
        end: seconds at which the last one ends.
        seconds: of all frames; less than from start to end where a live source stood still.
        without_face: seconds of frames without a face.
        failed: seconds of frames that could not be read.
        tracks: by number.
    """

    frames: int = 0
    start: float = 0.0
    end: float = 0.0
    seconds: float = 0.0
    without_face: float = 0.0
    failed: float = 0.0
    tracks: dict[int, TrackTotals] = field(default_factory=dict)

    @property
    def shown(self) -> dict[Verdict, float]:
        """Seconds of each verdict, of all tracks together."""
        together: dict[Verdict, float] = {}
        for track in self.tracks.values():
            for verdict, seconds in track.shown.items():
                together[verdict] = together.get(verdict, 0.0) + seconds
        return together


@dataclass(frozen=True)
class ShownFrame:
    """One frame of a table: what was shown from `start` to `end`, in seconds, by whom; an error is its `error`."""

    start: float
    end: float
    verdicts: Mapping[int, Verdict]
    error: str | None = None


def shown_frames(rows: Path, longest: float | None = None) -> Iterator[ShownFrame]:
    """The frames of a table, each until the next one begins; the last one for as long as that before it.

    A single frame counts for 1/25 s.

    Args:
        rows: the table, CSV or Parquet.
        longest: seconds for which a frame counts at most, as where a live source stood still.

    Raises:
        OSError: the table cannot be read.
    """
    before: ShownFrame | None = None
    step = 0.04
    for frame in _frames(rows):
        if before is not None:
            step = frame.start - before.start
            step = step if longest is None else min(step, longest)
            yield ShownFrame(before.start, before.start + step, before.verdicts, before.error)
        before = frame
    if before is not None:
        yield ShownFrame(before.start, before.start + step, before.verdicts, before.error)


def _frames(rows: Path) -> Iterator[ShownFrame]:
    columns = read_columns(rows, ("frame", "seconds", "track", "emotion", "uncertain", "error"))
    for _, group in groupby(columns, key=lambda row: row["frame"]):
        found = list(group)
        verdicts = {
            row["track"]: UNCERTAIN if row["uncertain"] else row["emotion"] for row in found if row["track"] is not None
        }
        yield ShownFrame(found[0]["seconds"], found[0]["seconds"], verdicts, found[0]["error"])


def total(rows: Path, longest: float | None = None) -> Totals:
    """The totals of a table; arguments as for `shown_frames`."""
    totals = Totals()
    for frame in shown_frames(rows, longest):
        seconds = frame.end - frame.start
        totals.start = totals.start if totals.frames else frame.start
        totals.end = frame.end
        totals.frames += 1
        totals.seconds += seconds
        if frame.error:
            totals.failed += seconds
        elif not frame.verdicts:
            totals.without_face += seconds
        for track, verdict in frame.verdicts.items():
            own = totals.tracks.setdefault(track, TrackTotals(frame.start, frame.end))
            own.last = frame.end
            own.shown[verdict] = own.shown.get(verdict, 0.0) + seconds
    return totals


@dataclass(frozen=True)
class Span:
    """A verdict that a track shows from `start` to `end`, in seconds."""

    start: float
    end: float
    verdict: Verdict


def lanes(
    rows: Path, tracks: Sequence[int], start: float, end: float, bins: int = 1000, longest: float | None = None
) -> dict[int, list[Span]]:
    """What some tracks show over time, as spans in order; times in which a track is not seen are left out.

    Time is cut into `bins` equal parts, and each shows what lasted longest in it.

    Args:
        rows: the table.
        tracks: their numbers.
        start: seconds of the first frame.
        end: seconds of the end.
        bins: how many parts.
        longest: as for `shown_frames`.
    """
    width = max(end - start, 1e-9) / bins
    times: dict[int, dict[Verdict, Any]] = {track: {} for track in tracks}
    for frame in shown_frames(rows, longest):
        first, last = (frame.start - start) / width, (frame.end - start) / width
        for track, verdict in frame.verdicts.items():
            if track in times:
                own = times[track].setdefault(verdict, np.zeros(bins, np.float32))
                for i in range(max(int(first), 0), min(int(last) + 1, bins)):
                    own[i] += max(min(last, i + 1) - max(first, i), 0.0)
    return {track: _spans(shown, start, width) for track, shown in times.items()}


def _spans(shown: Mapping[Verdict, Any], start: float, width: float) -> list[Span]:
    verdicts = list(shown)
    if not verdicts:
        return []
    parts = np.array([shown[verdict] for verdict in verdicts])
    best = np.where(parts.sum(0) > 0, parts.argmax(0), -1)
    edges = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
    return [
        Span(start + width * first, start + width * last, verdicts[int(best[first])])
        for first, last in zip(edges[:-1], edges[1:], strict=True)
        if best[first] >= 0
    ]


def totals_record(totals: Totals, classes: Sequence[str], events: Mapping[int, int]) -> dict[str, Any]:
    """The totals for JSON: seconds, and shares of the time in which the face, or any face, was seen.

    Args:
        totals: of the video.
        classes: that the model names; each has a share, beside "uncertain".
        events: how many each track has.
    """
    return {
        "seconds": round(totals.seconds, 3),
        "seconds_without_face": round(totals.without_face, 3),
        "seconds_failed": round(totals.failed, 3),
        "face_seconds": round(sum(totals.shown.values()), 3),
        "shares": _shares(totals.shown, classes),
        "tracks": [
            {
                "track": number,
                "first": round(track.first, 3),
                "last": round(track.last, 3),
                "seconds": round(track.seconds, 3),
                "shares": _shares(track.shown, classes),
                "events": events.get(number, 0),
            }
            for number, track in sorted(totals.tracks.items())
        ],
    }


def _shares(shown: Mapping[Verdict, float], classes: Sequence[str]) -> dict[str, float]:
    """The share of time of each class and of "uncertain"; none from a model without emotions."""
    seconds = sum(shown.values())
    if not classes or set(shown) <= {None}:
        return {}
    names = list(dict.fromkeys([*classes, *(name for name in shown if name is not None), UNCERTAIN]))
    return {name: round(shown.get(name, 0.0) / seconds, 4) if seconds else 0.0 for name in names}
