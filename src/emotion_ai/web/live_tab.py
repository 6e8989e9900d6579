"""The tab that reads the webcam."""

import time
from typing import Any

import gradio as gr

from emotion_ai.errors import EmotionAIError
from emotion_ai.video import FaceTracker
from emotion_ai.web import render
from emotion_ai.web.components import PRIVATE, STATE_SECONDS, PageContext, picture_input, version_dropdown
from emotion_ai.web.session import detect, with_own_threshold, with_threshold

FRAME_SECONDS = 0.15
"""Shortest time between two frames."""

LIMIT_SECONDS = 600
"""Longest time that the webcam runs without a new start."""


class LiveTab:
    """Reads the frames of the webcam and smooths them over time; built inside a `gr.Tab`.

    Args:
        context: of the page.
        threshold: the inputs of the abstention threshold: whether it is the version's own, and another one.
    """

    def __init__(self, context: PageContext, threshold: tuple[gr.Checkbox, gr.Slider]) -> None:
        self._context = context
        tracker = gr.State(None, time_to_live=STATE_SECONDS)
        with gr.Column(scale=2, min_width=300):
            camera = picture_input("Webcam", context.uploads, streaming=True)
            self.choice = version_dropdown("Version or label", context.choices)
        with gr.Column(scale=3, min_width=300):
            hint = render.hint("Start the webcam. Its frames are read several times a second and smoothed over time.")
            result = gr.HTML(hint, elem_id="live")
        camera.stream(
            self.read,
            [camera, tracker, self.choice, *threshold],
            [result, tracker],
            show_progress="hidden",
            stream_every=FRAME_SECONDS,
            time_limit=LIMIT_SECONDS,
            concurrency_limit=4,
            **PRIVATE,
        )

    def read(
        self, content: bytes | None, tracker: FaceTracker | None, choice: str, own: bool, other: float
    ) -> tuple[Any, FaceTracker]:
        """Reads one frame."""
        tracker = tracker or FaceTracker()
        if content is None:
            return gr.skip(), tracker
        started = time.perf_counter()
        try:
            detected = detect(content)
            readings = self._context.session.read(detected, choice)
        except EmotionAIError as error:
            return render.error_notice(error), tracker
        models = self._context.source.models
        readings = with_own_threshold(readings, models) if own else with_threshold(readings, other)
        faces = [face.reading for face in tracker(readings.faces, time.monotonic())]
        return render.frame(detected, faces, readings.version, time.perf_counter() - started), tracker
