"""`emotion-ai convert`: builds the module, converts it, and prints the proof."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import nn

from emotion_ai.errors import ConfigError
from emotion_ai.terminal import Console, Progress
from emotion_ai_export.convert.interface import ImageFiles, ImageInput
from emotion_ai_export.convert.module_export import ConvertOptions, convert
from emotion_ai_export.convert.stage import parity_table


@dataclass(frozen=True)
class CommandOptions:
    """The options of the command line, as text."""

    model: str
    outputs: tuple[str, ...]
    layout: Any
    dtype: Any
    files: bool
    mean_std: tuple[str, str]
    target: str

    def parsed(self) -> ConvertOptions:
        """Raises:
        ConfigError: a number that is none.
        """
        files = ImageFiles(*(_numbers(text) for text in self.mean_std)) if self.files else None
        return ConvertOptions(self.model, self.outputs, self.layout, self.dtype, files, self.target)


def convert_command(source: str, inputs: Sequence[str], out: Path, options: CommandOptions) -> None:
    """`emotion-ai convert`.

    Raises:
        ConfigError: the function or an option is not as described.
        ExportError, ParityError: as in `convert`.
    """
    parsed, given = options.parsed(), [ImageInput.parse(text) for text in inputs]
    generator = torch.Generator().manual_seed(0)
    highest = 256 if parsed.dtype == "uint8" else 1
    examples = [
        (torch.rand(2, each.channels, each.height, each.width, generator=generator) * highest).floor()
        if highest > 1
        else torch.rand(2, each.channels, each.height, each.width, generator=generator)
        for each in given
    ]
    module = build_module(source)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        step = progress.add_task("")
        names = [each.name for each in given]
        made = convert(module, examples, names, out, parsed, lambda text: progress.update(step, description=text))
    console = Console()
    console.print(parity_table(made.report))
    console.wrote(made.path, verb="published")


def build_module(source: str) -> nn.Module:
    """The module that `FILE.py:FUNCTION` or `PACKAGE.MODULE:FUNCTION` returns.

    Raises:
        ConfigError: no such file or function, or it fails, or returns something else.
    """
    place, _, name = source.rpartition(":")
    if not place or not name:
        raise ConfigError(f"{source}: write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION")
    try:
        code = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        module = getattr(code, name)()
    except Exception as error:  # the user's code may raise any kind
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{source}: {type(error).__name__}: {reason}; check the file and the function") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{source}: returns {type(module).__name__}, not a torch.nn.Module")
    return module


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    code = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # for its neighbours
    try:
        spec.loader.exec_module(code)
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return code


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--mean and --std: {text!r} is no list of numbers such as 0.485,0.456,0.406") from error
