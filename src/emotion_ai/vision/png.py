"""Lossless bytes of a gray face, as they are sent to a server."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """PNG of a gray image, uint8 (H, W)."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=3)
    return stream.getvalue()
