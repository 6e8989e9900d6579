"""What a converted network takes and returns: names, sizes, layout and types at its border."""

import keyword
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ConfigError

Layout = Literal["NHWC", "NCHW"]
ImageType = Literal["float32", "uint8"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = (*keyword.kwlist, "self", "N")  # arguments in Python; N is the batch in the ONNX file
_MAX_SIDE, _MAX_CHANNELS = 8192, 4096
_MODEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class ImageInput:
    """One input: images, float32 or uint8, with the batch first.

    Attributes:
        name: in the signature.
        channels, height, width: of one image.
    """

    name: str
    channels: int
    height: int
    width: int

    def __post_init__(self) -> None:
        _check_name(self.name)
        if min(self.channels, self.height, self.width) < 1:
            raise ConfigError(f"input {self.name}: {self.channels}x{self.height}x{self.width} holds no pixel")
        if self.channels > _MAX_CHANNELS or max(self.height, self.width) > _MAX_SIDE:
            raise ConfigError(
                f"input {self.name}: {self.channels}x{self.height}x{self.width} is too large; the limits are "
                f"{_MAX_CHANNELS} channels and {_MAX_SIDE} pixels a side"
            )

    @classmethod
    def parse(cls, text: str) -> "ImageInput":
        """`images:3x96x96`: name, channels, height and width.

        Raises:
            ConfigError: the text has another form.
        """
        match = re.fullmatch(r"([^:]+):(\d+)x(\d+)x(\d+)", text)
        if match is None:
            raise ConfigError(f"--input {text}: write NAME:CHANNELSxHEIGHTxWIDTH, for example images:3x96x96")
        return cls(match[1], int(match[2]), int(match[3]), int(match[4]))

    def shape(self, layout: Layout) -> list[int | None]:
        """With the batch as None."""
        sizes = [self.channels, self.height, self.width]
        return [None, *(sizes if layout == "NCHW" else [*sizes[1:], sizes[0]])]


@dataclass(frozen=True)
class ImageFiles:
    """The signature `serving_bytes`: PNG or JPEG files, decoded, resized and normalised in the graph.

    A file is decoded to one gray or three RGB channels, as many as the input has; resized to the input's size,
    half-pixel bilinear and antialiased when shrinking, aspect not kept; then (pixel / 255 - mean) / std.

    Attributes:
        mean, std: for each channel, or one for all.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not all(1e-3 <= value <= 1e3 for value in self.std):
            raise ConfigError(f"--std {list(self.std)}: every value must be from 0.001 to 1000")
        if not all(abs(value) <= 1e3 for value in self.mean):
            raise ConfigError(f"--mean {list(self.mean)}: every value must be from -1000 to 1000")


@dataclass(frozen=True)
class Interface:
    """What a converted network takes and returns.

    Attributes:
        model: the name under which it is served, and that of its folder.
        inputs: in the order of the module's arguments.
        outputs: names, in the order in which the module returns them.
        layout: of images at the border, in and out; inside it is NHWC.
        dtype: of the images; a module of uint8 images gets them as float32, 0-255.
        files: adds the signature `serving_bytes`.

    Raises:
        ConfigError: a name that is taken or has other characters, or an unknown choice.
    """

    model: str
    inputs: tuple[ImageInput, ...]
    outputs: tuple[str, ...]
    layout: Layout = "NHWC"
    dtype: ImageType = "float32"
    files: ImageFiles | None = None

    def __post_init__(self) -> None:
        if isinstance(self.outputs, str):
            raise ConfigError(f"outputs {self.outputs!r}: give a tuple of names")
        if not isinstance(self.model, str) or not _MODEL.fullmatch(self.model) or self.model in SERVABLES:
            reason = (
                "is a model of faces" if self.model in SERVABLES else "must start with a letter and hold A-Z 0-9 _ . -"
            )
            raise ConfigError(f"model {self.model!r}: {reason}; choose another name")
        for name in self.outputs:
            _check_name(name)
        names = [*(given.name for given in self.inputs), *self.outputs]
        if not self.inputs or not self.outputs or len({name.lower() for name in names}) < len(names):
            raise ConfigError(
                f"names {', '.join(names)}: give each input and output another name, not only in its case"
            )
        for value, choices, option in ((self.layout, Layout, "layout"), (self.dtype, ImageType, "dtype")):
            if value not in get_args(choices):
                raise ConfigError(f"{option} {value!r}: choose {' or '.join(get_args(choices))}")
        if self.files is not None:
            self._check_files(self.files)

    def _check_files(self, files: ImageFiles) -> None:
        if not isinstance(files, ImageFiles):
            raise ConfigError(f"files {files!r}: give an ImageFiles")
        if len(self.inputs) != 1 or self.inputs[0].channels not in (1, 3):
            raise ConfigError("image files need a network with one input of 1 or 3 channels")
        if self.dtype != "float32":
            raise ConfigError("image files are normalised to float32; a network of uint8 images takes arrays alone")
        if any(len(values) not in (1, self.inputs[0].channels) for values in (files.mean, files.std)):
            raise ConfigError(f"--mean and --std: give one number, or {self.inputs[0].channels}")

    def as_dict(self) -> dict[str, Any]:
        """For the version's contract.json."""
        images = {given.name: {"dtype": self.dtype, "shape": given.shape(self.layout)} for given in self.inputs}
        signatures = {"serving_default": {"inputs": images, "outputs": list(self.outputs)}}
        content: dict[str, Any] = {"model": self.model, "layout": self.layout, "signatures": signatures}
        if self.files is not None:
            content["files"] = asdict(self.files) | {"resize": "half-pixel bilinear, antialiased", "scale": 1 / 255}
            taken = {"image_bytes": {"dtype": "string", "shape": [None]}}
            signatures["serving_bytes"] = {"inputs": taken, "outputs": list(self.outputs)}
        return content


def image_inputs(names: Sequence[str], shapes: Sequence[Sequence[int]]) -> tuple[ImageInput, ...]:
    """Inputs from the shapes (N, C, H, W) of example images.

    Raises:
        ConfigError: another number of names, or what is no batch of images.
    """
    if len(names) != len(shapes):
        raise ConfigError(f"{len(shapes)} example inputs but {len(names)} names; give one name for each")
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) != 4:
            raise ConfigError(f"input {name}: has the shape {list(shape)}; images (N, C, H, W) are supported")
    return tuple(ImageInput(name, *shape[1:]) for name, shape in zip(names, shapes, strict=True))


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"name {name!r}: must start with a letter and hold letters, digits and _ alone")
    if name in _TAKEN:
        raise ConfigError(f"name {name!r}: is taken; choose another")
