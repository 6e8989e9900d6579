"""`emotion-ai convert`: builds the module, converts it, and prints the proof."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import nn

from emotion_ai.errors import ConfigError
from emotion_ai.terminal import Console, Progress
from emotion_ai.vision.decoding import PICTURE_SUFFIXES
from emotion_ai.vision.photo import load_photo
from emotion_ai_export.convert.interface import ImageFiles, ImageInput
from emotion_ai_export.convert.litert import litert_kinds
from emotion_ai_export.convert.module_export import ConvertOptions, convert
from emotion_ai_export.convert.module_model import normalised
from emotion_ai_export.convert.stage import parity_table

MAX_CALIBRATION = 128


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
    litert: str = ""
    calibration: Path | None = None

    def parsed(self) -> ConvertOptions:
        """Raises:
        ConfigError: what is not a number, an unknown kind, or options that need others.
        """
        numbers = ImageFiles(*(_numbers(text) for text in self.mean_std))
        if numbers != ImageFiles() and not self.files:
            raise ConfigError("--mean and --std are for files; add --files, or normalise in the module")
        files = numbers if self.files else None
        kinds = litert_kinds([kind.strip() for kind in self.litert.split(",") if kind.strip()], "--litert")
        if "int8" in kinds and self.calibration is None:
            raise ConfigError(
                "--litert int8 takes its ranges from images: give --calibration with a folder of them, or a .npz file "
                "with an array (N, C, H, W) for each input"
            )
        return ConvertOptions(self.model, self.outputs, self.layout, self.dtype, files, kinds, self.target)


def convert_command(source: str, inputs: Sequence[str], out: Path, options: CommandOptions) -> None:
    """`emotion-ai convert`.

    Raises:
        ConfigError: the function or an option is not as described.
        ExportError, ParityError: as in `convert`.
    """
    parsed, given = options.parsed(), [ImageInput.parse(text) for text in inputs]
    if options.calibration is None:
        examples = _noise(given, parsed)
    else:
        examples = calibration_images(options.calibration, given, parsed)
    module = build_module(source)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        step = progress.add_task("")
        names = [each.name for each in given]
        made = convert(module, examples, names, out, parsed, lambda text: progress.update(step, description=text))
    console = Console()
    console.print(parity_table(made.report))
    console.wrote(made.path, verb="published")


def _noise(inputs: Sequence[ImageInput], options: ConvertOptions) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(2, each.channels, each.height, each.width, generator=generator) for each in inputs]
    return [(images * 256).floor() if options.dtype == "uint8" else images for images in noise]


def calibration_images(path: Path, inputs: Sequence[ImageInput], options: ConvertOptions) -> list[torch.Tensor]:
    """At most `MAX_CALIBRATION` example images of each input, float32 (N, C, H, W), as the module takes them.

    Pictures of a folder are made gray or RGB and resized, then normalised as in `ImageFiles`: by --mean and --std with
    --files, otherwise to 0-1, or left at 0-255 for a network of uint8 images.

    Args:
        path: a folder of pictures, or a .npz file with an array (N, C, H, W) for each input.
        inputs: of the module.
        options: of the conversion.

    Raises:
        ConfigError: no such file, no pictures there, other arrays, or a folder for a network with several inputs.
    """
    if path.is_dir():
        if len(inputs) != 1 or inputs[0].channels not in (1, 3):
            raise ConfigError(f"--calibration {path}: a folder is for one input of 1 or 3 channels; give a .npz file")
        (given,) = inputs
        files = sorted(each for each in path.rglob("*") if each.suffix.lower() in PICTURE_SUFFIXES)[:MAX_CALIBRATION]
        if not files:
            raise ConfigError(f"--calibration {path}: no pictures there; give a folder of images or a .npz file")
        photos = [load_photo(file) for file in files]
        shown = [Image.fromarray(photo.rgb).convert("L" if given.channels == 1 else "RGB") for photo in photos]
        resized = [np.asarray(each.resize((given.width, given.height), Image.Resampling.BILINEAR)) for each in shown]
        pixels = np.stack(resized).reshape(len(files), given.height, given.width, given.channels).astype(np.float32)
        if options.dtype == "float32":
            pixels = normalised(pixels, options.files or ImageFiles())
        return [torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))]
    if path.exists() and not path.is_file():
        raise ConfigError(f"--calibration {path}: neither a folder of images nor a .npz file")
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            found = {name: np.asarray(arrays[name], np.float32) for name in arrays}
    except (OSError, EOFError, ValueError, TypeError, BadZipFile) as error:  # TypeError: a .npy file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"--calibration {path}: neither a folder of images nor a .npz file ({reason})") from error
    for each in inputs:
        shape, wanted = getattr(found.get(each.name), "shape", None), (each.channels, each.height, each.width)
        if shape is None or shape[1:] != wanted or not shape[0]:
            raise ConfigError(
                f"--calibration {path}: needs an array {each.name} of the shape (N, {', '.join(map(str, wanted))}); "
                f"it has {', '.join(f'{name} {list(array.shape)}' for name, array in found.items()) or 'none'}"
            )
    return [torch.from_numpy(found[each.name][:MAX_CALIBRATION]) for each in inputs]


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
    except (Exception, SystemExit) as error:  # the user's code may raise any kind
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{source}: {type(error).__name__}: {reason}; check the file and the function") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{source}: returns {type(module).__name__}, not a torch.nn.Module")
    return module


def _load_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"module of {path.stem}", path)  # the name of no other module
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    code = importlib.util.module_from_spec(spec)
    sys.path.append(str(path.parent.resolve()))  # for its neighbours, also later; last, so that they replace no library
    sys.modules[spec.name] = code  # dataclasses and pickles look there
    spec.loader.exec_module(code)
    return code


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--mean and --std: {text!r} is no list of numbers such as 0.485,0.456,0.406") from error
