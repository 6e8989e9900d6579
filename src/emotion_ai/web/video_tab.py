"""The tab that reads a video."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from emotion_ai.errors import ClientError
from emotion_ai.web import render, video_view
from emotion_ai.web.components import PRIVATE, PageContext, version_dropdown
from emotion_ai.web.session import stored_threshold
from emotion_ai.web.video_process import VideoTask

RATES = {"every frame": "1", "10 a second": "10s", "5 a second": "5s", "2 a second": "2s"}
"""How many frames are read, and how the page's scripts write it."""

_ON_LOAD = """
element.addEventListener("ea-sent", (event) => { props.value = event.detail; trigger("input"); });
"""

REFRESH_SECONDS = 0.5
"""Time between two looks at the progress."""

MAX_WINDOWS = 64
"""Windows that show the progress of a video at the same time."""


class VideoTab:
    """Reads a video and shows who showed what, when; built inside a `gr.Tab`.

    Args:
        context: of the page.
        threshold: the inputs of the abstention threshold: whether it is the version's own, and another one.
    """

    def __init__(self, context: PageContext, threshold: tuple[gr.Checkbox, gr.Slider]) -> None:
        self._context = context
        with gr.Row(equal_height=False, elem_classes="ea-desk"):
            with gr.Column(scale=2, min_width=300):
                with gr.Column():
                    token = gr.HTML("", html_template=video_view.file_box(), js_on_load=_ON_LOAD)
                    stop = gr.Button("Stop, and show what was read", visible=False, size="md")
                    gr.HTML(render.law())
                with gr.Column(elem_classes="ea-choices"):
                    rate = gr.Dropdown(
                        [(name, value) for name, value in RATES.items()],
                        value="10s",
                        label="Frames to read",
                        filterable=False,
                    )
                    self.choice = version_dropdown("Version or label", context.choices)
                    clip = gr.Checkbox(True, label="Annotated clip")
                    thumbnails = gr.Checkbox(False, label="Faces in timeline.png")
            with gr.Column(scale=3, min_width=300):
                empty = (
                    "Add a video. Its faces are tracked and read, and their expressions become events on a timeline."
                )
                result = gr.HTML(render.hint(empty), elem_id="video")
        inputs = [token, self.choice, rate, *threshold, clip, thumbnails]
        token.input(self.read, inputs, [result, stop], show_progress="hidden", concurrency_limit=MAX_WINDOWS, **PRIVATE)
        stop.click(self.stop, token, None, **PRIVATE)

    async def read(
        self,
        request: gr.Request,
        token: str | None,
        choice: str,
        rate: str,
        own: bool,
        other: float,
        clip: bool,
        thumbnails: bool,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Reads a video that was uploaded; yields its progress, and then what was found."""
        if not token or rate not in RATES.values():
            yield gr.skip(), gr.skip()
            return
        videos, session = self._context.uploads.videos, self._context.session
        try:
            version, signature = await asyncio.to_thread(session.served, choice)
        except ClientError as error:
            yield render.error_notice(error), gr.update(visible=False)
            return
        task = VideoTask(
            session.url,
            version,
            signature,
            every=None if rate == "1" else f"{1 / int(rate[:-1]):g}s",
            uncertain_below=stored_threshold(self._context.source.models, version, signature) if own else other,
            clip=clip,
            thumbnails=thumbnails,
            log=session.log_folder,
        )
        video = videos.start(token, request.session_hash or "", task)
        if video is None:
            yield render.notice("This video is gone", "Add it again."), gr.update(visible=False)
            return
        shown = ""
        while not video.is_finished:
            text = video_view.video_state(video)
            yield text if text != shown else gr.skip(), gr.update(visible=True)
            shown = text
            await asyncio.sleep(REFRESH_SECONDS)
        yield video_view.video_state(video), gr.update(visible=False)

    def stop(self, token: str | None) -> None:
        """Ends the reading of a window's video; its results are shown."""
        self._context.uploads.videos.stop(token or "")
