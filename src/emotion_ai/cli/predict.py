"""The command `emotion-ai predict`."""

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from emotion_ai.cli.server_access import Device, Label, Precision, Server, Signature, Timeout, UncertainBelow, Version
from emotion_ai.contract import Servable


def predict(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Photos, folders of photos; with --kaggle its test.csv and IdLookupTable.csv.",
            readable=False,  # one that cannot be read does not keep the others from being read
        ),
    ] = None,
    server: Server = None,
    model: Annotated[str, typer.Option(help="Served model: face, keypoints or emotion.")] = "face",
    signature: Signature = None,
    version: Version = None,
    label: Label = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    watch: Annotated[Path | None, typer.Option(help="Folder to watch; every new photo in it is read.")] = None,
    kaggle: Annotated[
        bool, typer.Option("--kaggle", help="Write Kaggle's submission.csv (or --csv) instead of a table.")
    ] = False,
    fps: Annotated[
        float | None, typer.Option(help="Frame rate, if the photos are frames of one video in order: smooths them.")
    ] = None,
    uncertain_below: UncertainBelow = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the annotated photos.")] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file with one row per face; a second run completes it.")] = None,
    answer_log: Annotated[
        Path | None, typer.Option(help="Folder of Parquet files to which the answers are appended, a row per face.")
    ] = None,
    answer_log_crops: Annotated[
        bool, typer.Option("--answer-log-crops", help="Keep the pixels of every crop in the answer log.")
    ] = False,
    timeout: Timeout = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find the faces in photos, their keypoints and their emotions."""
    from emotion_ai.cli.photos import PredictOptions, predict_command

    options = PredictOptions(
        photos=tuple(photos or ()),
        server=server,
        model=cast(Servable, model),  # FaceClient checks it
        signature=signature,
        version=version,
        label=label,
        device=device,
        precision=precision,
        watch=watch,
        kaggle=kaggle,
        fps=fps,
        uncertain_below=uncertain_below,
        out=out,
        csv=csv,
        answer_log=answer_log,
        answer_log_crops=answer_log_crops,
        timeout=timeout,
        json=json,
    )
    sys.exit(predict_command(options))
