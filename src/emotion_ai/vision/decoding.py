"""The one decoder of pictures: photos, class folders, video frames and uploads all pass through `decode`."""

import io
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import jpeg_factory

from emotion_ai.errors import ImageError

MAX_PIXELS = 64_000_000
"""Pixels of the largest picture that is decoded whole."""

MAX_JPEG_PIXELS = 256_000_000
"""Pixels of the largest JPEG file; above `MAX_PIXELS` it is shrunk while it is decoded."""

PICTURE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif")
    + (".avif", ".heic", ".heif", ".hif", ".jp2", ".ppm", ".pgm", ".pbm")
)
"""Suffixes of picture files, in lower case."""

# Pillow opens more, among them EPS, for which it starts Ghostscript.
_FORMATS = ("PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "JPEG2000", "PPM")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE, _SMAX_SAMPLE = 258, 262, 281, 341  # TIFF tags
_WHITE_IS_ZERO = 0


@dataclass(frozen=True)
class Decoded:
    """An upright picture.

    Attributes:
        image: mode L or RGB.
        scale: pixels of the file per pixel of `image`, a whole number.
        notes: what was done beyond decoding, in words, such as "the first of several frames".
    """

    image: Image.Image
    scale: int = 1
    notes: tuple[str, ...] = ()

    def rgb(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3)."""
        return np.asarray(self.image.convert("RGB"))

    def gray(self) -> NDArray[np.uint8]:
        """uint8 (H, W), the luma of ITU-R 601."""
        return np.asarray(self.image.convert("L"))


def decode(source: bytes | Image.Image, name: str, shrink_to: int | None = None, min_side: int = 1) -> Decoded:
    """Decodes a picture file, or converts an open PIL image, upright and with 8 bits.

    - EXIF orientation is applied; transparency is laid over white; CMYK and palettes become RGB.
    - Colour profiles are not applied: values are those in the file.
    - Of several frames or pages the first is decoded; of HEIC the primary image.
    - 16 bits are scaled by their real range: TIFF's BitsPerSample or (S)MaxSampleValue if the file has them, otherwise
      by the largest value: 8, 10 or 12 bits if it fits, 16 bits if it needs more than 14. A picture that could have
      either 14 or 16 bits is rejected. Floats hold 0-1 or 0-255.
    - A JPEG file of more than 64 megapixels is shrunk by 2, 4 or 8 while it is decoded.

    Args:
        source: the file's content, or the image.
        name: for messages.
        shrink_to: pictures are shrunk by a whole factor as long as both sides keep at least so many pixels, JPEG files
            while they are decoded.
        min_side: pixels that the shorter side must have.

    Raises:
        ImageError: not a picture, damaged, too large, too small, or with an unclear range of values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limits come before Pillow's warning
            if isinstance(source, Image.Image):
                if source.width * source.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return _decode(source, name, min_side)
            with _open(source) as image:
                size, factor = image.size, _shrink(image, name, shrink_to)
                if shrink_to is None:
                    return _decode(image, name, min_side, factor)
                _fit(image, size, factor)
                decoded = _decode(image, name, min_side, factor)
                return replace(decoded, image=_reduced(decoded.image, shrink_to))
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: is not a readable picture; use PNG, JPEG, WebP, TIFF, BMP, GIF or HEIC") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: has more than {_megapixels(MAX_PIXELS)}; use a smaller one") from error
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{name}: does not fit into memory; use a smaller one") from error
    except Exception as error:  # the decoders raise a dozen kinds for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: is damaged or truncated ({reason}); use the complete file") from error


def starts_like_picture(content: bytes) -> bool:
    """Whether a file begins as one of a format that is decoded."""
    Image.init()
    accepts = (Image.OPEN[name][1] for name in _FORMATS if name in Image.OPEN)
    return _is_jpeg(content) or _is_heif(content) or any(accept and accept(content[:16]) for accept in accepts)


