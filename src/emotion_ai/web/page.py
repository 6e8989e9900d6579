"""The layout of the page: header, tabs and footer, and the check that the server is there."""

from collections.abc import Callable
from html import escape
from importlib.metadata import version
from typing import Any

import gradio as gr

from emotion_ai.errors import ClientError
from emotion_ai.web import render
from emotion_ai.web.backend import ModelSource
from emotion_ai.web.compare_tab import CompareTab
from emotion_ai.web.components import PRIVATE, STATE_SECONDS, Choices, PageContext
from emotion_ai.web.live_tab import LiveTab
from emotion_ai.web.messages import Kind
from emotion_ai.web.model_tab import build_model_tab
from emotion_ai.web.read_tab import ReadTab
from emotion_ai.web.session import ModelSession
from emotion_ai.web.uploads import UPLOAD_SECONDS, Uploads
from emotion_ai.web.video_tab import VideoTab

STATUS_SECONDS = 4.0
"""Time between two checks of the server."""


MAX_WINDOWS = 64
"""Windows of which Gradio remembers what they show; the oldest are forgotten."""

MAX_WAITING = 100
"""Requests that wait for their turn."""

_KINDS: dict[str, Kind] = {
    "dropdown": "text",
    "slider": "number",
    "checkbox": "flag",
    "state": "state",
    "html": "video",
}


def build(source: ModelSource, session: ModelSession, uploads: Uploads) -> tuple[gr.Blocks, PageContext]:
    """The page."""
    status_text, choices = server_status(session)
    context = PageContext(source, session, uploads, choices)
    with gr.Blocks(title="Emotion AI", analytics_enabled=False) as page:
        gr.HTML(
            '<header class="ea-head"><h1>Emotion AI</h1>'
            "<p>Finds 15 keypoints and the emotion of every face with a served model.</p></header>"
        )
        status, shown = gr.HTML(status_text), gr.State(status_text)
        with gr.Tabs():
            with gr.Tab("Read"):
                read = ReadTab(context)
            with gr.Tab("Video"):
                video = VideoTab(context, read.threshold)
            with gr.Tab("Live"), gr.Row(equal_height=False):
                live = LiveTab(context, read.threshold)
            with gr.Tab("Model"):
                build_model_tab(source, page)
            with gr.Tab("Compare"):
                compare = CompareTab(context)
        gr.HTML(_footer(session))
        dropdowns = [read.choice, video.choice, live.choice, compare.first, compare.second]
        gr.on(
            [page.load, gr.Timer(STATUS_SECONDS).tick],
            _check_server(session, read, len(dropdowns)),
            [shown, *read.inputs],
            [status, shown, *dropdowns, read.output],
            show_progress="hidden",
            **PRIVATE,
        )
        page.unload(context.close)
    page.state_session_capacity = MAX_WINDOWS
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=2), context


def handlers(page: gr.Blocks) -> dict[int, tuple[Kind, ...]]:
    """The inputs of each handler of the page, by its number."""
    handlers = {number: handler for number, handler in page.fns.items() if handler.fn}  # others run in the browser
    return {number: tuple(_kind(block) for block in handler.inputs) for number, handler in handlers.items()}


def _kind(block: Any) -> Kind:
    if isinstance(block, gr.Image):
        return "frame" if block.streaming else "picture"
    return _KINDS[block.get_block_name()]


def server_status(session: ModelSession) -> tuple[str, Choices | None]:
    """The line that shows the server's state, and its versions and labels; None if it cannot be reached."""
    try:
        choices = session.choices()
    except ClientError as error:
        return f'<p class="ea-status">{escape(render.heading(error))}: {escape(str(error))}</p>', None
    names = ", ".join(name for name, _ in choices[1:]) or "no version yet"
    return f'<p class="ea-status ea-up">{escape(session.shown_url)} serves {escape(names)}</p>', choices


def _check_server(session: ModelSession, read: ReadTab, dropdowns: int) -> Callable[..., tuple[Any, ...]]:
    """Updates status and dropdowns; reads the picture if the server did not respond before and does now."""

    def check(request: gr.Request, shown: str, *options: Any) -> tuple[Any, ...]:
        text, choices = server_status(session)
        result = read.recover(request, *options) if choices else gr.skip()
        if text == shown:
            return *[gr.skip()] * (2 + dropdowns), result
        return text, text, *[gr.update(choices=choices) if choices else gr.skip()] * dropdowns, result

    return check


def _footer(session: ModelSession) -> str:
    versions = " · ".join(f"{name} {version(name)}" for name in ("emotion-ai", "gradio"))
    return (
        '<footer class="ea-foot"><p>Pictures are not stored. An upload stays in the memory of the page\'s computer for '
        f"{UPLOAD_SECONDS:.0f} seconds, smaller copies of this window's last picture until you close it, for at most "
        f"{STATE_SECONDS // 60} minutes. A video is deleted once it has been read, its results as those pictures are. "
        f"Crops of the faces are sent to the model server, {escape(session.shown_url)}; nothing else is sent.</p>"
        f"<p>{versions}</p></footer>"
    )
