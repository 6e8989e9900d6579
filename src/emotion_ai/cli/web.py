"""The command `emotion-ai web`."""

from pathlib import Path
from typing import Annotated

import typer


def web(
    models: Annotated[
        Path | None,
        typer.Argument(help="Folder that `emotion-ai export` published to; by default the bundled weights."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Server, http:// or grpc://; by default one is started with the page.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 picks a free one.")] = 7860,
) -> None:
    """Open a web page that reads pictures and the webcam with a served model."""
    from emotion_ai.web.command import web

    web(models, server, host, port)
