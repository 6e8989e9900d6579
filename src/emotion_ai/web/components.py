"""Inputs that the tabs of the page share."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from emotion_ai.web.backend import ModelSource
from emotion_ai.web.examples import examples
from emotion_ai.web.session import NEWEST, ModelSession

STATE_SECONDS = 900
"""How long a window's faces are kept."""

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Of every event: the page has no public API."""

EMPTY = "Upload, paste or take a picture, or choose an example."

Choices = list[tuple[str, str]]


@dataclass(frozen=True)
class PageContext:
    """What every tab needs.

    Attributes:
        source: the models that the page uses.
        session: reads faces with them.
        choices: versions and labels when the page is built; None if the server cannot be reached.
    """

    source: ModelSource
    session: ModelSession
    choices: Choices | None


def picture_input(label: str, streaming: bool = False) -> Any:
    """An image input whose handlers get the file's bytes, so that decoding and its errors are ours."""
    image: Any = gr.Image(
        label=label,
        sources=["webcam"] if streaming else ["upload", "clipboard", "webcam"],
        streaming=streaming,
        type="filepath",
        height=320,
        buttons=[],
        webcam_options=gr.WebcamOptions(mirror=False, constraints={"video": {"width": {"ideal": 640}}}),
    )
    image.preprocess = _content
    return image


def example_buttons() -> list[tuple[gr.Button, bytes]]:
    """A row of buttons, each with the picture that it stands for."""
    with gr.Row(elem_classes="ea-examples"):
        return [
            (gr.Button(name, elem_classes=f"ea-example-{i}"), content)
            for i, (name, content) in enumerate(examples().items())
        ]


def version_dropdown(label: str, choices: Choices | None) -> gr.Dropdown:
    """A choice of version or label."""
    return gr.Dropdown(choices or [("newest", NEWEST)], value=NEWEST, label=label, filterable=False)


def on_picture(
    picture: gr.Image,
    buttons: list[tuple[gr.Button, bytes]],
    read: Callable[..., Any],
    inputs: list[Any],
    outputs: list[Any],
    empty: Any,
) -> None:
    """Calls `read(content, *inputs)` on a new picture or an example; clears the outputs to `empty`."""
    picture.change(read, [picture, *inputs], outputs, **PRIVATE)
    picture.clear(lambda: empty, None, outputs, **PRIVATE)
    for button, content in buttons:
        button.click(None, None, picture, js="() => null", **PRIVATE).then(
            _with_content(read, content), inputs, outputs, **PRIVATE
        )


def _with_content(read: Callable[..., Any], content: bytes) -> Callable[..., Any]:
    return lambda *inputs: read(content, *inputs)


def _content(payload: Any) -> bytes | None:
    if payload is None:
        return None
    if payload.url and payload.url.startswith("data:"):
        return base64.b64decode(payload.url.partition(",")[2])
    try:
        return Path(payload.path).read_bytes()  # the guard has checked that it is an upload
    except OSError as error:
        raise gr.Error("This upload has been deleted; add the picture again.") from error
