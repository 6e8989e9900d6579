"""What one request may make a server compute, in a session as TensorFlow Serving runs it."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.contract import INPUTS, MAX_CROP_PIXELS, MAX_CROP_SIDE, MAX_FACES, SERVABLES, outputs
from emotion_ai_export.convert.saved_model import MAX_SCANS
from emotion_ai_export.registry.warmup import BATCHES
from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.loaded_model import LoadedModel

MIB = 2**20


@pytest.fixture(scope="module")
def served(folders: dict[str, Path]) -> dict[str, LoadedModel]:
    return {name: LoadedModel(folder) for name, folder in folders.items()}


def png(width: int, height: int, depth: int = 8, colour: int = 0, interlaced: bool = False) -> bytes:
    """A black picture; half a kilobyte for a megapixel."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = zlib.compress(bytes(height * (width * channels * depth // 8 + 1) * (2 if interlaced else 1)), 9)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def jpeg(width: int, height: int, **settings: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 80, 70)).save(file, "JPEG", quality=5, **settings)
    return file.getvalue()


def jpeg_that_claims(width: int, height: int) -> bytes:
    """A few hundred bytes, whatever the size."""
    file = bytearray(jpeg(16, 16))
    place = file.index(b"\xff\xc0") + 5
    file[place : place + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(file)


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose second scan is repeated."""
    file = jpeg(256, 256, progressive=True)
    start = file.index(b"\xff\xda", file.index(b"\xff\xda") + 2)
    end = file.index(b"\xff", start + 2)
    more = count - file.count(b"\xff\xda")
    return file[:end] + file[start:end] * more + file[end:]


def values(signature: str, faces: int) -> NDArray[Any]:
    if INPUTS[signature] == "images":
        return np.zeros((faces, 96, 96, 1), np.float32)
    if INPUTS[signature] == "request":
        return np.zeros(faces, np.int32)
    return np.array([png(9, 9)] * faces, object)


def run(model: LoadedModel, signature: str, value: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return model.run(signature, {INPUTS[signature]: value})


def peak(model: LoadedModel, signature: str, value: NDArray[Any]) -> int:
    """Bytes that a rejected request took at most."""

    def size(kind: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(kind))

    Path("/proc/self/clear_refs").write_text("5")
    before = size("VmRSS")
    with pytest.raises(ServingError):
        run(model, signature, value)
    return size("VmHWM") - before


@pytest.mark.parametrize(("name", "signature"), [(n, s) for n in SERVABLES for s in INPUTS if outputs(n, s)])
def test_a_request_holds_a_limited_number_of_faces(name: str, signature: str, served: dict[str, LoadedModel]) -> None:
    for faces in (0, MAX_FACES + 1):
        with pytest.raises(ServingError, match=rf"a request must hold 1 to {MAX_FACES} faces; got\] \[{faces}\]") as e:
            run(served[name], signature, values(signature, faces))
        assert e.value.code == "INVALID_ARGUMENT"
    found = run(served[name], signature, values(signature, MAX_FACES))
    assert {name: len(value) for name, value in found.items()} == dict.fromkeys(outputs(name, signature), MAX_FACES)


def test_the_limit_holds_every_batch_that_is_warmed_up() -> None:
    assert max(BATCHES) <= MAX_FACES


def test_a_rejected_request_costs_nothing_but_its_own_bytes(served: dict[str, LoadedModel]) -> None:
    pixels = np.zeros((2000, 96, 96, 1), np.float32)
    assert peak(served["face"], "serving_default", pixels) < pixels.nbytes + 32 * MIB
    for file in (jpeg_that_claims(5000, 5000), png(5000, 5000), png(3000, 3000, 16, 6)):
        assert peak(served["face"], "serving_full", np.array([file] * 64, object)) < 32 * MIB


@pytest.mark.parametrize("make", [png, jpeg, jpeg_that_claims])
def test_a_picture_has_a_limited_number_of_pixels(make: Any, served: dict[str, LoadedModel]) -> None:
    assert MAX_CROP_PIXELS == 2048 * 2048
    largest = run(served["emotion"], "serving_bytes", np.array([make(2048, 2048)], object))
    assert largest["probabilities"].shape == (1, 5)
    for width, height in ((2049, 2048), (2048, 2049), (65_500, 65)):
        with pytest.raises(ServingError, match=f"more than {MAX_CROP_PIXELS} pixels") as caught:
            run(served["emotion"], "serving_bytes", np.array([png(9, 9), make(width, height)], object))
        assert caught.value.code == "INVALID_ARGUMENT"
        assert f"[{height} {width}]" in str(caught.value)


@pytest.mark.parametrize(("width", "height"), [(1_000_000, 4), (4, 1_000_000), (65_536, 1)])
def test_a_side_has_a_limited_length(width: int, height: int, served: dict[str, LoadedModel]) -> None:
    with pytest.raises(ServingError, match=f"or {MAX_CROP_SIDE} on a side"):
        run(served["emotion"], "serving_bytes", np.array([png(width, height)], object))
    assert peak(served["emotion"], "serving_bytes", np.array([png(width, height)] * 4, object)) < 32 * MIB


@pytest.mark.parametrize(("width", "height"), [(0, 9), (9, 0), (2**31 - 1, 2**31 - 1), (2**32 - 1, 9), (2**31, 2**31)])
def test_impossible_sizes_are_rejected(width: int, height: int, served: dict[str, LoadedModel]) -> None:
    file = bytearray(png(9, 9))
    file[16:24] = struct.pack(">II", width, height)
    file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
    with pytest.raises(ServingError) as caught:
        run(served["emotion"], "serving_bytes", np.array([bytes(file)], object))
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "file",
    [png(64, 64, 16, 0), png(64, 64, 16, 6), png(64, 64, interlaced=True), jpeg(64, 64, progressive=True)],
    ids=["16 bits", "16 bits, alpha", "interlaced", "progressive"],
)
def test_unusual_files_below_the_limits_are_read(file: bytes, served: dict[str, LoadedModel]) -> None:
    assert run(served["emotion"], "serving_bytes", np.array([file], object))["probabilities"].shape == (1, 5)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "TIFF"])
def test_other_formats_are_rejected_under_any_name(kind: str, served: dict[str, LoadedModel]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, kind)
    for start in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(ServingError) as caught:
            run(served["emotion"], "serving_bytes", np.array([start + file.getvalue()], object))
        assert caught.value.code == "INVALID_ARGUMENT"


def test_a_jpeg_file_has_a_limited_number_of_scans(served: dict[str, LoadedModel]) -> None:
    fine = run(served["emotion"], "serving_bytes", np.array([with_scans(MAX_SCANS)], object))
    assert fine["probabilities"].shape == (1, 5)
    with pytest.raises(ServingError, match=f"more than {MAX_SCANS} scans"):
        run(served["emotion"], "serving_bytes", np.array([with_scans(MAX_SCANS + 1)], object))
    with pytest.raises(ServingError, match=f"more than {MAX_SCANS} scans"):
        run(served["emotion"], "serving_bytes", np.array([with_scans(50_000)], object))
