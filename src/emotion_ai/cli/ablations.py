"""The command `emotion-ai ablations`."""

from pathlib import Path
from typing import Annotated

import typer

from emotion_ai.cli.signals import terminable


def ablations(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of `train` for every run, e.g. trainer=gpu.")
    ] = None,
    budget: Annotated[
        str, typer.Option(help="full; cpu: small networks; quick: a few minutes, only to try the command.")
    ] = "full",
    data: Annotated[
        Path | None, typer.Option(help="Folder with fer2013.csv, training.csv and fer2013new.csv, also compressed.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs; each budget has its own subfolder.")] = Path(
        "runs/ablations"
    ),
) -> None:
    """Train with one change at a time, several seeds each, and write a table and figures.

    Finished runs are kept and interrupted ones continue.
    """
    from emotion_ai.studies.ablations import ablations

    with terminable():
        ablations(budget, data, out / budget, overrides or ())
