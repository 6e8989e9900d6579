"""The folder of a video's results: what is written while it is read, and at its end.

`rows.csv` and `events.jsonl` grow, and about every second `state.json` is replaced, with which a run that was killed
goes on. At the end come `events.json`, `summary.json`, `timeline.png`, and maybe `rows.parquet`.
"""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from emotion_ai import files
from emotion_ai.errors import ConfigError
from emotion_ai.inference.tables import csv_text
from emotion_ai.video.clip import CLIP, PARTS
from emotion_ai.video.events import Event
from emotion_ai.video.frames import FrameReading
from emotion_ai.video.rows import error_row, frame_rows, video_columns, write_parquet
from emotion_ai.video.saving import FORMAT, GrowingFile, check_same, read_state, write_state
from emotion_ai.video.summary import lanes, total, totals_record
from emotion_ai.video.thumbnails import Thumbnails
from emotion_ai.video.timeline import MAX_LANES, Timeline, draw_timeline

SAVE_SECONDS = 1.0
"""Seconds between two saved states, and so what a kill loses at most."""

STATE, ROWS, PARQUET, EVENT_LINES = "state.json", "rows.csv", "rows.parquet", "events.jsonl"
EVENTS, SUMMARY, TIMELINE = "events.json", "summary.json", "timeline.png"
_RESULTS = (ROWS, PARQUET, EVENT_LINES, EVENTS, SUMMARY, TIMELINE, CLIP)


@dataclass(frozen=True)
class VideoOutput:
    """What is written about a video, and where.

    Attributes:
        folder: is created.
        table: "csv" or "parquet"; while a video is read, the table is CSV.
        clip: writes `annotated.mp4`.
        thumbnails: shows a face of each track in `timeline.png`. Without these two, no pixel is kept.
        resume: goes on with a run that ended early.
        overwrite: replaces what another run wrote to the folder.
    """

    folder: Path
    table: Literal["csv", "parquet"] = "csv"
    clip: bool = False
    thumbnails: bool = False
    resume: bool = False
    overwrite: bool = False


