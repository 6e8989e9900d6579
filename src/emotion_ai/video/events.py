"""Events: when a person showed which expression, found frame by frame."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from emotion_ai.class_set import known_expression
from emotion_ai.errors import ConfigError
from emotion_ai.inference.results import FaceReading
from emotion_ai.inference.verdict import NEUTRAL
from emotion_ai.video.frames import FrameReading, TrackedFace


@dataclass(frozen=True)
class Event:
    """An expression that a person showed for a while.

    Attributes:
        track: of the person.
        start: seconds since the source's first frame.
        end: likewise, exclusive; of an event that goes on, until now.
        expression: a class of the network; never Neutral.
        confidence: its mean probability while it was shown.
        peak: seconds at which it was most probable.
    """

    track: int
    start: float
    end: float
    expression: str
    confidence: float
    peak: float

    @property
    def key(self) -> str:
        """The same for the beginning and the end of an event, and for no other event of the video."""
        return f"{self.track}-{self.expression}-{self.start:.3f}"

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON: seconds with three decimals, the confidence with four."""
        return {
            "track": self.track,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "expression": self.expression,
            "confidence": round(self.confidence, 4),
            "peak": round(self.peak, 3),
        }


@dataclass(frozen=True)
class EventChanges:
    """The events that began with a frame, and those that have ended by then; an event may do both at once."""

    began: tuple[Event, ...] = ()
    ended: tuple[Event, ...] = ()


@dataclass
class _Run:
    """One expression of one track, as long as it is shown with short gaps.

    Attributes:
        start: of the first frame that shows it.
        end: until when it was shown.
        shown: seconds of that, without the gaps.
        frames: that show it.
        total: sum of its probabilities in these.
        best: highest of them.
        peak: seconds of that one.
        last: seconds of the last frame that shows it.
        showing: whether that is the last frame.
        begun: whether it is an event yet.
    """

    start: float
    end: float
    shown: float = 0.0
    frames: int = 0
    total: float = 0.0
    best: float = -1.0
    peak: float = 0.0
    last: float = 0.0
    showing: bool = False
    begun: bool = False

    def pass_until(self, seconds: float) -> None:
        if self.showing:
            self.shown += seconds - self.last
            self.end, self.showing = seconds, False

    def show(self, seconds: float, probability: float) -> None:
        self.showing, self.last = True, seconds
        self.frames += 1
        self.total += probability
        if probability > self.best:
            self.best, self.peak = probability, seconds

    def event(self, track: int, expression: str) -> Event:
        return Event(track, self.start, self.end, expression, self.total / self.frames, self.peak)


