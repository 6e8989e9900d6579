"""The command `emotion-ai canary`."""

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from emotion_ai.contract import Servable


def canary(
    base: Annotated[Path, typer.Argument(help="Folder that `emotion-ai export` published to.")],
    server: Annotated[str, typer.Option(help="Server, http:// (REST) or grpc://.")] = "http://127.0.0.1:8501",
    faces: Annotated[
        list[Path] | None,
        typer.Option(
            help="Faces to send: a dataset as for training (with labels), or photos and folders of photos; may be "
            "given several times. By default synthetic faces, whose keypoints and emotions are known."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Largest number of faces.")] = 300,
    model: Annotated[str, typer.Option(help="Served model: face, keypoints or emotion.")] = "face",
    stable: Annotated[str, typer.Option(help="Label of the version to compare with.")] = "stable",
    canary: Annotated[str, typer.Option(help="Label of the version to judge.")] = "canary",
    margin: Annotated[
        list[str] | None, typer.Option(help="How much worse is accepted, as NAME=VALUE, e.g. latency=1.5.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample of faces and of the intervals.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="PNG file for a picture of the result.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the result as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Send the same faces to the stable and the canary version; exits with 1 if the canary is worse."""
    from emotion_ai.cli.canary_command import CanaryOptions, canary_command

    options = CanaryOptions(
        base=base,
        server=server,
        faces=tuple(faces or ()),
        count=count,
        model=cast(Servable, model),  # FaceClient checks it
        labels=(stable, canary),
        margins=tuple(margin or ()),
        seed=seed,
        picture=picture,
        out=out,
        json=json,
    )
    sys.exit(canary_command(options))
