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
class _Tally:
    """Frames that show an expression: how many, the sum of its probabilities, the highest, and its seconds."""

    frames: int = 0
    total: float = 0.0
    best: float = -1.0
    peak: float = 0.0

    def add(self, other: "_Tally") -> None:
        self.frames += other.frames
        self.total += other.total
        if other.best > self.best:
            self.best, self.peak = other.best, other.peak


@dataclass
class _Run:
    """One expression of one track, for as long as it is shown more often than not.

    The evidence for it are the seconds in which it was shown, less those in which it was not.

    Attributes:
        start: of its first frame.
        end: until when it has held.
        shown: seconds in which it was shown.
        named: those in which it was the verdict.
        evidence: seconds; of an event 0 at most, and less while it is interrupted.
        low: the least evidence since `end`.
        back: until when it was as low, so that a later return began then.
        held: frames that show it, until `end`.
        later: those after it.
        showing: whether the last frame shows it.
        sure: whether it is the verdict there.
        begun: whether it is an event yet.
    """

    start: float
    end: float
    shown: float = 0.0
    named: float = 0.0
    evidence: float = 0.0
    low: float = 0.0
    back: float = 0.0
    held: _Tally = field(default_factory=_Tally)
    later: _Tally = field(default_factory=_Tally)
    showing: bool = False
    sure: bool = False
    begun: bool = False

    @property
    def single(self) -> bool:
        """Whether the last frame is the only one that shows it."""
        return self.showing and not self.held.frames

    def show(self, seconds: float, probability: float, sure: bool) -> None:
        self.showing, self.sure = True, sure
        self.later.add(_Tally(1, probability, probability, seconds))

    def pass_until(self, until: float, step: float, window: float, doubtful: bool) -> None:
        """Counts the last frame, which lasted for `step` seconds; a doubtful one is not held against the expression."""
        if self.showing:
            self.shown += step
            self.named += step if self.sure else 0.0
            self.evidence += step
            if not self.begun or self.evidence >= -_TINY:
                self._hold_until(until)
        else:
            if not doubtful:
                self.evidence = max(self.evidence - step, -window) if self.begun else self.evidence - step
            if self.evidence <= self.low + _TINY:
                self.low, self.back = self.evidence, until
        self.showing = False

    def _hold_until(self, seconds: float) -> None:
        self.end = self.back = seconds
        self.held.add(self.later)
        self.later = _Tally()
        self.low = 0.0
        if self.begun:
            self.evidence = 0.0

    def event(self, track: int, expression: str) -> Event:
        return Event(track, self.start, self.end, expression, self.held.total / self.held.frames, self.held.peak)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "_Run":
        """The run that `asdict` has made this of."""
        return cls(**{**state, "held": _Tally(**state["held"]), "later": _Tally(**state["later"])})


@dataclass
class EventFinder:
    """Finds the events of a video, called with one frame after the other.

    An expression that is a face's verdict for `hold` seconds is an event, which began with its first frame. It is shown
    while its probability is not lower than that of another expression, or than what a verdict needs, by more than
    `hysteresis`. Interruptions of up to `gap` seconds belong to it, whether the face shows something else, cannot be
    judged or is hidden, once the expression is back for as long, or for `hold`. A track has one event at a time.
    Neutral is no event.

    As single frames may be wrong, an expression must be shown in most frames, and in three, or for 1.5 seconds; with
    `hold=0` each verdict is an event. A single frame of another emotion is not held against an expression.

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
        seconds, before = reading.seconds, self._seconds
        if not (math.isnan(before) or before < seconds < math.inf):
            raise ConfigError(f"times must increase, got {seconds} s after {before} s")
        changes = self._advance(seconds)
        for face in reading.faces:
            self._show(face, seconds, before)
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
            int(track): {name: _Run.of(run) for name, run in runs.items()} for track, runs in state["runs"].items()
        }
        self._ends = {(track, expression): end for track, expression, end in state["ends"]}
        self._seconds = math.nan if state["seconds"] is None else state["seconds"]
        self._step = state["step"]

    def _advance(self, seconds: float) -> EventChanges:
        """What the last frame showed was shown until now; after a standstill, for as long as the frame before it."""
        step = 0.0 if math.isnan(self._seconds) else seconds - self._seconds
        if self._step and step > max(self.gap, 3 * self._step):
            step = self._step
        window = max(self.hold, min(_FRAMES * step, _LONGEST)) if self.hold else 0.0
        until, pause = self._seconds + step, seconds - self._seconds - step
        began: list[Event] = []
        ended: list[Event] = []
        for track in sorted(self._runs):
            runs = self._runs[track].values()
            doubtful = any(run.single for run in runs)
            for run in runs:
                run.pass_until(until, step, window, doubtful)
                if pause > _TINY:
                    run.pass_until(seconds, pause, window, doubtful=False)
            self._settle(track, seconds, window, began, ended)
        self._ends = {key: end for key, end in self._ends.items() if seconds - end < self.cooldown}
        self._seconds, self._step = seconds, step
        return EventChanges(tuple(began), tuple(ended))

    def _show(self, face: TrackedFace, seconds: float, before: float) -> None:
        reading = face.reading
        if reading.emotion is None:
            return
        runs = self._runs.get(face.track, {})
        names = [name for name, run in runs.items() if run.begun]
        if known_expression(reading.emotion) != NEUTRAL:
            names.append(reading.emotion)
        expression = next((name for name in names if self._is_shown(reading, name)), None)
        if expression is None:
            return
        if expression not in runs:  # a single frame of something else before it is taken for a misread one of its own
            misread = any(run.start == before and not run.begun for run in runs.values())
            self._runs.setdefault(face.track, runs)[expression] = _Run(before if misread else seconds, seconds)
        runs[expression].show(seconds, reading.by_class[expression], sure=not reading.uncertain)

    def _is_shown(self, reading: FaceReading, expression: str) -> bool:
        if reading.doubts or expression not in reading.classes:
            return False
        least = max(reading.confidence, reading.uncertain_below) - self.hysteresis
        return reading.by_class[expression] >= least

    def _settle(self, track: int, seconds: float, window: float, began: list[Event], ended: list[Event]) -> None:
        """Ends what is over, and begins what has held for long enough."""
        runs = self._runs[track]
        for expression in list(runs):
            run = runs.get(expression)
            if run is None:  # another one has just ended it
                continue
            if run.begun:
                if run.back - run.end > self.gap + _TINY:
                    self._end(track, expression, ended)
            elif run.evidence < -_TINY:
                del runs[expression]
            elif _has_held(run, window) and self._may_begin(track, expression, seconds):
                for other in [name for name, other in runs.items() if other.begun]:
                    self._end(track, other, ended)
                run.begun, run.evidence = True, 0.0
                began.append(run.event(track, expression))
        if not runs:
            del self._runs[track]

    def _may_begin(self, track: int, expression: str, seconds: float) -> bool:
        return seconds - self._ends.get((track, expression), -math.inf) >= self.cooldown

    def _end(self, track: int, expression: str, ended: list[Event]) -> None:
        run = self._runs[track].pop(expression)
        if run.begun:
            ended.append(run.event(track, expression))
            self._ends[track, expression] = run.end


def _has_held(run: _Run, window: float) -> bool:
    most = run.evidence >= window / 2 - _TINY and 2 * run.shown >= run.end - run.start - _TINY
    return most and run.named >= window - _TINY


_RANGES = {"hysteresis": "from 0 to 1"}
_TINY = 1e-9  # seconds; sums of frame times are rounded
_FRAMES = 3  # that must show an expression
_LONGEST = 1.5  # seconds that these may take at most