def _is_jpeg(content: bytes) -> bool:
    return content[:3] == b"\xff\xd8\xff"


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS and b"avif" not in content[12:64]


def _open(content: bytes) -> Image.Image:
    if _is_jpeg(content):  # not through Image.open, which rejects what `draft` makes small enough
        try:
            return jpeg_factory(io.BytesIO(content))
        except SyntaxError as error:
            raise UnidentifiedImageError(str(error)) from error
    if _is_heif(content):
        from pillow_heif import HeifImageFile

        image: Image.Image = HeifImageFile(io.BytesIO(content))  # type: ignore[no-untyped-call]
        return image
    return Image.open(io.BytesIO(content), formats=_FORMATS)


def _decode(image: Image.Image, name: str, min_side: int, factor: int = 1) -> Decoded:
    if min(image.size) * factor < min_side:
        size = f"{image.width}x{image.height}"
        raise ImageError(f"{name}: has {size} pixels; it must have at least {min_side}x{min_side}")
    deep = _has_deep_channels(image)
    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    upright = ImageOps.exif_transpose(image) if turned else image  # which would copy it
    if deep and _largest_value(upright) <= _MAX_14_BITS >> 8:
        raise ImageError(
            f"{name}: its 16-bit colours use less than a quarter of their range, so they may hold fewer bits; "
            "save it with 8 bits"
        )
    notes = [f"shrunk by {factor} while decoding"] if factor > 1 else []
    if _has_more_frames(image):
        notes.append("the first of several frames")
    is_gray = upright.mode.startswith("I") or upright.mode == "F"
    return Decoded(
        _deep_gray(upright, name, _tiff_tags(image)) if is_gray else _colours(upright, name), factor, tuple(notes)
    )


