"""The web application: the page behind the guard, with its style, on a socket."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import gradio as gr
import uvicorn
from fastapi import FastAPI

from emotion_ai.addresses import bind
from emotion_ai.errors import ConfigError
from emotion_ai.web import origins
from emotion_ai.web.backend import ModelSource
from emotion_ai.web.connections import protocol
from emotion_ai.web.examples import examples, thumbnail
from emotion_ai.web.guard import Guard
from emotion_ai.web.origins import Hosts
from emotion_ai.web.page import build, handlers
from emotion_ai.web.render import data_uri
from emotion_ai.web.session import ModelSession
from emotion_ai.web.uploads import MAX_BYTES, Uploads

if TYPE_CHECKING:
    from emotion_ai.inference.answer_log import AnswerLog

EXPIRE_SECONDS = 2.0
"""Time between two checks for pictures that have been kept for long enough."""

STOP_SECONDS = 4.0
"""After a signal, until the process is ended in spite of requests that are not finished."""

MAX_CONNECTIONS = 1000
"""At the same time; a window holds one or two."""


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; port 0 picks a free one.

    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        listener = bind(host, port)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise ConfigError(f"{host}, port {port}: {reason}; choose another --port or --host") from error
    with listener:
        listener.listen()
        yield listener


def create_app(source: ModelSource, session: ModelSession, folder: Path, hosts: Hosts) -> Guard:
    """The page as an ASGI application."""
    uploads = Uploads(folder)
    page, context = build(source, session, uploads)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        expiry = asyncio.create_task(_repeat(uploads.drop_expired, context.kept.drop_expired))
        yield
        expiry.cancel()
        uploads.videos.close()

    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan),
        page,
        path="/",
        footer_links=[],
        run_history=False,  # Gradio would keep runs with their pictures in the browser
        max_file_size=MAX_BYTES,
        show_error=False,  # messages of unexpected errors may contain paths
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(),
        css=_style(),
        head="".join(f"<script>{_text(name)}</script>" for name in ("uploads.js", "video.js")),
    )
    return Guard(app, uploads, handlers(page), hosts)


def run(
    source: ModelSource,
    folder: Path,
    listener: socket.socket,
    allowed_hosts: Collection[str] = (),
    trusted_proxies: Collection[str] = (),
    end: Callable[[], None] = lambda: None,
    log: "AnswerLog | None" = None,
) -> None:
    """Serves the page on a socket until it is interrupted.

    Args:
        source: the models.
        folder: private, for Gradio.
        listener: the socket.
        allowed_hosts: names under which proxies serve the page.
        trusted_proxies: addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are used.
        end: called before the process is ended if requests keep it from stopping within `STOP_SECONDS`.
        log: gets the answers.

    Raises:
        ConfigError: a value is not valid.
    """
    hosts = Hosts(listener.getsockname()[0], origins.allowed_hosts(allowed_hosts))
    proxies = origins.trusted_proxies(trusted_proxies)
    session = ModelSession(source.url, log=log)
    try:
        config = uvicorn.Config(
            create_app(source, session, folder, hosts),
            log_level="warning",
            timeout_graceful_shutdown=2,
            server_header=False,
            http=protocol(proxies),
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
        )
        _Server(config, end).run([listener])
    finally:
        session.close()


class _Server(uvicorn.Server):
    """Always stops on a signal, whatever its threads wait for."""

    def __init__(self, config: uvicorn.Config, end: Callable[[], None]) -> None:
        super().__init__(config)
        self._end = end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        watchdog = threading.Timer(STOP_SECONDS, self._stop_now)
        watchdog.daemon = True
        watchdog.start()

    def _stop_now(self) -> None:
        try:
            self._end()
        finally:
            os._exit(0)


async def _repeat(*actions: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(EXPIRE_SECONDS)
        for action in actions:
            action()


def _style() -> str:
    """The style sheet with the thumbnails of the examples, so that no file has to be served for them."""
    thumbnails = "".join(
        f".ea-example-{i} {{ background-image: url({data_uri(thumbnail(content), 'image/jpeg')}) !important; }}"
        for i, content in enumerate(examples().values())
    )
    return _text("style.css") + thumbnails


def _text(name: str) -> str:
    return (files("emotion_ai") / "web" / name).read_text()


def _theme() -> gr.themes.Default:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Default(
        primary_hue="sky", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "Consolas", "monospace"]
    )
