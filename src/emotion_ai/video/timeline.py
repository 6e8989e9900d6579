"""The timeline of a video as a picture: a lane per track, in the colours of what it shows. Needs the extra [video]."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import UNCERTAIN, ClassSet
from emotion_ai.extras import optional_imports
from emotion_ai.files import atomic_path
from emotion_ai.terminal import printable
from emotion_ai.video.summary import Span, Totals, Verdict

with optional_imports("video"):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter, MaxNLocator

MAX_LANES = 24
"""Tracks that are drawn, those seen for longest."""

_WIDTH, _LANE, _DPI = 12.0, 0.52, 150  # inches of the picture and of a lane
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.75, 0.3, 0.7, 0.85  # inches around the lanes
_BAND, _MARK = 0.66, 0.09  # of a lane: what is shown, and the line above it where there is an event
_INK, _DIM, _LINES, _EMPTY, _SEEN = "#12141c", "#667085", "#d5dae3", "#f2f4f8", "#8fa3bf"
_TITLE = 70  # characters
_STEPS = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400]  # seconds


@dataclass(frozen=True)
class Timeline:
    """What a timeline shows.

    Attributes:
        title: the source's name.
        lanes: the spans of each track that is drawn.
        events: with `track`, `start`, `end` and `expression`, as in `events.json`.
        classes: that the model names.
        totals: of the video, with all its tracks.
        pictures: of some tracks, uint8 (H, H, 3).
    """

    title: str
    lanes: Mapping[int, Sequence[Span]]
    events: Sequence[Mapping[str, Any]]
    classes: tuple[str, ...]
    totals: Totals
    pictures: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)


def draw_timeline(path: Path, timeline: Timeline) -> None:
    """Writes a timeline as PNG, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    count = max(len(timeline.lanes), 1)
    height = _TOP + count * _LANE + _BOTTOM
    figure = Figure((_WIDTH, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / height, 1 - (_LEFT + _RIGHT) / _WIDTH, count * _LANE / height))
    _draw_axes(axes, timeline, count)
    for place, (track, spans) in enumerate(sorted(timeline.lanes.items())):
        y = count - 1 - place + 0.5
        _draw_lane(axes, timeline, track, spans, y)
        _draw_label(figure, axes, timeline, track, y, count)
    if not timeline.lanes:
        axes.text(0.5, 0.5, "no face was found", transform=axes.transAxes, ha="center", va="center", color=_DIM)
    _draw_title(figure, timeline, height)
    _draw_legend(figure, timeline)
    with atomic_path(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in another script
        figure.savefig(partial, format="png")


def _draw_axes(axes: Any, timeline: Timeline, count: int) -> None:
    start, end = timeline.totals.start, timeline.totals.end
    axes.set_xlim(start, max(end, start + 0.04))
    axes.set_ylim(0, count)
    axes.set_yticks([])
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINES)
    axes.tick_params(axis="x", colors=_DIM, labelsize=9, length=3)
    axes.grid(axis="x", color=_LINES, linewidth=0.6)
    axes.set_axisbelow(True)
    step = next((step for step in _STEPS if (end - start) / step <= 12), 86400)
    if end - start >= 4:
        axes.set_xticks(np.arange(np.ceil(start / step) * step, end + 1e-6, step))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g} s"))


def _draw_lane(axes: Any, timeline: Timeline, track: int, spans: Sequence[Span], y: float) -> None:
    low = y - _BAND / 2
    start, end = timeline.totals.start, timeline.totals.end
    axes.broken_barh([(start, end - start)], (low, _BAND), facecolor=_EMPTY, linewidth=0)
    for verdict in dict.fromkeys(span.verdict for span in spans):
        ranges = [(span.start, span.end - span.start) for span in spans if span.verdict == verdict]
        axes.broken_barh(ranges, (low, _BAND), zorder=2, **_style(verdict, timeline.classes))
    events = [event for event in timeline.events if event["track"] == track]
    marks = [(event["start"], event["end"] - event["start"]) for event in events]
    axes.broken_barh(marks, (low + _BAND + 0.03, _MARK), facecolor=_INK, edgecolor="white", linewidth=0.8, zorder=3)
    for event in events:
        _draw_name(axes, timeline, event, spans, y)


