"""One gray face in many encodings, each of which should decode to the same picture."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Gray = NDArray[np.uint8]

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera stores an upright picture under each EXIF orientation."""


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _turned(gray: Gray, orientation: int, kind: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(gray).convert("RGB")
    if orientation in TURNED:
        image = image.transpose(TURNED[orientation])
    return _saved(image, kind, exif=exif, **options)


def _turned_jpeg(orientation: int, gray: Gray) -> bytes:
    return _turned(gray, orientation, "JPEG", quality=100, subsampling=0)


def _heic(gray: Gray) -> bytes:
    from pillow_heif import from_pillow

    stream = io.BytesIO()
    from_pillow(Image.fromarray(gray).convert("RGB")).save(stream, quality=-1, chroma=444, matrix_coefficients=0)
    return stream.getvalue()


def _alpha(gray: Gray, mode: str) -> Image.Image:
    """Transparent black wherever the face is white, which white below turns into the face again."""
    colour = np.where(gray == 255, 0, gray).astype(np.uint8)
    layered = Image.fromarray(colour).convert("RGB")
    layered.putalpha(Image.fromarray(np.where(gray == 255, 0, 255).astype(np.uint8)))
    return layered.convert(mode)


def _palette(gray: Gray) -> bytes:
    """Gray level 255 is a transparent red."""
    image = Image.fromarray(gray)
    image.putpalette([level for index in range(255) for level in (index,) * 3] + [255, 0, 0])
    return _saved(image, "PNG", transparency=255)


def _tiff(values: NDArray[np.uint16], **tags: int) -> bytes:
    numbers = {"smax": 341, "max": 281}
    return _saved(Image.fromarray(values), "TIFF", tiffinfo={numbers[name]: value for name, value in tags.items()})


ENCODINGS: dict[str, Callable[[Gray], bytes]] = {
    **{f"EXIF {orientation}.jpg": partial(_turned_jpeg, orientation) for orientation in range(1, 9)},
    "exif 6.tif": lambda gray: _turned(gray, 6, "TIFF"),
    "exif 8.webp": lambda gray: _turned(gray, 8, "WEBP", lossless=True),
    "exif 5.png": lambda gray: _turned(gray, 5, "PNG"),
    "16 bits.png": lambda gray: _saved(Image.fromarray(gray.astype(np.uint16) * 257), "PNG"),
    "16 bits.tif": lambda gray: _saved(Image.fromarray(gray.astype(np.uint16) * 257), "TIFF"),
    "12 bits in 16.tif": lambda gray: _tiff(np.rint(gray / 255 * 4095).astype(np.uint16)),
    "12 bits in 16, stated.tif": lambda gray: _tiff(np.rint(gray / 255 * 4095).astype(np.uint16), smax=4095),
    "14 bits in 16, stated.tiff": lambda gray: _tiff(np.rint(gray / 255 * 16383).astype(np.uint16), max=16383),
    "10 bits in 16.png": lambda gray: _saved(Image.fromarray(np.rint(gray / 255 * 1023).astype(np.uint16)), "PNG"),
    "float.tif": lambda gray: _saved(Image.fromarray(gray.astype(np.float32) / 255), "TIFF"),
    "rgba.png": lambda gray: _saved(_alpha(gray, "RGBA"), "PNG"),
    "la.png": lambda gray: _saved(_alpha(gray, "LA"), "PNG"),
    "alpha.webp": lambda gray: _saved(_alpha(gray, "RGBA"), "WEBP", lossless=True, exact=True),
    "cmyk.jpg": lambda gray: _saved(
        Image.fromarray(gray).convert("RGB").convert("CMYK"), "JPEG", quality=100, subsampling=0
    ),
    "cmyk.tif": lambda gray: _saved(Image.fromarray(gray).convert("RGB").convert("CMYK"), "TIFF"),
    "palette.png": _palette,
    "palette.gif": lambda gray: _saved(Image.fromarray(gray), "GIF"),
    "lzw.tiff": lambda gray: _saved(Image.fromarray(gray).convert("RGB"), "TIFF", compression="tiff_lzw"),
    "gray.webp": lambda gray: _saved(Image.fromarray(gray).convert("RGB"), "WEBP", lossless=True),
    "gray.bmp": lambda gray: _saved(Image.fromarray(gray), "BMP"),
    "gray.jfif": lambda gray: _saved(Image.fromarray(gray), "JPEG", quality=100),
    "gray.avif": lambda gray: _saved(
        Image.fromarray(gray).convert("RGB"), "AVIF", quality=100, subsampling="4:4:4", range="full"
    ),
    "gray.heic": _heic,
    "two frames.gif": lambda gray: _saved(
        Image.fromarray(gray), "GIF", save_all=True, append_images=[Image.fromarray(255 - gray)]
    ),
    "two pages.tif": lambda gray: _saved(
        Image.fromarray(gray), "TIFF", save_all=True, append_images=[Image.fromarray(255 - gray)]
    ),
}
"""File names, and what writes the file."""
