"""The command `emotion-ai verify`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def verify(
    base: Annotated[Path, typer.Argument(help="Folder that `emotion-ai export` published to.")],
    server: Annotated[
        str | None, typer.Option(help="REST address of the server to check; by default a server is started.")
    ] = None,
    grpc: Annotated[
        str | None, typer.Option(help="gRPC address of the server; by default one port below that of REST.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Version to check; by default all.")] = None,
    device: Annotated[
        str, typer.Option(help="cuda or mps: compare the checkpoints on that device as well as on the CPU.")
    ] = "cpu",
    out: Annotated[Path | None, typer.Option(help="File for the result as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check that published and served models still match their checkpoints; exits with 1 if not."""
    from emotion_ai_export.convert.verify import VerifyOptions, verify_command

    sys.exit(verify_command(base, VerifyOptions(server, grpc, version, device), out, json))
