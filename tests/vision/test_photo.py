"""Photos of every kind are decoded upright, in 8 bits; anything else is one clear line."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emotion_ai.errors import ImageError
from emotion_ai.vision.photo import MAX_PIXELS, PORTRAITS, load_photo

RGB = np.asarray(Image.open(PORTRAITS[0]).convert("RGB").resize((120, 80)))
GRAY = np.asarray(Image.fromarray(RGB).convert("L"))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "1", "I;16", "I", "F"])
def test_every_mode_becomes_rgb_and_gray(mode: str) -> None:
    photo = load_photo(Image.fromarray(RGB).convert("L").convert(mode) if mode in "1LA" else convert(mode))
    assert photo.rgb.shape == (80, 120, 3)
    assert photo.gray.shape == (80, 120)
    assert photo.rgb.dtype == photo.gray.dtype == np.uint8
    if mode == "1":  # dithered: right on average only
        assert photo.gray.mean() == pytest.approx(GRAY.mean(), abs=3)
    else:
        assert np.abs(photo.gray.astype(int) - GRAY).mean() < 4, mode


def convert(mode: str) -> Image.Image:
    match mode:
        case "I;16" | "I":
            return Image.fromarray(GRAY.astype(np.uint16 if mode == "I;16" else np.int32) * 257)
        case "F":
            return Image.fromarray(GRAY.astype(np.float32) / 255)
        case "P":
            return Image.fromarray(RGB).quantize(256)
        case "LA":
            return Image.fromarray(GRAY).convert("LA")
    return Image.fromarray(RGB).convert(mode)


def test_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(GRAY.astype(np.uint16) * 257).save(tmp_path / name)
        np.testing.assert_array_equal(load_photo(tmp_path / name).gray, GRAY)


@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_floating_point_pictures(scale: float) -> None:
    values = GRAY.astype(np.float32) * np.float32(scale)
    np.testing.assert_array_equal(load_photo(Image.fromarray(values)).gray, GRAY)
    values[0, 0] = np.nan
    assert load_photo(Image.fromarray(values)).gray[0, 0] == 0


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert (load_photo(clear).rgb == 255).all()
    palette = Image.fromarray(RGB).quantize(8)
    clear_places = np.asarray(palette) == 3
    photo = load_photo(encoded(palette, "PNG", transparency=3))
    assert (photo.rgb[clear_places] == 255).all()
    np.testing.assert_array_equal(photo.rgb[~clear_places], np.asarray(palette.convert("RGB"))[~clear_places])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(RGB)
    stored = upright.transpose(turned[orientation]) if orientation in turned else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(load_photo(encoded(stored, "PNG", exif=exif)).rgb, RGB)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_path_bytes_and_image_agree(tmp_path: Path, kind: str) -> None:
    content = encoded(Image.fromarray(RGB), kind)
    path = tmp_path / "photo"
    path.write_bytes(content)
    with Image.open(path) as image:
        photos = [load_photo(path), load_photo(str(path)), load_photo(content), load_photo(image)]
    for photo in photos:
        np.testing.assert_array_equal(photo.rgb, photos[0].rgb)
    assert photos[0].name == str(path)
    np.testing.assert_array_equal(load_photo(RGB).rgb, RGB)
    np.testing.assert_array_equal(load_photo(GRAY).gray, GRAY)


def huge_png(width: int, height: int) -> bytes:
    """A header that promises so many pixels, and no pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG, PNG = encoded(Image.fromarray(RGB), "JPEG"), encoded(Image.fromarray(RGB), "PNG")
BAD = {
    "empty": (b"", "is empty"),
    "text": (b"emotion,pixels\n0,1 2 3\n", "not a readable picture"),
    "garbage": (np.random.default_rng(0).bytes(5000), "not a readable picture"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "half a png": (PNG[: len(PNG) // 2], "truncated"),
    "a jpeg's first bytes": (JPEG[:20], r"not a readable picture|truncated"),
    "one pixel": (encoded(Image.new("L", (1, 1)), "PNG"), "1x1 pixels; it must have"),
    "a thin line": (encoded(Image.new("L", (500, 3)), "PNG"), "500x3 pixels; it must have"),
    "20,000 x 20,000": (huge_png(20000, 20000), "64 megapixels"),
    "9,000 x 9,000": (huge_png(9000, 9000), "9000x9000 pixels, more than 64 megapixels"),
    "13,000 x 13,000": (huge_png(13000, 13000), "64 megapixels"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_pictures_are_one_line(tmp_path: Path, kind: str) -> None:
    content, message = BAD[kind]
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(ImageError, match=message) as caught:
            load_photo(source)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(path) if source is path else "the given image")


def test_damaged_pixels_of_a_lazy_image_are_an_image_error() -> None:
    with pytest.raises(ImageError, match="truncated"):
        load_photo(Image.open(io.BytesIO(PNG[: len(PNG) // 2])))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        load_photo(tmp_path / "nowhere.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        load_photo(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        load_photo("a\0b.jpg")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((20, 20), np.float32),
        np.zeros((20, 20, 2), np.uint8),
        np.zeros(20, np.uint8),
        np.zeros((0, 9), np.uint8),
    ],
)
def test_arrays_of_another_form(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match="must"):
        load_photo(array)


@settings(max_examples=150)
@given(st.integers(0, len(PNG) - 1), st.integers(0, 255), st.sampled_from([PNG, JPEG]))
def test_a_changed_byte_gives_a_picture_or_an_image_error(place: int, value: int, content: bytes) -> None:
    changed = bytearray(content)
    changed[place % len(content)] = value
    with contextlib.suppress(ImageError):  # nothing else may come out
        assert load_photo(bytes(changed)).rgb.size <= 3 * MAX_PIXELS
