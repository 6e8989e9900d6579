"""Reads one video for the page, in a process of its own: python -m emotion_ai.web.video_worker VIDEO OUT.

The task is a line of JSON on stdin, which stays open as long as the page runs. Progress, and then the result or an
error, are lines of JSON on stdout. SIGINT ends the reading; the result is then what was read.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_ai.client import FaceClient
from emotion_ai.errors import EmotionAIError, VideoError
from emotion_ai.terminal import one_line, printable
from emotion_ai.video.frames import FrameReading
from emotion_ai.web.lanes import SEEN
from emotion_ai.web.video_process import Progress, VideoTask

if TYPE_CHECKING:
    from emotion_ai.video.analysis import VideoProgress

MAX_VIDEO_SECONDS = 600.0
"""How much of a video is read."""

MAX_MEMORY = 4 * 2**30
"""Bytes of address space."""

MAX_FILE_BYTES = 512 * 2**20
"""Of one result."""

PROGRESS_SECONDS = 0.5
"""Time between two lines of progress."""

_MAX_TRACKS = 200  # in the result; all of them are in summary.json
_MAX_EVENTS = 5000
_BINS = 2000  # parts of the video, each with one verdict of a track
_SERVER_SECONDS = (3.05, 30.0)  # to connect, and for a response


class Worker:
    """Reads a video as a task says, and writes how far it is."""

    def __init__(self, task: VideoTask) -> None:
        self.task, self._written, self._notes = task, 0.0, dict[str, None]()

    def read(self, file: Path, out: Path) -> dict[str, Any]:
        """What was found, as the fields of `VideoResult`.

        Raises:
            EmotionAIError: no frame could be read, or the extra [video] is not installed.
        """
        from emotion_ai.video.analysis import VideoListener, VideoOptions, analyze  # imports PyAV and pyarrow
        from emotion_ai.video.folder import VideoOutput

        task = self.task
        options = VideoOptions(every=task.every, end=MAX_VIDEO_SECONDS, uncertain_below=task.uncertain_below)
        output = VideoOutput(out, clip=task.clip, thumbnails=task.thumbnails)
        listener = VideoListener(on_frame=self._show, notify=self._note)
        client = FaceClient(
            task.server,
            version=task.version,
            signature=task.signature,
            uncertain_below=task.uncertain_below,
            timeout=_SERVER_SECONDS,
            log=task.log,
        )
        with client:
            classes = client.class_names()
            try:
                analyze(file, client, output, options, listener, {"version": task.version})
            except KeyboardInterrupt:
                self._note("Reading was stopped.")
            except EmotionAIError as error:
                if not _frames(out):
                    raise
                self._note(sentence(error))
            if not _frames(out):
                raise VideoError("this video was stopped before its first frame")
            return self._result(out, classes)

    def _result(self, out: Path, classes: tuple[str, ...]) -> dict[str, Any]:
        from emotion_ai.video.summary import lanes

        summary = json.loads((out / "summary.json").read_text("utf-8"))
        seen = sorted(summary["tracks"], key=lambda track: -track["seconds"])[:_MAX_TRACKS]
        end = summary["seconds"]
        found = lanes(out / "rows.csv", sorted(track["track"] for track in seen), 0.0, end, _BINS)
        events = json.loads((out / "events.json").read_text("utf-8"))
        if end >= MAX_VIDEO_SECONDS - 1:
            self._note(f"Only the first {MAX_VIDEO_SECONDS / 60:.0f} minutes were read.")
        return {
            "seconds": end,
            "frames": summary["frames"],
            "version": self.task.version,
            "classes": classes,
            "tracks": {
                track: [(span.start, span.end, span.verdict or SEEN) for span in spans]
                for track, spans in found.items()
            },
            "events": events[:_MAX_EVENTS],
            "notes": list(self._notes),
        }

    def _show(self, _: FrameReading, progress: "VideoProgress") -> None:
        if (now := time.monotonic()) < self._written + PROGRESS_SECONDS:
            return
        self._written = now
        write({"progress": asdict(Progress(progress.frames, progress.total, progress.seconds, progress.fps))})

    def _note(self, text: str) -> None:
        if len(self._notes) < 5:
            self._notes[text] = None


def _frames(out: Path) -> int:
    """How many frames the results cover."""
    summary = out / "summary.json"
    return int(json.loads(summary.read_text("utf-8"))["frames"]) if summary.is_file() else 0


def sentence(error: object) -> str:
    """An error as a sentence; a file's name, with which it may begin, stays as it is."""
    text = printable(one_line(str(error)))
    named = ": " in text
    return f"{text[:1] if named else text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def write(message: Mapping[str, Any]) -> None:
    """Writes a line to the page."""
    print(json.dumps(message), flush=True)


def _limit() -> None:
    """Limits what a hostile video can take."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)  # the page itself comes first


def _end_with_page() -> None:
    """Ends this process as soon as stdin is closed."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Reads the video that the arguments name."""
    file, out = map(Path, sys.argv[1:])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    task = VideoTask(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_page, daemon=True).start()
    _limit()
    try:
        write({"result": Worker(task).read(file, out)})
    except (EmotionAIError, OSError) as error:
        write({"error": sentence(error)})
    except KeyboardInterrupt:
        write({"error": "This video was stopped before its first frame."})
    except MemoryError:
        write({"error": "This video takes too much memory; add one with smaller frames."})


if __name__ == "__main__":
    main()
