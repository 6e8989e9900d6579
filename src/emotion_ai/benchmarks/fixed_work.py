"""Fixed workloads, to which the speed of a stage is related: the same libraries without this package's code.

A workload never changes: a change would move every ratio that is on record.
"""

import hashlib
import io
import lzma
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from emotion_ai.vision.photo import PORTRAITS

Work = Callable[[], object]

_DETECTOR = files("emotion_ai") / "assets" / "detector" / "blazeface_full_range_sparse.tflite"
_MAPS = (
    *((32, 48),) * 4,
    *((32, 24),) * 5,
    *((64, 24),) * 4,
    *((64, 12),) * 4,
    *((128, 12),) * 10,
    *((192, 6),) * 4,
)
"""Channels and side of the convolutions' maps, about as in the two bundled networks."""


def convolutions(batch: int, repeats: int = 1) -> Work:
    """3x3 convolutions of random maps, with normalisation and ReLU, in PyTorch."""
    generator = torch.Generator().manual_seed(0)
    inputs = {size: torch.rand(batch, size[0], size[1], size[1], generator=generator) for size in _MAPS}
    layers = [
        nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()).eval()
        for width, _ in _MAPS
    ]

    def work() -> None:
        with torch.inference_mode():
            for _ in range(repeats):
                for size, layer in zip(_MAPS, layers, strict=True):
                    layer(inputs[size])

    return work


def detector_passes(count: int) -> Work:
    """Passes of the detector's file over noise with LiteRT, and as many resizes of a picture with Pillow."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=_DETECTOR.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    (images,) = interpreter.get_input_details()
    rng = np.random.default_rng(0)
    noise = rng.random(images["shape"], np.float32)
    picture = Image.fromarray(rng.integers(0, 256, (512, 512, 3), np.uint8))

    def work() -> None:
        for _ in range(count):
            picture.resize((images["shape"][2], images["shape"][1]), Image.Resampling.BILINEAR)
            interpreter.set_tensor(images["index"], noise)
            interpreter.invoke()

    return work


def decoding() -> Work:
    """Decodes a bundled JPEG file with Pillow."""
    content = PORTRAITS[1].read_bytes()
    return lambda: np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def decompression(file: Path) -> Work:
    """Decompresses an .xz file."""
    return partial(_decompress, file.read_bytes())


def reloading(file: Path, count: int, side: int, folder: Path) -> Work:
    """Hashes a file, and reads arrays of so many pictures."""
    arrays = folder / "arrays.npz"
    np.savez(arrays, images=np.zeros((count, side, side), np.uint8), targets=np.zeros(count, np.int64))

    def work() -> None:
        hashlib.sha256(file.read_bytes()).hexdigest()
        with np.load(arrays) as saved:
            dict(saved)

    return work


def together(*parts: Work) -> Work:
    """One after the other."""

    def work() -> None:
        for part in parts:
            part()

    return work


def _decompress(content: bytes) -> int:
    return len(lzma.decompress(content))