def _shrink(image: Image.Image, name: str, shrink_to: int | None) -> int:
    """Lets the JPEG decoder shrink a picture; returns the factor.

    Raises:
        ImageError: it would still be too large. Nothing was decoded yet.
    """
    width, height = image.size
    draft = getattr(image, "draft", None) if image.format in ("JPEG", "MPO") else None
    progressive = image.info.get("progressive")  # libjpeg holds such a file whole, even to shrink it
    limit = MAX_PIXELS if draft is None or progressive else MAX_JPEG_PIXELS
    if width * height > limit:
        raise ImageError(f"{name}: has {width}x{height} pixels, more than {_megapixels(limit)}; use a smaller one")
    factor = 1
    if draft is not None and shrink_to is not None:
        factor = next((f for f in (8, 4, 2) if min(width, height) >= f * shrink_to), 1)
    while width * height > MAX_PIXELS * factor**2:
        factor *= 2
    if draft is not None and factor > 1:
        draft(None, (width // factor, height // factor))
    return factor


def _fit(image: Image.Image, size: tuple[int, int], factor: int) -> None:
    """Resamples a picture of some size that was shrunk by a factor, so that its last column and row end where it does.

    Shrinking rounds sizes up, and the last column and row are only partly of the picture.
    """
    width, height = size[0] / factor, size[1] / factor
    if image.size != (width, height):
        image.load()
        image.im = image.im.resize(image.size, Image.Resampling.BICUBIC, (0, 0, width, height))


def _reduced(image: Image.Image, shrink_to: int) -> Image.Image:
    """The picture shrunk by the largest whole factor that leaves both sides enough pixels: the means of squares."""
    factor = min(image.size) // shrink_to
    if factor < 2:
        return image
    small = image.reduce(factor)
    _fit(small, image.size, factor)
    return small


def _megapixels(pixels: int) -> str:
    return f"{pixels // 1_000_000} megapixels"


def _has_more_frames(image: Image.Image) -> bool:
    if image.format == "MPO":  # phones append a depth or gain map
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damage behind the first frame
        return False


def _colours(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "LAB":
        raise ImageError(f"{name}: has L*a*b* colours, which are not supported; save it as RGB")
    if image.has_transparency_data:
        layered = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


_MAX_8_BITS, _MAX_10_BITS, _MAX_12_BITS, _MAX_14_BITS, _MAX_16_BITS = (2**bits - 1 for bits in (8, 10, 12, 14, 16))


def _has_deep_channels(image: Image.Image) -> bool:
    """Whether Pillow will cut 16-bit colours down to their upper 8 bits."""
    for tile in getattr(image, "tile", ()):
        raw_mode = tile[3] if isinstance(tile[3], str) else (tile[3] or [""])[0]
        if isinstance(raw_mode, str) and ";16" in raw_mode:
            return image.mode[0] not in "IF"
    return False


def _largest_value(image: Image.Image) -> int:
    """The largest value of the colours, transparency aside."""
    colours = [band for band in image.getbands() if band.upper() != "A"]
    return max(int(np.asarray(image.getchannel(band)).max()) for band in colours)


def _tiff_tags(image: Image.Image) -> dict[int, Any]:
    tags = getattr(image, "tag_v2", None)
    wanted = (_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE, _SMAX_SAMPLE)
    return {} if tags is None else {tag: _first(tags[tag]) for tag in wanted if tag in tags}


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _deep_gray(image: Image.Image, name: str, tags: dict[int, Any]) -> Image.Image:
    """A gray picture of 16 or 32 bits, scaled to 8."""
    scaled = _scaled_floats if image.mode == "F" else _scaled_integers
    levels = scaled(np.asarray(image), name, tags)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 255 - levels
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels = np.where(np.asarray(image) == transparent, np.uint8(255), levels)
    return Image.fromarray(levels)


def _scaled_integers(values: NDArray[Any], name: str, tags: dict[int, Any]) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MAX_16_BITS:
        raise ImageError(f"{name}: its values go from {low} to {high}, outside 16 bits; save it with 8 bits")
    top = _integer_range(high, name, tags)
    table: NDArray[np.float64] = np.rint(np.arange(_MAX_16_BITS + 1).clip(max=top) * (255 / top))
    return table.astype(np.uint8)[values]


def _integer_range(high: int, name: str, tags: dict[int, Any]) -> int:
    """The value of white, for a picture whose largest value is `high`."""
    bits = tags.get(_BITS_PER_SAMPLE, 16)
    if bits < 16:
        return int(2**bits - 1)
    for tag in (_SMAX_SAMPLE, _MAX_SAMPLE):
        stated = tags.get(tag)
        if stated and stated >= high and stated == stated // 1 and stated <= _MAX_16_BITS:
            return max(2 ** int(stated).bit_length() - 1, _MAX_8_BITS)
    for top in (_MAX_8_BITS, _MAX_10_BITS, _MAX_12_BITS):
        if high <= top:
            return top
    if high <= _MAX_14_BITS:
        raise ImageError(
            f"{name}: its largest 16-bit value is {high}, so white may be {_MAX_14_BITS} or {_MAX_16_BITS}; "
            "save it with 8 bits, or as TIFF with MaxSampleValue"
        )
    return _MAX_16_BITS


def _scaled_floats(values: NDArray[Any], name: str, tags: dict[int, Any]) -> NDArray[np.uint8]:
    values = np.nan_to_num(values.astype(np.float32), nan=0.0)
    low, high = float(values.min()), float(values.max())
    if low < -0.02 * max(high, 1.0) or 1.01 < high < 16 or high > _MAX_16_BITS:
        raise ImageError(
            f"{name}: its floating-point values go from {low:g} to {high:g}; they must lie in 0-1 or 0-255"
        )
    top = 1 if high <= 1.01 else _MAX_8_BITS if high < _MAX_8_BITS + 1 else _integer_range(int(high), name, {})
    return np.rint((values * np.float32(255 / top)).clip(0, 255)).astype(np.uint8)