class VideoFolder:
    """The folder of one run, locked for as long as the context lasts; nothing in it is changed before `begin`.

    Args:
        output: what is written.
        source: its name, for the table.
        identity: the source, model and options by name; a resumed run must have the same.
        classes: that the model names.

    Attributes:
        state: of the run that is resumed; empty for a new one.
        finished: whether that run had come to its end, so that there is nothing to do.

    Raises:
        ConfigError: the folder has results of another run, or another process writes to it.
        OSError: it cannot be written to.
    """

    def __init__(self, output: VideoOutput, source: str, identity: Mapping[str, Any], classes: tuple[str, ...]) -> None:
        self.output, self.path = output, output.folder
        self._source, self._identity, self._classes = source, json.loads(json.dumps(identity)), classes
        self._columns = video_columns(classes)
        self.thumbnails = Thumbnails() if output.thumbnails else None
        self._counts: Counter[str] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            new = not self.path.exists()
            if new:
                stack.callback(self._remove_if_empty)
            stack.enter_context(files.locked_folder(self.path))
            self.state = self._earlier()
            self.finished = bool(self.state.get("finished"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _remove_if_empty(self) -> None:
        with suppress(OSError):
            self.path.rmdir()

    @property
    def _begun(self) -> dict[str, Any]:
        """The state of a run that has read nothing yet."""
        return {"format": FORMAT, "identity": self._identity, "finished": False}

    @property
    def counts(self) -> Mapping[str, int]:
        """Frames and faces read, frames that failed, and events, those before a resumed frame included."""
        return self._counts

    def _earlier(self) -> dict[str, Any]:
        """The state that this run goes on with, maybe empty.

        Raises:
            ConfigError: there are results that this run must not replace.
        """
        if self.output.overwrite:
            return {}
        state = read_state(self.path / STATE)
        if state is None:
            if foreign := [name for name in (*_RESULTS, PARTS) if os.path.lexists(self.path / name)]:
                raise ConfigError(
                    f"{self.path / foreign[0]}: is not of a run; replace it with --overwrite, or choose another --out"
                )
            return {}
        if not self.output.resume:
            raise ConfigError(
                f"{self.path}: has the results of a run; continue it with --resume, replace them with --overwrite, or "
                "choose another --out"
            )
        check_same(self.path, state["identity"], self._identity)
        return state

    def begin(self) -> None:
        """Opens the files that grow: cut back to the state of the resumed run, or new ones in place of all results."""
        if "frame" not in self.state:
            write_state(self.path / STATE, self._begun)  # what is written from now on is of a run
            for name in _RESULTS:
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / PARTS, ignore_errors=True)
        self._counts.update(self.state.get("counts", {}))
        if self.thumbnails is not None:
            self.thumbnails.restore(self.state.get("thumbnails", {}))
        self._rows = self._stack.enter_context(GrowingFile(self.path / ROWS, self.state.get("rows")))
        self._events = self._stack.enter_context(GrowingFile(self.path / EVENT_LINES, self.state.get("events")))
        if not self._rows.size:
            self._rows.append(csv_text([], self._columns))
            self._rows.flush()
        self._saved = time.monotonic()

    def add(self, reading: FrameReading) -> None:
        """Appends the rows of a frame."""
        self._rows.append(csv_text(frame_rows(self._source, reading), self._columns, header=False))
        self._counts.update(frames=1, faces=len(reading.faces), without_face=not reading.faces)
        if self.thumbnails is not None:
            self.thumbnails.add(reading)

    def add_failure(self, frame: int, seconds: float, error: object) -> None:
        """Appends the row of a frame that could not be read."""
        self._rows.append(csv_text([error_row(self._source, frame, seconds, error)], self._columns, header=False))
        self._counts.update(frames=1, failed=1)

    def add_events(self, events: Iterable[Event]) -> None:
        """Appends events that have ended."""
        for event in events:
            self._events.append(json.dumps(event.as_dict()) + "\n")
            self._counts.update(events=1)

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved >= SAVE_SECONDS

    def save(self, **state: Any) -> None:
        """Writes out the rows, then the state with which a run goes on."""
        self._rows.flush()
        self._events.flush()
        kept = {"rows": self._rows.size, "events": self._events.size, "counts": dict(self._counts)}
        if self.thumbnails is not None:
            kept["thumbnails"] = self.thumbnails.state()
        write_state(self.path / STATE, {**self._begun, **kept, **state})
        self._saved = time.monotonic()

    def finish(self, record: Mapping[str, Any], complete: bool, longest: float | None = None) -> dict[str, Any]:
        """Writes what comes at the end, and returns the summary.

        Args:
            record: what else the summary has.
            complete: whether the source has been read to its end; otherwise the run can be resumed.
            longest: seconds for which a frame counts at most.
        """
        self._rows.flush()
        self._events.flush()
        rows = self.path / ROWS
        events = [json.loads(line) for line in (self.path / EVENT_LINES).read_text("utf-8").splitlines()]
        events.sort(key=lambda event: (event["start"], event["track"]))
        files.write_json(self.path / EVENTS, events)
        totals = total(rows, longest)
        each = Counter(event["track"] for event in events)
        summary = {
            **record,
            "complete": complete,
            **{name: self._counts[name] for name in ("frames", "faces", "without_face", "failed", "events")},
            **totals_record(totals, self._classes, each),
        }
        seen = sorted(totals.tracks, key=lambda track: -totals.tracks[track].seconds)[:MAX_LANES]
        drawn = lanes(rows, sorted(seen), totals.start, totals.end, longest=longest)
        pictures = {} if self.thumbnails is None else self.thumbnails.pictures()
        title = self._source if "://" in self._source else Path(self._source).name or self._source
        timeline = Timeline(title, drawn, events, self._classes, totals, pictures)
        draw_timeline(self.path / TIMELINE, timeline)
        if self.output.table == "parquet":
            write_parquet(rows, self.path / PARQUET)
        files.write_json(self.path / SUMMARY, summary)
        if complete:
            write_state(self.path / STATE, {**self._begun, "finished": True})
            (self.path / EVENT_LINES).unlink()
            shutil.rmtree(self.path / PARTS, ignore_errors=True)
            if self.output.table == "parquet":
                rows.unlink()
        return summary
