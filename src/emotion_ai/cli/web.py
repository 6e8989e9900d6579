"""The command `emotion-ai web`."""

import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


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
    from emotion_ai.web.backend import model_source, private_folder

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the server is stopped as well
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        from emotion_ai.web import application  # imports Gradio, which needs the folder

        listener = stack.enter_context(application.listening(host, port))
        source = stack.enter_context(model_source(models, server, console))
        console.print(
            f"the page is at [bold]http://{host}:{listener.getsockname()[1]}[/]; it uses the models of {source.url}"
        )
        try:
            application.run(source, folder, listener)
        except KeyboardInterrupt:
            console.print("stopped")
