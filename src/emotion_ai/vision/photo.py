"""Photos: whatever a user may hand over, decoded by `emotion_ai.vision.decoding`."""

import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.errors import ImageError
from emotion_ai.vision.decoding import MAX_PIXELS as MAX_PIXELS
from emotion_ai.vision.decoding import decode

MIN_SIDE = 16
"""Pixels of the shorter side of the smallest photo that is accepted."""

MAX_FILE_BYTES = 512 * 1024**2
"""Size of the largest picture file that is read."""

UNNAMED = "the given image"
"""The name of a photo that is not a file."""

_PORTRAITS = files("emotion_ai") / "assets" / "portraits"
PORTRAITS = (Path(str(_PORTRAITS / "astronaut.png")), Path(str(_PORTRAITS / "grace_hopper.jpg")))
"""Two public-domain portraits that come with the package."""


class ArrayLike(Protocol):
    """An array or tensor of NumPy, PyTorch, TensorFlow, JAX, ..."""

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]: ...


Encoded = bytes | bytearray | memoryview | BinaryIO
Source = str | os.PathLike[str] | Encoded | Image.Image | ArrayLike | Sequence[Sequence[Any]]
"""A photo: the path of a file; an encoded file as bytes, bytearray, memoryview or binary file object; a PIL image; or
pixels, as an array, a tensor on any device or nested lists: integers 0-255, gray (H, W), or RGB or RGBA with the
channels last (H, W, 3) or first (3, H, W). uint16 (H, W) is scaled like a 16-bit file."""


@dataclass(frozen=True)
class Photo:
    """A decoded, upright photo.

    Attributes:
        rgb: uint8 (H, W, 3).
        gray: uint8 (H, W).
        name: for messages.
        scale: pixels of the file per pixel of `rgb`; above 1 for a JPEG file of more than 64 megapixels.
        notes: what was done beyond decoding, in words, such as "the first of several frames".
    """

    rgb: NDArray[np.uint8]
    gray: NDArray[np.uint8]
    name: str
    scale: int = 1
    notes: tuple[str, ...] = ()


def load_photo(source: Source, name: str | None = None) -> Photo:
    """Decodes a photo.

    EXIF orientation is applied, 16 bits are scaled to 8, transparency is laid over white, CMYK and palettes become RGB.
    Of several frames or pages the first is used. Colour profiles are not applied. `emotion_ai.vision.decoding.decode`
    has the details.

    Args:
        source: the photo.
        name: for messages; by default its path.

    Raises:
        ImageError: the photo is missing, empty, truncated, not a picture, larger than 64 megapixels (JPEG files: 256)
            or smaller than 16 pixels; or an array has other values than integers from 0 to 255.
    """
    if name is None:
        name = str(source) if isinstance(source, str | os.PathLike) else UNNAMED
    content: bytes | Image.Image
    if isinstance(source, str | os.PathLike):
        content = read_picture(Path(source))
    elif isinstance(source, Image.Image):
        content = source
    elif isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
    elif hasattr(source, "read"):
        content = _read_stream(source, name)
    else:
        content = _image(source, name)
    if isinstance(content, bytes) and not content:
        raise ImageError(f"{name}: is empty (0 bytes); use a picture file")
    decoded = decode(content, name, min_side=MIN_SIDE)
    return Photo(decoded.rgb(), decoded.gray(), name, decoded.scale, decoded.notes)


def read_picture(path: Path) -> bytes:
    """The content of a picture file.

    Raises:
        ImageError: it is missing, not a regular file, larger than `MAX_FILE_BYTES`, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # a pipe could block for ever
            raise ImageError(f"{path}: cannot be read (not a regular file); use a picture file")
        check_size(status.st_size, str(path))
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: cannot be read ({reason}); use a picture file") from error
    return content


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A gray image, uint8 (H, W), as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _read_stream(stream: Any, name: str) -> bytes:
    try:
        content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: the file object cannot be read ({error}); open it in binary mode") from error
    if not isinstance(content, bytes):
        raise ImageError(f"{name}: the file object returns {type(content).__name__}; open it in binary mode")
    check_size(len(content), name)
    return content


def check_size(size: int, name: str) -> None:
    """Checks the size of a picture file.

    Raises:
        ImageError: it is larger than `MAX_FILE_BYTES`.
    """
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name}: is larger than {MAX_FILE_BYTES // 1024**2} MiB; use a smaller picture")


def _image(source: Any, name: str) -> Image.Image:
    """Pixels as a PIL image."""
    if hasattr(source, "detach"):  # a PyTorch tensor: NumPy takes it only without gradient and on the CPU
        source = source.detach().cpu()
    try:
        array = np.asarray(source)
    except Exception as error:  # each library raises its own kind
        raise ImageError(f"{name}: a {type(source).__name__} is not a photo ({error}); {_FORMS}") from error
    shown = f"got {array.dtype} {array.shape}"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype.kind not in "iu" or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        hint = "; multiply by 255 and round" if array.dtype.kind == "f" and array.ndim in (2, 3) else ""
        raise ImageError(f"{name}: {_FORMS}, {shown}{hint}")
    if array.size == 0:
        raise ImageError(f"{name}: is empty; it must have at least {MIN_SIDE}x{MIN_SIDE} pixels")
    if array.dtype == np.uint16 and array.ndim == 2:
        return Image.fromarray(np.ascontiguousarray(array))
    if array.dtype != np.uint8 and not 0 <= array.min() <= array.max() <= 255:
        raise ImageError(f"{name}: {_FORMS}, got values from {array.min()} to {array.max()}")
    return Image.fromarray(np.ascontiguousarray(array.astype(np.uint8)))


_FORMS = "must be a path, an encoded file, a PIL image, or integers 0-255 as gray (H, W) or RGB (H, W, 3)"
