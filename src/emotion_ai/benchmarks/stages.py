"""The stages of reading and of loading data whose speed is kept on record."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from emotion_ai.benchmarks import fixed_work
from emotion_ai.benchmarks.interleaved import Stage
from emotion_ai.contract import CROP_SIZE
from emotion_ai.data.loaders import FER_SIDE, PARTS, load
from emotion_ai.inference.reader import FaceReader
from emotion_ai.vision.detector import find_faces
from emotion_ai.vision.photo import PORTRAITS, load_photo

_ROWS = 1500
"""Of the dataset file that is loaded."""


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch with one thread, which is what `interleaved` can time on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reading_stages(reader: FaceReader) -> list[Stage]:
    """Photos from file to faces, the detection alone, and crops: the sum of several calls each."""
    contents = 2 * [path.read_bytes() for path in PORTRAITS]
    photos = [load_photo(content).rgb for content in contents]
    crops = np.random.default_rng(0).integers(0, 256, (4, 16, CROP_SIZE, CROP_SIZE), np.uint8)
    singles = crops[0, :, None]
    detector = fixed_work.detector_passes(32)
    decoding = fixed_work.decoding()
    photo = fixed_work.together(decoding, decoding, detector, fixed_work.convolutions(1, 8))
    one, many = fixed_work.convolutions(1, 8), fixed_work.convolutions(16, 2)
    return [
        Stage("reading photos", lambda: [reader.read(content) for content in contents], photo, len(contents)),
        Stage("finding faces", lambda: [find_faces(rgb) for rgb in photos], detector, len(photos)),
        Stage("reading crops one by one", lambda: [reader.read_crops(crop) for crop in singles], one, 16, "crops"),
        Stage("reading crops together", lambda: [reader.read_crops(batch) for batch in crops], many, 64, "crops"),
    ]


@contextmanager
def ingest_stages(folder: Path) -> Iterator[list[Stage]]:
    """A dataset file of FER2013's form, compressed: parsed, and read from the cache; files are written to `folder`."""
    file = write_faces(folder / "faces.csv.xz")
    before = os.environ.get("EMOTION_AI_CACHE")
    cache = folder / "cache"

    def parsed() -> None:
        for entry in cache.glob("*"):
            entry.unlink()
        load(file, "emotion", "fer7")

    os.environ["EMOTION_AI_CACHE"] = str(cache)
    try:
        yield [
            Stage("loading a dataset", parsed, fixed_work.decompression(file), _ROWS, "faces", 0.3, True),
            Stage(
                "loading a cached dataset",
                lambda: load(file, "emotion", "fer7"),
                fixed_work.reloading(file, _ROWS, FER_SIDE, folder),
                _ROWS,
                "faces",
                0.5,
                True,
            ),
        ]
    finally:
        if before is None:
            del os.environ["EMOTION_AI_CACHE"]
        else:
            os.environ["EMOTION_AI_CACHE"] = before


def write_faces(file: Path, seed: int = 0) -> Path:
    """A dataset file of smooth random pictures, which compress about as faces do."""
    import lzma

    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((_ROWS, 1, 12, 12), np.float32) * 255)
    smooth = torch.nn.functional.interpolate(coarse, (FER_SIDE, FER_SIDE), mode="bilinear")[:, 0]
    images = np.clip(smooth.numpy() + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)
    with lzma.open(file, "wt", preset=1) as stream:
        stream.write("emotion,pixels,Usage\n")
        for row, image in enumerate(images):
            stream.write(f"{row % 7},{' '.join(map(str, image.ravel()))},{PARTS[row % 10 == 0]}\n")
    return file
