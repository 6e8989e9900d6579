"""The command `emotion-ai drift`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def drift(
    reference: Annotated[
        Path,
        typer.Argument(help="Folder that `export` published to, a version in it, a reference.parquet, or another log."),
    ],
    log: Annotated[Path, typer.Argument(help="Folder of logged answers, or one of its files.")],
    version: Annotated[
        int | None,
        typer.Option(help="Compare only answers of this version; by default of that whose reference is used."),
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            help="What faces that are not independent share: source, folder, minute, hour, day, a column, or answer."
        ),
    ] = "source",
    measure: Annotated[
        list[str] | None,
        typer.Option(help="Only this: answers, confidence, brightness, contrast, sharpness, size; repeatable."),
    ] = None,
    false_alarms: Annotated[
        float, typer.Option(help="Probability of an alarm where nothing has changed, over all measures together.")
    ] = 0.01,
    min_difference: Annotated[
        float, typer.Option(help="Smallest difference that counts: the share of the faces that would have to change.")
    ] = 0.08,
    out: Annotated[Path, typer.Option(help="Picture of both distributions.")] = Path("drift.png"),
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare logged answers with a reference; exits with 1 if answers, confidence or quality have drifted."""
    from emotion_ai.evaluation.drift_stage import DriftOptions, drift_command

    options = DriftOptions(reference, log, version, group, tuple(measure or ()), false_alarms, min_difference, out)
    sys.exit(drift_command(options, json))
