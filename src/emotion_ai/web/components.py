"""Inputs that the tabs of the page share."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import gradio as gr

from emotion_ai.web.backend import ModelSource
from emotion_ai.web.examples import examples
from emotion_ai.web.limits import network
from emotion_ai.web.session import NEWEST, ModelSession
from emotion_ai.web.store import Store
from emotion_ai.web.uploads import Uploads

STATE_SECONDS = 900
"""How long a window's faces are kept."""

_KEPT_BYTES = 256 * 2**20  # of the pictures of all windows

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Of every event: the page has no public API."""

EMPTY = "Upload, paste or take a picture, or choose an example."

Choices = list[tuple[str, str]]


@dataclass
class Reading:
    """A picture that is being read.

    Attributes:
        options: of its tab, if they were changed meanwhile.
    """

    options: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class KeptPicture:
    """What a window keeps.

    Attributes:
        tab: that the picture belongs to; "" if there is none.
        picture: what its tab makes of it, or a `Reading`.
        size: of the picture, in bytes.
        shown: tabs that show a result.
    """

    tab: str = ""
    picture: Any = None
    size: int = 0
    shown: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PageContext:
    """What every tab needs.

    Attributes:
        source: the models that the page uses.
        session: reads faces with them.
        uploads: pictures that wait for a handler.
        choices: versions and labels when the page is built; None if the server cannot be reached.
        kept: the last picture of each window.
    """

    source: ModelSource
    session: ModelSession
    uploads: Uploads
    choices: Choices | None
    kept: Store[KeptPicture] = field(default_factory=lambda: Store(_KEPT_BYTES, STATE_SECONDS))

    def begin(self, request: gr.Request, tab: str) -> Reading:
        """Notes that the tab reads a new picture, in place of the window's last one."""
        reading = Reading()
        self._put(request, replace(self._kept(request), tab=tab, picture=reading, size=0))
        return reading

    def keep(self, request: gr.Request, tab: str, picture: Any, size: int) -> None:
        """Keeps a picture of `size` bytes in place of the window's last one."""
        self._put(request, KeptPicture(tab, picture, size, self._kept(request).shown | {tab}))

    def kept_picture(self, request: gr.Request, tab: str, options: tuple[Any, ...] | None = None) -> Any:
        """The tab's picture; None if it is not kept, or still being read.

        Args:
            options: that were chosen for it; one that is being read gets them. If the tab shows a result whose picture
                is not kept, a message says so.
        """
        found = self._kept(request)
        if found.tab == tab and not isinstance(found.picture, Reading):
            return found.picture
        if found.tab == tab and options is not None:
            found.picture.options = options
        elif options is not None and tab in found.shown:
            gr.Warning("Only the last picture of a window is kept. To change this result, add its picture again.")
        return None

    def forget(self, request: gr.Request, tab: str) -> None:
        """Forgets the tab's picture, and that it shows a result."""
        found = self._kept(request)
        left = replace(KeptPicture() if found.tab == tab else found, shown=found.shown - {tab})
        if left.tab or left.shown:
            self._put(request, left)
        else:
            self.kept.drop(request.session_hash or "")

    def close(self, request: gr.Request) -> None:
        """Forgets what belongs to a window that was closed."""
        self.kept.drop(request.session_hash or "")
        self.uploads.videos.close_window(request.session_hash or "")

    def _kept(self, request: gr.Request) -> KeptPicture:
        return self.kept.get(request.session_hash or "") or KeptPicture()

    def _put(self, request: gr.Request, kept: KeptPicture) -> None:
        address = network(request.client.host if request.client else "")
        self.kept.put(request.session_hash or "", kept, kept.size, address)


def picture_input(label: str, uploads: Uploads, streaming: bool = False) -> Any:
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
    image.preprocess = lambda payload: _content(payload, uploads)
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


def threshold_slider() -> gr.Slider:
    """The abstention threshold; a number outside its range is taken for the nearest inside, none for 0."""
    slider: Any = gr.Slider(0, 0.99, 0, step=0.01, label="Uncertain below", info="Another threshold; 0 turns it off.")
    slider.preprocess = lambda value: min(max(value or 0.0, slider.minimum), slider.maximum)
    return cast("gr.Slider", slider)


def on_picture(
    picture: gr.Image,
    buttons: list[tuple[gr.Button, bytes]],
    read: Callable[..., Any],
    clear: Callable[[gr.Request], str],
    inputs: list[Any],
    output: gr.HTML,
) -> None:
    """Calls `read(request, content, *inputs)` on a new picture or an example, and `clear(request)` on the cross."""
    picture.change(read, [picture, *inputs], output, **PRIVATE)
    picture.clear(clear, None, output, **PRIVATE)
    for button, content in buttons:
        button.click(None, None, picture, js="() => null", **PRIVATE).then(
            _with_content(read, content), inputs, output, **PRIVATE
        )


def _with_content(read: Callable[..., Any], content: bytes) -> Callable[..., Any]:
    def read_example(request: gr.Request, *inputs: Any) -> Any:
        return read(request, content, *inputs)

    return read_example


def _content(payload: Any, uploads: Uploads) -> bytes | None:
    if payload is None:
        return None
    try:
        return uploads.take(payload.path or "")
    except LookupError as error:
        raise gr.Error("This picture waited for too long; add it again.", print_exception=False) from error
