"""The command `emotion-ai convert`."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        str, typer.Argument(help="Function that builds the module: FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION.")
    ],
    inputs: Annotated[
        list[str], typer.Option("--input", help="An input, NAME:CHANNELSxHEIGHTxWIDTH; repeat it for several.")
    ],
    outputs: Annotated[
        list[str] | None, typer.Option("--output", help="Name of an output; repeat it for several.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to publish to.")] = Path("models"),
    model: Annotated[str, typer.Option(help="Name under which the module is served.")] = "model",
    layout: Annotated[str, typer.Option(help="Layout of images at the border: NHWC or NCHW.")] = "NHWC",
    dtype: Annotated[str, typer.Option(help="Type of the images: float32 or uint8.")] = "float32",
    files: Annotated[bool, typer.Option("--files", help="Add the signature serving_bytes, for image files.")] = False,
    mean: Annotated[str, typer.Option(help="With --files: mean of the pixels 0-1, for all or each channel.")] = "0",
    std: Annotated[str, typer.Option(help="With --files: their standard deviation.")] = "1",
    litert: Annotated[str, typer.Option(help="LiteRT files to add, separated by commas: float32, float16, int8.")] = "",
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Example images, from which int8 takes its ranges: a folder, or a .npz file with each input."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="host or container: the paths in models.config.")] = "host",
) -> None:
    """Publish any PyTorch module with image inputs for TensorFlow Serving, proven to be the same."""
    from emotion_ai_export.convert.command import CommandOptions, convert_command

    names = tuple(outputs or ["output"])
    options = CommandOptions(model, names, layout, dtype, files, (mean, std), target, litert, calibration)
    convert_command(source, inputs, out, options)
