"""The tab that compares two versions on one picture."""

from typing import Any

import gradio as gr

from emotion_ai.errors import ClientError, EmotionAIError
from emotion_ai.web import render
from emotion_ai.web.components import (
    EMPTY,
    PRIVATE,
    PageContext,
    example_buttons,
    on_picture,
    picture_input,
    version_dropdown,
)
from emotion_ai.web.session import DetectedFaces, detect, differences

_TAB = "compare"


class CompareTab:
    """Reads a picture with two versions and shows how they differ; built inside a `gr.Tab`."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                picture = picture_input("Picture to compare on", context.uploads)
                buttons = example_buttons()
                self.first = version_dropdown("A", context.choices)
                self.second = version_dropdown("B", context.choices)
                names = gr.Checkbox(False, label="Keypoint names")
            with gr.Column(scale=3, min_width=300):
                result = gr.HTML(render.hint(EMPTY), elem_id="compared")
        options: list[gr.Dropdown | gr.Checkbox] = [self.first, self.second, names]
        on_picture(picture, buttons, self.read, self.clear, options, result)
        for option in options:
            option.input(self.compare, options, result, **PRIVATE)

    def clear(self, request: gr.Request) -> str:
        """Forgets the picture."""
        self._context.forget(request, _TAB)
        return render.hint(EMPTY)

    def read(self, request: gr.Request, content: bytes | None, first: str, second: str, names: bool) -> Any:
        """Detects the faces of a new picture and compares the versions on them."""
        if content is None:
            return gr.skip()
        reading = self._context.begin(request, _TAB)
        try:
            detected = detect(content)
        except EmotionAIError as error:
            self._context.forget(request, _TAB)
            return render.error_notice(error)
        self._context.keep(request, _TAB, detected, detected.nbytes)
        return self._compare(detected, *(reading.options or (first, second, names)))

    def compare(self, request: gr.Request, first: str, second: str, names: bool) -> Any:
        """Compares two versions on the same faces."""
        detected: DetectedFaces | None = self._context.kept_picture(request, _TAB, (first, second, names))
        return self._compare(detected, first, second, names) if detected else gr.skip()

    def _compare(self, detected: DetectedFaces, first: str, second: str, names: bool) -> Any:
        session = self._context.session
        try:
            one, other = session.read(detected, first), session.read(detected, second)
        except ClientError as error:
            return render.error_notice(error)
        return render.comparison(detected, one, other, differences(one, other), names)