def _draw_name(axes: Any, timeline: Timeline, event: Mapping[str, Any], spans: Sequence[Span], y: float) -> None:
    """The expression's name in the longest span of the event that shows it, if there is room."""
    name = printable(event["expression"])
    shown = [
        (max(span.start, event["start"]), min(span.end, event["end"]))
        for span in spans
        if span.verdict == event["expression"] and span.start < event["end"] and span.end > event["start"]
    ]
    start, end = max(shown, key=lambda times: times[1] - times[0], default=(0.0, 0.0))
    inches = (end - start) / (timeline.totals.end - timeline.totals.start) * (_WIDTH - _LEFT - _RIGHT)
    if inches > 0.07 * len(name) + 0.08:
        middle = (start + end) / 2
        axes.text(middle, y, name, ha="center", va="center", fontsize=8, color=_INK, zorder=4, parse_math=False)


def _draw_label(figure: Any, axes: Any, timeline: Timeline, track: int, y: float, count: int) -> None:
    box = axes.get_position()
    middle = box.y0 + box.height * y / count
    totals, height = timeline.totals.tracks[track], figure.get_figheight()
    left = 0.25
    if track in timeline.pictures:
        side = _LANE * 0.86
        place = figure.add_axes((0.15 / _WIDTH, middle - side / 2 / height, side / _WIDTH, side / height))
        place.imshow(timeline.pictures[track], interpolation="antialiased")
        place.set_axis_off()
        left = 0.25 + side
    text = {"ha": "left", "parse_math": False}
    figure.text(left / _WIDTH, middle + 0.02 / height, f"track {track}", va="bottom", size=9.5, color=_INK, **text)
    figure.text(left / _WIDTH, middle - 0.02 / height, _length(totals.seconds), va="top", size=8, color=_DIM, **text)


def _draw_title(figure: Any, timeline: Timeline, height: float) -> None:
    name = printable(timeline.title)
    name = name if len(name) <= _TITLE else f"…{name[-_TITLE + 1 :]}"
    totals, more = timeline.totals, len(timeline.totals.tracks) - len(timeline.lanes)
    notes = [
        _length(totals.end - totals.start),
        _count(len(totals.tracks), "track"),
        _count(len(timeline.events), "event"),
    ]
    if more > 0:
        notes.append(f"{more} tracks seen for less time are not drawn")
    y = 1 - 0.3 / height
    figure.text(0.15 / _WIDTH, y, name, size=12, weight="bold", color=_INK, va="center", parse_math=False)
    figure.text(1 - _RIGHT / _WIDTH, y, ", ".join(notes), size=9.5, color=_DIM, va="center", ha="right")


def _draw_legend(figure: Any, timeline: Timeline) -> None:
    shown = {span.verdict for spans in timeline.lanes.values() for span in spans}
    order: list[Verdict] = [name for name in (*timeline.classes, UNCERTAIN, None) if name in shown]
    entries = [
        Patch(label=printable(name or "seen"), **{**_style(name, timeline.classes), "linewidth": 0}) for name in order
    ]
    entries.append(Patch(label="not seen", facecolor=_EMPTY, edgecolor=_LINES, linewidth=0.6))
    if timeline.events:
        entries.append(Patch(label="event", facecolor=_INK))
    legend = figure.legend(
        handles=entries,
        loc="lower left",
        bbox_to_anchor=(_LEFT / _WIDTH, 0.12 / figure.get_figheight()),
        ncols=len(entries) if len(entries) <= 11 else 8,
        frameon=False,
        fontsize=9,
        handlelength=1.4,
        handleheight=1.1,
        columnspacing=1.4,
        borderaxespad=0.0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_color(_INK)


def _style(verdict: Verdict, classes: Sequence[str]) -> dict[str, Any]:
    if verdict == UNCERTAIN:
        return {"facecolor": "white", "edgecolor": "#98a1b0", "hatch": "//////", "linewidth": 0.0}
    color = _SEEN if verdict is None or verdict not in classes else ClassSet.of(classes).color(verdict)
    return {"facecolor": color, "linewidth": 0.0, "antialiased": False}


def clock(seconds: float) -> str:
    """A time as m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _length(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{clock(seconds)} {'h' if seconds >= 3600 else 'min'}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
