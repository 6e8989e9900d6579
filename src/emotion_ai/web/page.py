"""The layout of the page: header, tabs and footer, and the check that the server is there."""

from collections.abc import Callable
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gradio as gr

from emotion_ai.errors import ClientError
from emotion_ai.web import render
from emotion_ai.web.backend import ModelSource
from emotion_ai.web.compare_tab import CompareTab
from emotion_ai.web.components import PRIVATE, STATE_SECONDS, Choices, PageContext
from emotion_ai.web.live_tab import LiveTab
from emotion_ai.web.model_tab import build_model_tab
from emotion_ai.web.read_tab import PictureState, ReadTab
from emotion_ai.web.session import ModelSession

UPLOAD_SECONDS = 20
"""Age at which an upload is deleted; checked four times as often."""

STATUS_SECONDS = 4.0
"""Time between two checks of the server."""


def build(source: ModelSource, session: ModelSession, folder: Path) -> gr.Blocks:
    """The page; uploads go to `folder`."""
    status_text, choices = server_status(session)
    context = PageContext(source, session, choices)
    delete_cache = (UPLOAD_SECONDS // 4, UPLOAD_SECONDS)
    with gr.Blocks(title="Emotion AI", analytics_enabled=False, delete_cache=delete_cache) as page:
        gr.HTML(
            '<header class="ea-head"><h1>Emotion AI</h1>'
            "<p>Finds 15 keypoints and the emotion of every face with a served model.</p></header>"
        )
        status, shown = gr.HTML(status_text), gr.State(status_text)
        with gr.Tabs():
            with gr.Tab("Read"):
                read = ReadTab(context)
            with gr.Tab("Live"), gr.Row(equal_height=False):
                live = LiveTab(context, read.threshold)
            with gr.Tab("Model"):
                build_model_tab(source, page)
            with gr.Tab("Compare"):
                compare = CompareTab(context)
        gr.HTML(_footer(source, folder))
        dropdowns = [read.choice, live.choice, compare.first, compare.second]
        gr.on(
            [page.load, gr.Timer(STATUS_SECONDS).tick],
            _check_server(session, read, len(dropdowns)),
            [shown, *read.inputs],
            [status, shown, *dropdowns, *read.outputs],
            show_progress="hidden",
            **PRIVATE,
        )
    return page.queue(max_size=32, default_concurrency_limit=2)


def server_status(session: ModelSession) -> tuple[str, Choices | None]:
    """The line that shows the server's state, and its versions and labels; None if it cannot be reached."""
    try:
        choices = session.choices()
    except ClientError as error:
        return f'<p class="ea-status">{escape(render.heading(error))}: {escape(str(error))}</p>', None
    names = ", ".join(name for name, _ in choices[1:]) or "no version yet"
    return f'<p class="ea-status ea-up">{escape(session.url)} serves {escape(names)}</p>', choices


def _check_server(session: ModelSession, read: ReadTab, dropdowns: int) -> Callable[..., tuple[Any, ...]]:
    """Updates status and dropdowns; reads the picture if the server did not respond before and does now."""

    def check(shown: str, state: PictureState | None, *options: Any) -> tuple[Any, ...]:
        text, choices = server_status(session)
        result = (gr.skip(), gr.skip())
        if choices and state and not state.readings:
            result = read.retry(state, *options)
        if text == shown:
            return *[gr.skip()] * (2 + dropdowns), *result
        return text, text, *[gr.update(choices=choices) if choices else gr.skip()] * dropdowns, *result

    return check


def _footer(source: ModelSource, folder: Path) -> str:
    place = "in this computer's memory" if folder.is_relative_to("/dev/shm") else "on this computer"
    versions = " · ".join(f"{name} {version(name)}" for name in ("emotion-ai", "gradio"))
    return (
        '<footer class="ea-foot"><p>Pictures are not stored. Uploads are deleted from a private folder '
        f"{place} within {UPLOAD_SECONDS + UPLOAD_SECONDS // 4 + 5} seconds; this window keeps smaller copies "
        f"for at most {STATE_SECONDS // 60} minutes. Crops of the faces are sent to the model server, "
        f"{escape(source.url)}, and nothing is sent anywhere else.</p><p>{versions}</p></footer>"
    )
