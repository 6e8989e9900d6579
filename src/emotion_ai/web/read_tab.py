"""The tab that reads a picture."""

from dataclasses import dataclass, replace
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
from emotion_ai.web.session import DetectedFaces, VersionReadings, activation_maps, detect, with_threshold
from emotion_ai.web.version_info import read_version_info


@dataclass(frozen=True)
class PictureState:
    """What a window keeps of its picture; `readings` is None until the server responds."""

    detected: DetectedFaces
    readings: VersionReadings | None = None


class ReadTab:
    """Reads a picture and shows its faces; built inside a `gr.Tab`.

    Attributes:
        choice: the version to read with.
        threshold: the abstention threshold.
        outputs: the result and the `PictureState`.
        inputs: what `retry` takes: the `PictureState`, the version and the options of drawing.
    """

    def __init__(self, context: PageContext) -> None:
        self._context = context
        versions = context.source.versions
        info = read_version_info(context.source.models, versions[-1]) if context.source.models and versions else None
        state = gr.State(None, time_to_live=STATE_SECONDS)
        with gr.Row(equal_height=False, elem_classes="ea-desk"):
            with gr.Column(scale=2, min_width=300):
                with gr.Column():
                    picture = picture_input("Picture")
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
                    self.threshold = gr.Slider(
                        0,
                        0.99,
                        info.uncertain_below if info else 0,
                        step=0.01,
                        label="Uncertain below",
                        info="Probability. " + ("The default is the model card's." if info else "0 turns it off."),
                    )
            with gr.Column(scale=3, min_width=300):
                result = gr.HTML(render.hint(EMPTY), elem_id="result")
        options = [self.threshold, names, ellipses, maps]
        self.outputs = [result, state]
        self.inputs = [state, self.choice, *options]
        on_picture(picture, buttons, self.read, self.inputs[1:], self.outputs, (render.hint(EMPTY), None))
        self.choice.input(self.retry, self.inputs, self.outputs, **PRIVATE)
        for option in (names, ellipses, maps):
            option.input(self.draw, [state, *options], result, **PRIVATE)
        self.threshold.change(self.draw, [state, *options], result, trigger_mode="always_last", **PRIVATE)

    def read(
        self, content: bytes | None, choice: str, threshold: float, names: bool, ellipses: bool, maps: bool
    ) -> tuple[Any, Any]:
        """Detects the faces of a new picture and reads them."""
        if content is None:  # cleared by an example or the cross, which set the result themselves
            return gr.skip(), gr.skip()
        try:
            detected = detect(content)
        except EmotionAIError as error:
            return render.error_notice(error), None
        return self.retry(PictureState(detected), choice, threshold, names, ellipses, maps)

    def retry(
        self, state: PictureState | None, choice: str, threshold: float, names: bool, ellipses: bool, maps: bool
    ) -> tuple[Any, Any]:
        """Reads the same faces again, with another version or after an error."""
        if state is None:
            return gr.skip(), gr.skip()
        try:
            state = replace(state, readings=self._context.session.read(state.detected, choice))
        except ClientError as error:
            return render.error_notice(error), PictureState(state.detected)
        return self.draw(state, threshold, names, ellipses, maps), state

    def draw(self, state: PictureState | None, threshold: float, names: bool, ellipses: bool, maps: bool) -> Any:
        """Shows the readings with other options, without another request."""
        if state is None or state.readings is None:
            return gr.skip()
        readings = replace(state.readings, faces=with_threshold(state.readings.faces, threshold))
        notice, face_maps = "", None
        if maps and self._context.source.models:
            try:
                face_maps = activation_maps(self._context.source.models, state.detected, readings)
            except EmotionAIError as error:
                notice = render.notice("The activation map cannot be shown", str(error))
        return notice + render.result(state.detected, readings, names, ellipses, face_maps)
