"""The web application: the page behind the guard, with its style, on a socket."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from emotion_ai.errors import ConfigError
from emotion_ai.web.backend import ModelSource
from emotion_ai.web.examples import examples, thumbnail
from emotion_ai.web.guard import MAX_BYTES, Guard
from emotion_ai.web.page import build
from emotion_ai.web.render import data_uri
from emotion_ai.web.session import ModelSession


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; port 0 picks a free one.

    Raises:
        ConfigError: the address cannot be used.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise ConfigError(f"{host}, port {port}: {reason}; choose another --port or --host") from error
    with listener:
        yield listener


def create_app(source: ModelSource, session: ModelSession, folder: Path, host: str = "127.0.0.1") -> FastAPI:
    """The page as an ASGI application."""
    app = FastAPI(openapi_url=None)
    app = gr.mount_gradio_app(
        app,
        build(source, session, folder),
        path="/",
        footer_links=[],
        run_history=False,  # Gradio would keep runs with their pictures in the browser
        max_file_size=MAX_BYTES,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(),
        css=_style(),
    )
    if host in ("127.0.0.1", "localhost", "::1"):  # against DNS rebinding
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    app.add_middleware(Guard, folder=folder)
    return app


def run(source: ModelSource, folder: Path, listener: socket.socket) -> None:
    """Serves the page on a socket until it is interrupted."""
    session = ModelSession(source.url)
    try:
        config = uvicorn.Config(
            create_app(source, session, folder, listener.getsockname()[0]),
            log_level="warning",
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        uvicorn.Server(config).run([listener])
    finally:
        session.close()


def _style() -> str:
    """The style sheet with the thumbnails of the examples, so that no file has to be served for them."""
    thumbnails = "".join(
        f".ea-example-{i} {{ background-image: url({data_uri(thumbnail(content), 'image/jpeg')}) !important; }}"
        for i, content in enumerate(examples().values())
    )
    return (files("emotion_ai") / "web" / "style.css").read_text() + thumbnails


def _theme() -> gr.themes.Default:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Default(
        primary_hue="sky", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "Consolas", "monospace"]
    )
