"""What each track of a video shows over time: collected frame by frame, and drawn as lanes of HTML."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from emotion_ai.class_set import UNCERTAIN, ClassSet
from emotion_ai.inference.results import FaceReading
from emotion_ai.video.frames import TrackedFace

GAP_SECONDS = 0.5
"""Longest time without a track's face that still counts as shown."""

MAX_LANES = 12
"""Tracks that are drawn, those seen for the longest time."""

SEEN = "seen"
"""What a face shows if the model has no emotions."""

_MAX_SPANS = 4000  # of all lanes that are drawn


@dataclass(frozen=True)
class Span:
    """A stretch of time in which a track shows the same.

    Attributes:
        start: seconds.
        end: seconds.
        label: a class, "uncertain", or "seen".
    """

    start: float
    end: float
    label: str

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


@dataclass
class Lanes:
    """The spans of each track.

    Attributes:
        memory: seconds after which a span is forgotten; None keeps all.
        tracks: the spans of each track, in order.
        classes: those of the network, once a face was read.
    """

    memory: float | None = None
    tracks: dict[int, list[Span]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def add(self, seconds: float, faces: Iterable[TrackedFace]) -> None:
        """Adds the faces of one frame; times must increase."""
        for face in faces:
            self.classes = face.reading.classes
            self._add(face.track, seconds, _label(face.reading))
        if self.memory is not None:
            oldest = seconds - self.memory
            kept = {track: [span for span in spans if span.end >= oldest] for track, spans in self.tracks.items()}
            self.tracks = {track: spans for track, spans in kept.items() if spans}

    def _add(self, track: int, seconds: float, label: str) -> None:
        spans = self.tracks.setdefault(track, [])
        if spans and seconds - spans[-1].end <= GAP_SECONDS:  # it lasts until this frame
            spans[-1] = Span(spans[-1].start, seconds, spans[-1].label)
            if spans[-1].label == label:
                return
        spans.append(Span(seconds, seconds, label))


def draw_lanes(tracks: Mapping[int, Sequence[Span]], start: float, end: float, classes: Sequence[str]) -> str:
    """The tracks' lanes from `start` to `end`, in seconds."""
    shown = _shown(tracks)
    shortest = (end - start) / 1000  # about a pixel
    spans = sum(len(tracks[track]) for track in shown)
    lanes = "".join(
        f'<div class="ea-lane"><span>{track}</span><div>'
        + "".join(
            _bar(span, start, end, classes)
            for span in tracks[track]
            if span.end >= start and (spans <= _MAX_SPANS or span.seconds >= shortest)
        )
        + "</div></div>"
        for track in sorted(shown)
    )
    return f'<div class="ea-lanes" aria-hidden="true">{lanes}</div>'


def draw_legend(tracks: Mapping[int, Sequence[Span]], classes: Sequence[str]) -> str:
    """What the colours of the lanes mean, and how many tracks have none."""
    shown = _shown(tracks)
    more = len(tracks) - len(shown)
    note = f'<p class="ea-hint">{more} more tracks are in the table.</p>' if more else ""
    labels = {span.label for track in shown for span in tracks[track]}
    legend = "".join(
        f'<span><i style="{_style(name, classes)}"></i>{escape(name)}</span>'
        for name in (*classes, UNCERTAIN, SEEN)
        if name in labels
    )
    return f'{note}<p class="ea-legend">{legend}</p>'


def _shown(tracks: Mapping[int, Sequence[Span]]) -> list[int]:
    """The tracks that are drawn."""
    return sorted(tracks, key=lambda track: -sum(span.seconds for span in tracks[track]))[:MAX_LANES]


def _bar(span: Span, start: float, end: float, classes: Sequence[str]) -> str:
    left, right = ((min(max(seconds, start), end) - start) / (end - start) for seconds in (span.start, span.end))
    return (
        f'<i style="left:{left:.2%};width:{max(right - left, 0.001):.2%};{_style(span.label, classes)}" '
        f'title="{escape(span.label)}, {clock(span.start)} to {clock(span.end)}"></i>'
    )


def _style(label: str, classes: Sequence[str]) -> str:
    if label == SEEN:
        return "background:#8fa3bf"
    if label not in classes:
        return "background:repeating-linear-gradient(45deg,#8a94a3 0 2px,transparent 2px 5px)"
    return f"background:{ClassSet.of(tuple(classes)).color(label)}"


def _label(face: FaceReading) -> str:
    return UNCERTAIN if face.uncertain else face.emotion or SEEN


def clock(seconds: float) -> str:
    """A time as minutes and seconds: 1:02.5."""
    minutes, rest = divmod(round(max(seconds, 0.0), 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
