"""The tab that reads a picture."""

from dataclasses import dataclass, replace
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
    threshold_slider,
    version_dropdown,
)
from emotion_ai.web.session import (
    DetectedFaces,
    VersionReadings,
    activation_maps,
    detect,
    with_own_threshold,
    with_threshold,
)


@dataclass(frozen=True)
class PictureState:
    """What a window keeps of its picture; `readings` is None until the server responds."""

    detected: DetectedFaces
    readings: VersionReadings | None = None


_TAB = "read"


class ReadTab:
    """Reads a picture and shows its faces; built inside a `gr.Tab`.

    Attributes:
        choice: the version to read with.
        threshold: the inputs of the abstention threshold: whether it is the version's own, and another one.
        output: the result.
        inputs: what `retry` takes: the version and the options of drawing.
    """

    def __init__(self, context: PageContext) -> None:
        self._context = context
        with gr.Row(equal_height=False, elem_classes="ea-desk"):
            with gr.Column(scale=2, min_width=300):
                with gr.Column():
                    picture = picture_input("Picture", context.uploads)
                    buttons = example_buttons()
                with gr.Column(elem_classes="ea-choices"):
                    self.choice = version_dropdown("Version or label", context.choices)
                    names = gr.Checkbox(False, label="Keypoint names")
                    ellipses = gr.Checkbox(False, label="Keypoint uncertainty", info="95 % ellipses")
                    maps = gr.Checkbox(
                        False,
                        label="Activation map",
                        info="What the emotion network responds to (Grad-CAM)",
                        visible=context.source.models is not None,
                    )
                    own = gr.Checkbox(True, label="The version's own threshold")
                    other = threshold_slider()
            with gr.Column(scale=3, min_width=300):
                self.output = gr.HTML(render.hint(EMPTY), elem_id="result")
        self.threshold = (own, other)
        options = [own, other, names, ellipses, maps]
        self.inputs = [self.choice, *options]
        on_picture(picture, buttons, self.read, self.clear, self.inputs, self.output)
        self.choice.input(self.retry, self.inputs, self.output, **PRIVATE)
        for option in (own, names, ellipses, maps):
            option.input(self.draw, self.inputs, self.output, **PRIVATE)
        other.input(self.draw_below, self.inputs, [own, self.output], trigger_mode="always_last", **PRIVATE)

    def clear(self, request: gr.Request) -> str:
        """Forgets the picture."""
        self._context.forget(request, _TAB)
        return render.hint(EMPTY)

    def read(self, request: gr.Request, content: bytes | None, choice: str, *options: Any) -> Any:
        """Detects the faces of a new picture and reads them."""
        if content is None:  # cleared by an example or the cross, which set the result themselves
            return gr.skip()
        reading = self._context.begin(request, _TAB)
        try:
            state = PictureState(detect(content))
        except EmotionAIError as error:
            self._context.forget(request, _TAB)
            return render.error_notice(error)
        self._context.keep(request, _TAB, state, state.detected.nbytes)
        return self._read(request, state, *(reading.options or (choice, *options)))

    def retry(self, request: gr.Request, choice: str, *options: Any) -> Any:
        """Reads the same faces again, with another version."""
        state: PictureState | None = self._context.kept_picture(request, _TAB, (choice, *options))
        return self._read(request, state, choice, *options) if state else gr.skip()

    def recover(self, request: gr.Request, choice: str, *options: Any) -> Any:
        """Reads the picture if the server did not respond when it was added."""
        state: PictureState | None = self._context.kept_picture(request, _TAB)
        return self._read(request, state, choice, *options) if state and not state.readings else gr.skip()

    def draw(self, request: gr.Request, choice: str, *options: Any) -> Any:
        """Shows the readings with other options, without another request."""
        state: PictureState | None = self._context.kept_picture(request, _TAB, (choice, *options))
        if state is None:
            return gr.skip()
        return self._draw(state, *options) if state.readings else self._read(request, state, choice, *options)

    def draw_below(self, request: gr.Request, choice: str, _own: bool, *options: Any) -> tuple[bool, Any]:
        """Shows the readings with another threshold than the version's own."""
        return False, self.draw(request, choice, False, *options)

    def _read(self, request: gr.Request, state: PictureState, choice: str, *options: Any) -> Any:
        try:
            state, failed = replace(state, readings=self._context.session.read(state.detected, choice)), None
        except ClientError as error:
            state, failed = PictureState(state.detected), error
        self._context.keep(request, _TAB, state, state.detected.nbytes)
        return render.error_notice(failed) if failed else self._draw(state, *options)

    def _draw(self, state: PictureState, own: bool, other: float, names: bool, ellipses: bool, maps: bool) -> Any:
        assert state.readings is not None
        models = self._context.source.models
        readings = with_own_threshold(state.readings, models) if own else with_threshold(state.readings, other)
        notice, face_maps = "", None
        if maps and models:
            try:
                face_maps = activation_maps(models, state.detected, readings)
            except EmotionAIError as error:
                notice = render.notice("The activation map cannot be shown", str(error))
        return notice + render.result(state.detected, readings, names, ellipses, face_maps)
