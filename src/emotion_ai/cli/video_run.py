"""What `emotion-ai video` does: a video in; its table, events, totals and pictures out."""

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from emotion_ai.cli.patience import PatientReader
from emotion_ai.cli.readers import ReaderOptions, local_record
from emotion_ai.cli.signals import terminable
from emotion_ai.client import FaceClient
from emotion_ai.client.address import without_login
from emotion_ai.errors import ClientError, ConfigError, VideoError
from emotion_ai.inference.results import PhotoReader
from emotion_ai.terminal import Console, Progress, printable
from emotion_ai.video.analysis import VideoListener, VideoOptions, VideoProgress, analyze
from emotion_ai.video.events import Event, EventChanges
from emotion_ai.video.folder import SUMMARY, VideoOutput
from emotion_ai.video.frames import FrameReading
from emotion_ai.video.notice import LAW, NOTICE
from emotion_ai.video.webhook import Webhook


@dataclass(frozen=True)
class VideoCommand(ReaderOptions):
    """Options of `emotion-ai video`, besides those of `ReaderOptions` and `VideoOptions`.

    Attributes:
        source: a file, a folder of frames, the number of a camera, or the URL of a stream.
        out: folder for the results; by default the source's name with -video.
        table: "csv" or "parquet".
        clip: writes annotated.mp4.
        thumbnails: shows faces in timeline.png.
        json_lines: prints the beginning and the end of events.
        webhook: URL to which they are posted.
        resume: continues a run that ended early.
        overwrite: replaces the results of another run.
    """

    source: str
    out: Path | None = None
    table: str = "csv"
    clip: bool = False
    thumbnails: bool = False
    json_lines: bool = False
    webhook: str | None = None
    resume: bool = False
    overwrite: bool = False


def video_command(command: VideoCommand, options: VideoOptions) -> int:
    """Reads a video with a served model, or with the bundled weights, and writes what it shows.

    Returns:
        The exit code: 0, or 130 after Ctrl-C, except for a live source, which ends by it.

    Raises:
        ConfigError: options contradict each other, or the folder has results of another run.
        VideoError: the source cannot be opened or decoded.
        ClientError: the server does not answer, or stays away.
        MissingExtraError: no server is given and PyTorch is not installed.
    """
    _check(command)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"{NOTICE} {LAW}")
    out = command.out or Path(default_folder(command.source))
    output = VideoOutput(
        out,
        cast(Literal["csv", "parquet"], command.table),
        clip=command.clip,
        thumbnails=command.thumbnails,
        resume=command.resume,
        overwrite=command.overwrite,
    )
    with terminable(), ExitStack() as stack:
        progress = stack.enter_context(_progress(console))

        def notify(line: str) -> None:
            progress.console.print(printable(line), highlight=False, soft_wrap=True)

        hook = stack.enter_context(Webhook(command.webhook, notify)) if command.webhook else None
        reader = stack.enter_context(command.opened(options.uncertain_below))
        shown = _Shown(without_login(command.source), progress, command.json_lines, hook)
        listener = VideoListener(shown.frame, shown.events, notify)
        patient = PatientReader(reader, command.timeout, notify)
        try:
            summary = analyze(command.source, patient, output, options, listener, _model_record(command, reader))
        except KeyboardInterrupt:
            notify(f"interrupted{_rest(out)}")
            return 130
        except BrokenPipeError:
            notify(f"standard output was closed{_rest(out)}")
            raise
        except (ClientError, VideoError) as error:
            if shown.frames:
                raise type(error)(f"{error}{_rest(out)}") from error
            raise
    if hook is not None:
        console.print(f"webhook {hook.name}: sent {hook.counts.sent}, given up {hook.counts.given_up}")
    frames, tracks = summary["frames"], len(summary["tracks"])
    console.wrote(out, f"{frames} frames, {tracks} tracks, {summary['events']} events")
    return 0


def _rest(out: Path) -> str:
    """What is left to do after a run that ended early; nothing where it has no results, or cannot be resumed."""
    summary = out / SUMMARY
    if not summary.exists() or json.loads(summary.read_text("utf-8")).get("complete"):
        return ""
    return f"; {out} has the results so far, and the same command with --resume reads the rest"


def default_folder(source: str) -> str:
    """The name of the results' folder, from the source's: clip-video for clip.mp4."""
    if source.isdigit():
        return f"camera-{source}-video"
    if "://" in source:
        parts = urlsplit(source)
        name = Path(parts.path).stem or parts.hostname or "stream"
    else:
        name = Path(source).resolve().stem
    name = re.sub(r"[^\w.-]+", "-", name).lstrip("-")[:60]
    return f"{name or 'source'}-video"


def _check(command: VideoCommand) -> None:
    if command.table not in ("csv", "parquet"):
        raise ConfigError(f"--table must be csv or parquet, got {command.table!r}")
    if command.model not in ("face", "keypoints"):
        raise ConfigError(f"--model must be face or keypoints: tracks need points; got {command.model!r}")
    if command.resume and command.overwrite:
        raise ConfigError("--resume continues a run and --overwrite replaces it; give one of them")
    command.check()


def _model_record(command: VideoCommand, reader: PhotoReader) -> dict[str, Any]:
    """What `summary.json` says about the model."""
    if not isinstance(reader, FaceClient):
        return {"model": {"weights": "bundled", **local_record(reader)}}
    record: dict[str, Any] = {"server": str(command.server), "model": command.model}
    try:
        record["version"] = int(reader.metadata()["model_spec"]["version"])
    except (ClientError, LookupError, TypeError, ValueError):  # it answers nevertheless, or soon
        record["version"] = command.version
    return {"model": record}


@dataclass
class _Shown:
    """What is printed and sent while a video is read."""

    source: str
    progress: Progress
    json_lines: bool
    hook: Webhook | None

    def __post_init__(self) -> None:
        self.frames = 0
        self._task = self.progress.add_task("reading", total=None, fps="")

    def frame(self, reading: FrameReading, progress: VideoProgress) -> None:
        self.frames += 1
        dropped = f", {progress.dropped} dropped" if progress.dropped else ""
        total = None if progress.total is None else max(progress.total, progress.frames)
        self.progress.update(self._task, completed=progress.frames, total=total, fps=f"{progress.fps:.1f} fps{dropped}")

    def events(self, changes: EventChanges) -> None:
        for event in changes.began:
            self._event("began", event)
        for event in changes.ended:
            self._event("ended", event)

    def _event(self, what: str, event: Event) -> None:
        times = {"end": None} if what == "began" else {}
        message: Mapping[str, Any] = {"event": what, "id": event.key, "source": self.source, **event.as_dict(), **times}
        if self.json_lines:
            _print(json.dumps(message))
        if self.hook is not None:
            self.hook.send(message)


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)
