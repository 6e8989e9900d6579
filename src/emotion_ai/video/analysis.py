"""Reads a whole video and writes what it shows. Needs the extra [video]."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from emotion_ai.client.address import without_login
from emotion_ai.contract import EMOTIONS
from emotion_ai.errors import (
    AccessDeniedError,
    ConfigError,
    EmotionAIError,
    ImageError,
    RequestRejectedError,
    ServerTimeoutError,
)
from emotion_ai.inference.results import CropReader
from emotion_ai.video.clip import ClipWriter, draw
from emotion_ai.video.events import EventChanges, EventFinder
from emotion_ai.video.folder import SUMMARY, VideoFolder, VideoOutput
from emotion_ai.video.frames import Frame, FrameReading, FrameSource
from emotion_ai.video.reading import RgbReader, VideoReader
from emotion_ai.video.saving import model_identity, source_identity, uninterrupted
from emotion_ai.video.sources import FOLDER_FPS, open_source

MAX_FAILURES = 3
"""Frames in a row that cannot be read, after which the run ends."""

_STANDSTILL = 1.0  # seconds for which a frame of a live source counts at most, unless frames are further apart
_OF_ONE_FRAME = (ImageError, RequestRejectedError, ServerTimeoutError)


@dataclass(frozen=True)
class VideoOptions:
    """How a video is read; a resumed run must have the same options.

    Attributes:
        every: seconds ("0.5s") or frames ("10") from one frame to the next; by default every frame is read.
        start: seconds since the first frame at which to begin.
        end: seconds at which to end.
        limit: frames that are read at most.
        fps: frames per second of a folder of frames.
        detect_every: seconds between two searches for faces in the whole frame.
        smooth: whether readings are smoothed over time.
        hold: of an event, as for `EventFinder`, like the next two.
        gap: likewise.
        cooldown: likewise.
        uncertain_below: the reader's own threshold, if one was given.
    """

    every: str | None = None
    start: float = 0.0
    end: float | None = None
    limit: int | None = None
    fps: float = FOLDER_FPS
    detect_every: float = 1.0
    smooth: bool = True
    hold: float = 0.5
    gap: float = 1.0
    cooldown: float = 2.0
    uncertain_below: float | None = None


@dataclass(frozen=True)
class VideoProgress:
    """How far a run is.

    Attributes:
        frames: read so far, by a run before this one as well.
        total: to be read, where the source says so; an estimate.
        seconds: of the last frame.
        fps: frames per second that this run reads.
        dropped: frames that a live source has dropped.
    """

    frames: int
    total: int | None
    seconds: float
    fps: float
    dropped: int


@dataclass(frozen=True)
class VideoListener:
    """What is called while a video is read.

    Attributes:
        on_frame: with each frame that was read.
        on_events: with the events that began or ended with a frame.
        notify: with a line about damage, or a connection that was lost or is back; maybe in another thread.
    """

    on_frame: Callable[[FrameReading, VideoProgress], None] = lambda reading, progress: None
    on_events: Callable[[EventChanges], None] = lambda changes: None
    notify: Callable[[str], None] | None = None


def analyze(
    spec: str | Path | int,
    reader: CropReader | RgbReader,
    output: VideoOutput,
    options: VideoOptions | None = None,
    listener: VideoListener | None = None,
    record: Mapping[str, Any] | None = None,
    classes: Sequence[str] = EMOTIONS,
) -> dict[str, Any]:
    """Reads a video and writes its table, events, totals and timeline to a folder.

    What was written is complete as well when the reading ends early, by Ctrl-C or an error, which is then raised.

    Args:
        spec: a file, a folder of frames, the number of a camera, or the URL of a stream.
        reader: a `FaceReader`, a `FaceClient`, or a function of a frame, uint8 (H, W, 3), that returns its faces.
        output: what is written, and where.
        options: how the video is read.
        listener: is called while it is read.
        record: what else `summary.json` has, such as the model's version.
        classes: that a function as reader names.

    Returns:
        What `summary.json` has.

    Raises:
        ConfigError: an option is not valid, or the folder has results of another run.
        VideoError: the source cannot be opened or decoded.
        ClientError: the server does not answer.
        OSError: a file cannot be written.
    """
    options = options or VideoOptions()
    name = without_login(str(spec))
    open_source(spec, **_selection(options))  # names what is wrong before anything is compared or written
    identity = {"source": source_identity(spec), **asdict(options), "clip": output.clip, "table": output.table}
    identity |= {"thumbnails": output.thumbnails, "model": model_identity(reader)}
    names = tuple(identity["model"].get("classes", classes))
    with VideoFolder(output, name, identity, names) as folder:
        if folder.finished:
            return json.loads((folder.path / SUMMARY).read_text("utf-8"))
        return _Run(spec, reader, folder, options, listener or VideoListener()).run({"source": name, **(record or {})})


@dataclass
class _Run:
    """One run, from its first frame to its results."""

    spec: str | Path | int
    reader: CropReader | RgbReader
    folder: VideoFolder
    options: VideoOptions
    listener: VideoListener
    _failures: int = field(default=0, init=False)
    _read: int = field(default=0, init=False)  # frames of this run

    def run(self, record: Mapping[str, Any]) -> dict[str, Any]:
        options, state = self.options, self.folder.state
        self._video = VideoReader(self.reader, detect_every=options.detect_every, smooth=options.smooth)
        self._finder = EventFinder(options.hold, options.gap, options.cooldown)
        if "frame" in state:
            self._video.restore(state["reader"])
            self._finder.restore(state["finder"])
        with self._opened(state.get("frame", -1) + 1) as source:
            if state and source.live:
                raise ConfigError(f"{source.name}: a live source cannot be resumed; choose another --out")
            frames = iter(source)
            first = list(islice(frames, 1))  # without any, nothing is written
            self.folder.begin()
            self._clip = self._opened_clip(state.get("clip"))
            self._started = time.monotonic()
            complete = True
            try:
                for frame in chain(first, frames):
                    self._take(frame, source)
            except KeyboardInterrupt:
                if not source.live:
                    self._finish(source, record, complete=False)
                    raise
            except BaseException as error:
                if isinstance(error, EmotionAIError | OSError | SystemExit):
                    with suppress(OSError):
                        self._finish(source, record, complete=source.live)
                raise
            return self._finish(source, record, complete)

    def _opened(self, first: int) -> FrameSource:
        return open_source(self.spec, **_selection(self.options), resume_at=first, notify=self.listener.notify)

    def _opened_clip(self, state: dict[str, Any] | None) -> ClipWriter | None:
        if not self.folder.output.clip:
            return None
        path = Path(str(self.spec))
        return ClipWriter(self.folder.path, path if path.is_file() else None, state)

    def _take(self, frame: Frame, source: FrameSource) -> None:
        try:
            reading = self._video(frame)
        except _OF_ONE_FRAME as error:
            self._failures += 1
            if isinstance(error, AccessDeniedError) or self._failures >= MAX_FAILURES:
                raise
            with uninterrupted():
                self.folder.add_failure(frame.number, frame.seconds, error)
                if self._clip is not None:
                    self._clip.write(frame.rgb, frame.seconds)
            self._save(frame, source)
            return
        self._failures = 0
        with uninterrupted():
            self.folder.add(reading)
            changes = self._finder(reading)
            self.folder.add_events(changes.ended)
            if self._clip is not None:
                self._clip.write(draw(reading), reading.seconds)
        self._read += 1
        if changes.began or changes.ended:  # before the state has them: a run that was killed reports them again
            self.listener.on_events(changes)
        self._save(frame, source)
        self.listener.on_frame(reading, self._progress(reading, source))

    def _save(self, frame: Frame, source: FrameSource) -> None:
        if not self.folder.due:
            return
        with uninterrupted():
            self.folder.save(
                frame=frame.number,
                reader=self._video.state(),
                finder=self._finder.state(),
                clip=self._clip and self._clip.state(),
                elapsed=self._elapsed(),
                dropped=self._dropped(source),
            )

    def _elapsed(self) -> float:
        return self.folder.state.get("elapsed", 0.0) + time.monotonic() - self._started

    def _dropped(self, source: FrameSource) -> int:
        return self.folder.state.get("dropped", 0) + source.dropped

    def _progress(self, reading: FrameReading, source: FrameSource) -> VideoProgress:
        fps = self._read / max(time.monotonic() - self._started, 1e-6)
        return VideoProgress(self.folder.counts["frames"], source.frames, reading.seconds, fps, self._dropped(source))

    def _finish(self, source: FrameSource, record: Mapping[str, Any], complete: bool) -> dict[str, Any]:
        elapsed = self._elapsed()
        changes = self._finder.finish()
        self.folder.add_events(changes.ended)
        if self._clip is not None:
            self._clip.finish(resumable=True)
        longest = max(_STANDSTILL, 2 * _interval(source)) if source.live else None
        speed = {
            "dropped": self._dropped(source),
            "read_seconds": round(elapsed, 3),
            "read_fps": round(self.folder.counts["frames"] / max(elapsed, 1e-6), 2),
        }
        summary = self.folder.finish({**record, "options": asdict(self.options), **speed}, complete, longest)
        if changes.began or changes.ended:
            self.listener.on_events(changes)
        return summary


def _selection(options: VideoOptions) -> dict[str, Any]:
    """The options that say which frames are read."""
    return {name: getattr(options, name) for name in ("every", "start", "end", "limit", "fps")}


def _interval(source: FrameSource) -> float:
    return 1 / source.fps if source.fps else 0.0
