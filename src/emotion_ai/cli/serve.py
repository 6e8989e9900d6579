"""The command `emotion-ai serve`."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    base: Annotated[Path, typer.Argument(help="Folder that `emotion-ai export` published to.")],
    rest_port: Annotated[int, typer.Option(help="Port of the REST API.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC API.")] = 8500,
    engine: Annotated[str, typer.Option(help="auto, tensorflow-serving, docker or embedded.")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_max_threads: Annotated[
        int | None,
        typer.Option(help="Calls that gRPC takes at once; more are rejected. By default 32 per CPU."),
    ] = None,
) -> None:
    """Serve published models with TensorFlow Serving, its container or the embedded server."""
    from emotion_ai_export.serving.engines import ServerOptions
    from emotion_ai_export.serving.launch import serve

    serve(base, ServerOptions(rest_port, grpc_port, engine, host, grpc_max_threads))
