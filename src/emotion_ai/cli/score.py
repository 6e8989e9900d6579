"""The command `emotion-ai score`."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, cast

import typer

from emotion_ai.cli.server_access import Device, Label, Precision, Server, Signature, Timeout, UncertainBelow, Version
from emotion_ai.contract import Servable
from emotion_ai.extras import optional_imports


def score(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, glob patterns, pictures, tar shards, Parquet or CSV files; paths, or addresses such as s3://.",
            metavar="SOURCE...",
        ),
    ],
    dest: Annotated[Path, typer.Argument(help="Folder for the Parquet files; a second run completes it.")],
    column: Annotated[
        str | None, typer.Option(help="Column of a table with the paths or contents of the pictures.")
    ] = None,
    keypoints: Annotated[str, typer.Option(help="Checkpoint for keypoints, without --server.")] = "bundled",
    emotion: Annotated[str, typer.Option(help="Checkpoint for emotion, without --server.")] = "bundled",
    device: Device = "auto",
    precision: Precision = "fp32",
    server: Server = None,
    model: Annotated[str, typer.Option(help="Served model: face, keypoints or emotion.")] = "face",
    signature: Signature = None,
    version: Version = None,
    label: Label = None,
    uncertain_below: UncertainBelow = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster, HOST:PORT or auto; by default one on this machine.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read; by default one for each CPU.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures whose faces are read together; by default 32, with a GPU 128.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of another run.")] = False,
    timeout: Timeout = None,
) -> None:
    """Score pictures in bulk: a row per face, as Parquet files, on all CPUs or on a Ray cluster."""
    with optional_imports("score"):
        if find_spec("ray") is None:  # imported later, once its settings are known
            raise ModuleNotFoundError(name="ray")
        from emotion_ai.cli.score_run import ScoreCommand, score_command

    command = ScoreCommand(
        sources=tuple(sources),
        dest=dest,
        column=column,
        keypoints=keypoints,
        emotion=emotion,
        device=device,
        precision=precision,
        server=server,
        model=cast(Servable, model),  # FaceClient checks it
        signature=signature,
        version=version,
        label=label,
        uncertain_below=uncertain_below,
        address=address,
        workers=workers,
        batch_size=batch_size,
        overwrite=overwrite,
        timeout=timeout,
    )
    sys.exit(score_command(command))