@dataclass
class EventFinder:
    """Finds the events of a video, called with one frame after the other.

    An expression that is a face's verdict for `hold` seconds is an event, which began with its first frame. It goes on
    while its probability is not lower than that of another expression, or than what a verdict needs, by more than
    `hysteresis`. Interruptions of up to `gap` seconds belong to it, whether the face shows something else, cannot be
    judged or is hidden. A track has one event at a time. Neutral is no event.

    Attributes:
        hold: seconds for which an expression must be shown.
        gap: longest interruption, in seconds.
        cooldown: seconds after an event in which the same expression of the same track begins no other; one that still
            holds then is an event, with its own start.
        hysteresis: probability by which an event's expression may fall behind, 0 to 1.

    Raises:
        ConfigError: one of them is negative or not finite, or `hysteresis` is above 1.
    """

    hold: float = 0.5
    gap: float = 1.0
    cooldown: float = 2.0
    hysteresis: float = 0.1
    _runs: dict[int, dict[str, _Run]] = field(default_factory=dict, init=False, repr=False)
    _ends: dict[tuple[int, str], float] = field(default_factory=dict, init=False, repr=False)  # of the last events
    _seconds: float = field(default=math.nan, init=False, repr=False)
    _step: float = field(default=0.0, init=False, repr=False)  # seconds between the last two frames

    def __post_init__(self) -> None:
        for name in ("hold", "gap", "cooldown", "hysteresis"):
            value = getattr(self, name)
            if not 0 <= value <= (1 if name == "hysteresis" else 1e9):
                raise ConfigError(f"`{name}` must be {_RANGES.get(name, 'seconds, 0 or more')}, got {value:g}")

    def __call__(self, reading: FrameReading) -> EventChanges:
        """What began and what ended by this frame.

        Raises:
            ConfigError: the time does not increase.
        """
        seconds = reading.seconds
        if not (math.isnan(self._seconds) or self._seconds < seconds < math.inf):
            raise ConfigError(f"times must increase, got {seconds} s after {self._seconds} s")
        changes = self._advance(seconds)
        for face in reading.faces:
            self._show(face, seconds)
        return changes

    def finish(self) -> EventChanges:
        """The events that end with the video, and those of them that began only now; the finder is then as new."""
        changes = self._advance(self._seconds + self._step)
        ended = list(changes.ended)
        for track, runs in sorted(self._runs.items()):
            for expression in list(runs):
                self._end(track, expression, ended)
        self._runs, self._ends, self._seconds, self._step = {}, {}, math.nan, 0.0
        return EventChanges(changes.began, tuple(ended))

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on after this frame, as plain JSON."""
        return {
            "runs": {
                str(track): {name: asdict(run) for name, run in runs.items()} for track, runs in self._runs.items()
            },
            "ends": [[track, expression, end] for (track, expression), end in self._ends.items()],
            "seconds": None if math.isnan(self._seconds) else self._seconds,
            "step": self._step,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where the finder with this state was."""
        self._runs = {
            int(track): {name: _Run(**run) for name, run in runs.items()} for track, runs in state["runs"].items()
        }
        self._ends = {(track, expression): end for track, expression, end in state["ends"]}
        self._seconds = math.nan if state["seconds"] is None else state["seconds"]
        self._step = state["step"]

    def _advance(self, seconds: float) -> EventChanges:
        """What the last frame showed was shown until now; after a standstill, for as long as the frame before it."""
        step = 0.0 if math.isnan(self._seconds) else seconds - self._seconds
        if self._step and step > max(self.gap, 3 * self._step):
            step = self._step
        began: list[Event] = []
        ended: list[Event] = []
        for track in sorted(self._runs):
            for run in self._runs[track].values():
                run.pass_until(self._seconds + step)
            self._settle(track, seconds, began, ended)
        self._ends = {key: end for key, end in self._ends.items() if seconds - end < self.cooldown}
        self._seconds, self._step = seconds, step
        return EventChanges(tuple(began), tuple(ended))

    def _show(self, face: TrackedFace, seconds: float) -> None:
        reading = face.reading
        if reading.emotion is None:
            return
        runs = self._runs.get(face.track, {})
        expression = next((name for name, run in runs.items() if run.begun and self._goes_on(reading, name)), None)
        if expression is None and not reading.uncertain and known_expression(reading.emotion) != NEUTRAL:
            expression = reading.emotion
        if expression is not None:
            run = self._runs.setdefault(face.track, runs).setdefault(expression, _Run(seconds, seconds))
            run.show(seconds, reading.by_class[expression])

    def _goes_on(self, reading: FaceReading, expression: str) -> bool:
        if reading.doubts or expression not in reading.classes:
            return False
        least = max(reading.confidence, reading.uncertain_below) - self.hysteresis
        return reading.by_class[expression] >= least

    def _settle(self, track: int, seconds: float, began: list[Event], ended: list[Event]) -> None:
        """Ends what is over, and begins what has held for long enough."""
        runs = self._runs[track]
        for expression in list(runs):
            run = runs.get(expression)
            if run is None:  # another one has just ended it
                continue
            longest = self.gap if run.begun else min(self.gap, self.hold / 2)
            if run.shown >= self.hold - _TINY and not run.begun and self._may_begin(track, expression, seconds):
                for other in [name for name, other in runs.items() if other.begun]:
                    self._end(track, other, ended)
                run.begun = True
                began.append(run.event(track, expression))
            elif seconds - run.end > longest + _TINY:
                self._end(track, expression, ended)
        if not runs:
            del self._runs[track]

    def _may_begin(self, track: int, expression: str, seconds: float) -> bool:
        return seconds - self._ends.get((track, expression), -math.inf) >= self.cooldown

    def _end(self, track: int, expression: str, ended: list[Event]) -> None:
        run = self._runs[track].pop(expression)
        if run.begun:
            ended.append(run.event(track, expression))
            self._ends[track, expression] = run.end


_RANGES = {"hysteresis": "from 0 to 1"}
_TINY = 1e-9  # seconds; sums of frame times are rounded
