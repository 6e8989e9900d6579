"""Decoding of photos: any format of Pillow's, any mode, any EXIF orientation."""

import io
import warnings
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from emotion_ai.errors import ImageError

MAX_PIXELS = 64_000_000
"""Pixels of the largest photo that is decoded."""

MIN_SIDE = 16
"""Pixels of the shorter side of the smallest photo that is accepted."""

_PORTRAITS = files("emotion_ai") / "assets" / "portraits"
PORTRAITS = (Path(str(_PORTRAITS / "astronaut.png")), Path(str(_PORTRAITS / "grace_hopper.jpg")))
"""Two public-domain portraits that come with the package."""

Source = str | Path | bytes | Image.Image | NDArray[np.uint8]
"""A photo: a path, an encoded file, a PIL image, or an array uint8 (H, W) or (H, W, 3)."""


@dataclass(frozen=True)
class Photo:
    """A decoded, upright photo.

    Attributes:
        rgb: uint8 (H, W, 3).
        gray: uint8 (H, W).
        name: for messages.
    """

    rgb: NDArray[np.uint8]
    gray: NDArray[np.uint8]
    name: str


def load_photo(source: Source) -> Photo:
    """Decodes a photo.

    EXIF orientation is applied, 16 bits are scaled to 8, transparency is laid over white, CMYK and palettes become RGB.

    Raises:
        ImageError: the photo is missing, empty, truncated, not a picture, larger than 64 megapixels or smaller than 16
            pixels.
    """
    name = str(source) if isinstance(source, str | Path) else "the given image"
    if isinstance(source, np.ndarray):
        if (
            source.dtype != np.uint8
            or source.ndim not in (2, 3)
            or (source.ndim == 3 and source.shape[2] not in (3, 4))
        ):
            raise ImageError(f"{name}: must be uint8 (H, W) or (H, W, 3), got {source.dtype} {source.shape}")
        if source.size == 0:
            raise ImageError(f"{name}: is empty; it must have at least {MIN_SIDE}x{MIN_SIDE} pixels")
        source = Image.fromarray(source)
    if not isinstance(source, Image.Image):
        content = source if isinstance(source, bytes) else _read(Path(source))
        if not content:
            raise ImageError(f"{name}: is empty (0 bytes); use a picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit comes before Pillow's warning
            if isinstance(source, Image.Image):
                return _photo(source, name)
            with Image.open(io.BytesIO(content)) as image:
                return _photo(image, name)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: is not a readable picture; use PNG, JPEG, WebP, TIFF, BMP or GIF") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: has far more than {MAX_PIXELS // 1_000_000} megapixels; use a smaller one"
        ) from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        raise ImageError(f"{name}: is damaged or truncated ({error}); use the complete file") from error


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A gray image, uint8 (H, W), as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); use a picture file"
        ) from error


def _photo(image: Image.Image, name: str) -> Photo:
    width, height = image.size
    if width * height > MAX_PIXELS:  # before anything is decoded
        limit = f"{MAX_PIXELS // 1_000_000} megapixels"
        raise ImageError(f"{name}: has {width}x{height} pixels, more than {limit}; use a smaller one")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: has {width}x{height} pixels; it must have at least {MIN_SIDE}x{MIN_SIDE}")
    image.load()
    rgb = _rgb(ImageOps.exif_transpose(image))
    return Photo(np.asarray(rgb), np.asarray(rgb.convert("L")), name)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        # 16 bits are scaled, not clipped; floating-point pictures hold 0-1 or 0-255
        if values.max() > 255:
            values /= 257
        elif image.mode == "F" and values.max() <= 1:
            values *= 255
        return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")
