"""One decoder: every encoding of a picture gives the same picture, or one clear error."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_ai.errors import ImageError
from emotion_ai.vision.decoding import decode, starts_like_picture
from emotion_ai.vision.photo import PORTRAITS, load_photo
from tests.vision.encodings import ENCODINGS, Gray


def portrait(width: int, height: int) -> Gray:
    """A face that uses the whole range of gray levels."""
    gray = np.asarray(Image.open(PORTRAITS[0]).convert("L").crop((150, 0, 310, 200)).resize((width, height)))
    low, high = int(gray.min()), int(gray.max())
    return np.rint((gray.astype(float) - low) * 255 / (high - low)).astype(np.uint8)


FACE = portrait(120, 96)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def difference(gray: Gray, expected: Gray) -> int:
    assert gray.shape == expected.shape
    return int(np.abs(gray.astype(int) - expected).max())


@pytest.mark.parametrize("name", ENCODINGS)
def test_path_upload_and_array_of_one_face_are_the_same_gray_picture(tmp_path: Path, name: str) -> None:
    content = ENCODINGS[name](FACE)
    assert starts_like_picture(content)
    (tmp_path / name).write_bytes(content)
    by_path, upload = load_photo(tmp_path / name), load_photo(content)
    assert difference(by_path.gray, FACE) <= 2
    np.testing.assert_array_equal(upload.gray, by_path.gray)
    frame = load_photo(by_path.rgb)  # as a video decoder hands it over
    np.testing.assert_array_equal(frame.gray, by_path.gray)
    assert by_path.notes == (("the first of several frames",) if "two" in name else ())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(FACE.astype(np.uint16) * 60), "largest 16-bit value is 15300, so white may be 16383 or 65535"),
        (Image.fromarray(FACE.astype(np.int32) - 5), "go from -5 to 250"),
        (Image.fromarray(FACE.astype(np.int32) * 10**6), "outside 16 bits"),
        (Image.fromarray(FACE.astype(np.float32) / 127.5 - 1), "go from -1 to 1; they must lie in 0-1 or 0-255"),
        (Image.fromarray(FACE.astype(np.float32) / 100), "go from 0 to 2.55"),
    ],
)
def test_unclear_ranges_are_rejected(image: Image.Image, message: str) -> None:
    for source in (image, saved(image, "TIFF")):
        with pytest.raises(ImageError, match=message):
            load_photo(source)


def test_16_bit_colours_that_use_12_bits_are_rejected_not_read_nearly_black() -> None:
    def png(shift: int) -> bytes:
        """RGB with 16 bits, which Pillow does not write."""
        import struct
        import zlib

        values = np.repeat((FACE.astype(">u2") * 257 >> shift)[..., None], 3, 2).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in values)
        header = struct.pack(">IIBBBBB", FACE.shape[1], FACE.shape[0], 16, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
        return b"\x89PNG\r\n\x1a\n" + b"".join(packed)

    assert difference(load_photo(png(0)).gray, FACE) <= 1
    with pytest.raises(ImageError, match="16-bit colours use less than a quarter"):
        load_photo(png(4))


def test_white_is_zero_in_16_bits() -> None:
    inverted = saved(Image.fromarray((255 - FACE).astype(np.uint16) * 257), "TIFF", tiffinfo={262: 0})
    assert Image.open(io.BytesIO(inverted)).tag_v2[262] == 0  # type: ignore[attr-defined]
    assert difference(load_photo(inverted).gray, FACE) == 0


def test_a_transparent_gray_level_of_16_bits_becomes_white() -> None:
    deep = FACE.astype(np.uint16) * 257
    gray = load_photo(saved(Image.fromarray(deep), "PNG", transparency=int(deep[0, 0]))).gray
    assert (gray[deep == deep[0, 0]] == 255).all()
    np.testing.assert_array_equal(gray[deep != deep[0, 0]], FACE[deep != deep[0, 0]])


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(FACE > 128)
    for kind in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(load_photo(saved(bits, kind)).gray, np.where(FACE > 128, 255, 0))


def test_a_jpeg_above_the_limit_is_shrunk_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    face = portrait(641, 480)
    content = saved(Image.fromarray(face), "JPEG", quality=95)
    monkeypatch.setattr("emotion_ai.vision.decoding.MAX_PIXELS", 100_000)
    photo = load_photo(content)
    assert photo.scale == 2
    assert photo.gray.shape == (240, 321)
    assert photo.notes == ("shrunk by 2 while decoding",)
    assert np.abs(photo.gray[:, :320].astype(float) - face[:, :640].reshape(240, 2, 320, 2).mean((1, 3))).max() < 8
    for other in (saved(Image.fromarray(face), "PNG"), saved(Image.fromarray(face), "JPEG", progressive=True)):
        with pytest.raises(ImageError, match="641x480 pixels, more than 0 megapixels"):
            load_photo(other)


def test_huge_jpegs_are_decoded_at_half_size_or_rejected_by_their_header() -> None:
    wide = saved(Image.new("L", (16000, 8000)), "JPEG")  # 128 megapixels: a phone's largest are 200
    assert load_photo(wide).gray.shape == (4000, 8000)
    place = wide.index(b"\xff\xc0") + 5  # height and width in the frame header
    with pytest.raises(ImageError, match="20000x20000 pixels, more than 256 megapixels"):
        load_photo(wide[:place] + (20000).to_bytes(2) * 2 + wide[place + 4 :])


def test_shrinking_to_a_crop_changes_hardly_anything() -> None:
    from emotion_ai.vision.crops import resize_to_crop

    content = saved(Image.fromarray(portrait(1600, 2000)), "JPEG", quality=95)
    whole, shrunk = decode(content, "a"), decode(content, "a", shrink_to=384)
    assert (whole.scale, shrunk.scale) == (1, 4)
    assert np.abs(resize_to_crop(whole.gray()) - resize_to_crop(shrunk.gray())).max() <= 2
    content = saved(Image.fromarray(portrait(1601, 1999)), "JPEG", quality=95)
    whole, shrunk = decode(content, "a"), decode(content, "a", shrink_to=384)
    assert (whole.scale, shrunk.scale) == (1, 4)
    assert np.abs(resize_to_crop(whole.gray()) - resize_to_crop(shrunk.gray())).max() <= 2


def test_formats_that_start_other_programs_are_not_opened() -> None:
    eps = saved(Image.fromarray(FACE), "EPS")
    with pytest.raises(ImageError, match="not a readable picture"):
        load_photo(eps)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(ImageError, match=r"cannot be read \(not a regular file\)"):
            load_photo(path)
    monkeypatch.setattr("emotion_ai.vision.photo.MAX_FILE_BYTES", 1024**2)
    (tmp_path / "large.png").write_bytes(bytes(1024**2 + 1))
    with pytest.raises(ImageError, match=r"large\.png: is larger than 1 MiB"):
        load_photo(tmp_path / "large.png")


class Tensor:
    """What a PyTorch tensor with a gradient on a GPU does."""

    def __init__(self, values: np.ndarray, ready: bool = False) -> None:
        self.values, self.ready = values, ready

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return Tensor(self.values, ready=True)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if not self.ready:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.values


def test_sources_of_every_kind_are_the_same_photo(tmp_path: Path) -> None:
    import torch

    rgb = np.stack([FACE, 255 - FACE, FACE], 2)
    content = saved(Image.fromarray(rgb), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    with (tmp_path / "a.png").open("rb") as stream:
        photos = [load_photo(stream)]
    photos += [load_photo(source) for source in (bytearray(content), memoryview(content), io.BytesIO(content))]
    photos += [load_photo(source) for source in (torch.tensor(rgb), torch.tensor(rgb).permute(2, 0, 1))]
    photos += [load_photo(source) for source in (rgb.tolist(), rgb.astype(np.int64), Tensor(rgb))]
    photos += [load_photo(np.dstack([rgb, np.full_like(FACE, 255)]))]
    for photo in photos:
        np.testing.assert_array_equal(photo.rgb, rgb)
    for gray in (FACE[..., None], FACE[None], FACE.tolist(), FACE.astype(np.uint16) * 257):
        np.testing.assert_array_equal(load_photo(gray).gray, FACE)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (FACE / 255, r"got float64 \(96, 120\); multiply by 255 and round"),
        (FACE > 100, "got bool"),
        (FACE.astype(np.int64) - 1, "got values from -1 to 254"),
        (FACE[None, None], r"got uint8 \(1, 1, 96, 120\)"),
        ([[1, 2], [3]], "a list is not a photo"),
        (["a.jpg", "b.jpg"], "must be a path"),
        (None, "must be a path"),
        (io.StringIO("text"), "returns str; open it in binary mode"),
        (io.BytesIO(), "is empty"),
    ],
)
def test_other_sources_are_one_clear_line(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_photo(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
