"""The tab that reads the webcam."""

import time
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from emotion_ai.errors import EmotionAIError, NoFaceError
from emotion_ai.video import FaceTracker
from emotion_ai.video.frames import TrackedFace
from emotion_ai.web import render
from emotion_ai.web.components import PRIVATE, STATE_SECONDS, PageContext, picture_input, version_dropdown
from emotion_ai.web.lanes import Lanes, draw_lanes, draw_legend
from emotion_ai.web.session import detect, with_own_threshold, with_threshold

FRAME_SECONDS = 0.15
"""Shortest time between two frames."""

LIMIT_SECONDS = 600
"""Longest time that the webcam runs without a new start."""

SHOWN_SECONDS = 30.0
"""Of the timeline below the picture."""


@dataclass
class LiveState:
    """What is remembered from one frame to the next: no pictures but small gray ones of the faces.

    Attributes:
        tracker: numbers and smooths the faces.
        lanes: what the tracks have shown lately.
        started: time of the first frame, by the monotonic clock.
    """

    tracker: FaceTracker = field(default_factory=FaceTracker)
    lanes: Lanes = field(default_factory=lambda: Lanes(SHOWN_SECONDS))
    started: float = field(default_factory=time.monotonic)

    def add(self, faces: list[Any], rgb: Any = None) -> tuple[TrackedFace, ...]:
        """The faces of a frame that was just read, tracked and smoothed."""
        seconds = time.monotonic() - self.started
        tracked = self.tracker(faces, seconds, rgb)
        self.lanes.add(seconds, tracked)
        return tracked

    def timeline(self) -> str:
        """The lanes of the last seconds."""
        end = max(time.monotonic() - self.started, SHOWN_SECONDS)
        tracks, classes = self.lanes.tracks, self.lanes.classes
        drawn = draw_lanes(tracks, end - SHOWN_SECONDS, end, classes) + draw_legend(tracks, classes)
        return render.live_timeline(drawn, SHOWN_SECONDS)


class LiveTab:
    """Reads the frames of the webcam, and tracks and smooths their faces; built inside a `gr.Tab`.

    Args:
        context: of the page.
        threshold: the inputs of the abstention threshold: whether it is the version's own, and another one.
    """

    def __init__(self, context: PageContext, threshold: tuple[gr.Checkbox, gr.Slider]) -> None:
        self._context = context
        state = gr.State(None, time_to_live=STATE_SECONDS)
        with gr.Column(scale=2, min_width=300):
            camera = picture_input("Webcam", context.uploads, streaming=True)
            self.choice = version_dropdown("Version or label", context.choices)
            gr.HTML(render.law())
        with gr.Column(scale=3, min_width=300):
            hint = "Start the webcam. Its frames are read several times a second; each face is followed and smoothed."
            result = gr.HTML(render.hint(hint), elem_id="live")
        camera.stream(
            self.read,
            [camera, state, self.choice, *threshold],
            [result, state],
            show_progress="hidden",
            stream_every=FRAME_SECONDS,
            time_limit=LIMIT_SECONDS,
            concurrency_limit=4,
            **PRIVATE,
        )

    def read(
        self, content: bytes | None, state: LiveState | None, choice: str, own: bool, other: float
    ) -> tuple[Any, LiveState]:
        """Reads one frame."""
        state = state or LiveState()
        if content is None:
            return gr.skip(), state
        started = time.perf_counter()
        try:
            detected = detect(content)
            readings = self._context.session.read(detected, choice)
        except NoFaceError as error:
            state.add([])
            return render.error_notice(error) + state.timeline(), state
        except EmotionAIError as error:
            return render.error_notice(error), state
        models = self._context.source.models
        readings = with_own_threshold(readings, models) if own else with_threshold(readings, other)
        tracked = state.add(readings.faces, detected.rgb if detected.scale == 1 else None)
        shown = render.frame(detected, tracked, readings.version, time.perf_counter() - started)
        return shown + state.timeline(), state
