"""The tab that compares two versions on one picture."""

from typing import Any

import gradio as gr

from emotion_ai.errors import ClientError, EmotionAIError
from emotion_ai.web import render
from emotion_ai.web.components import (
    EMPTY,
    PRIVATE,
    STATE_SECONDS,
    PageContext,
    example_buttons,
    on_picture,
    picture_input,
    version_dropdown,
)
from emotion_ai.web.session import DetectedFaces, detect, differences


class CompareTab:
    """Reads a picture with two versions and shows how they differ; built inside a `gr.Tab`."""

    def __init__(self, context: PageContext) -> None:
        self._session = context.session
        detected = gr.State(None, time_to_live=STATE_SECONDS)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                picture = picture_input("Picture to compare on")
                buttons = example_buttons()
                self.first = version_dropdown("A", context.choices)
                self.second = version_dropdown("B", context.choices)
                names = gr.Checkbox(False, label="Keypoint names")
            with gr.Column(scale=3, min_width=300):
                result = gr.HTML(render.hint(EMPTY), elem_id="compared")
        options: list[gr.Dropdown | gr.Checkbox] = [self.first, self.second, names]
        on_picture(picture, buttons, self.read, options, [result, detected], (render.hint(EMPTY), None))
        for option in options:
            option.input(self.compare, [detected, *options], result, **PRIVATE)

    def read(self, content: bytes | None, first: str, second: str, names: bool) -> tuple[Any, Any]:
        """Detects the faces of a new picture and compares the versions on them."""
        if content is None:
            return gr.skip(), gr.skip()
        try:
            detected = detect(content)
        except EmotionAIError as error:
            return render.error_notice(error), None
        return self.compare(detected, first, second, names), detected

    def compare(self, detected: DetectedFaces | None, first: str, second: str, names: bool) -> Any:
        """Compares two versions on the same faces."""
        if detected is None:
            return gr.skip()
        try:
            one, other = self._session.read(detected, first), self._session.read(detected, second)
        except ClientError as error:
            return render.error_notice(error)
        return render.comparison(detected, one, other, differences(one, other), names)
