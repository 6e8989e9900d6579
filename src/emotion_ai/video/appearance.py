"""What a face looks like, coarsely: enough to tell the people of one video apart, and cheap."""

import base64

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.vision.crops import Box, crop

SIDE = 12
"""Cells along a side of the described square."""

_SIZE = 0.9  # of the described square, in sides of the face's box
_ACROSS = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
_FACE = (_ACROSS**2 + _ACROSS[:, None] ** 2 <= 1).astype(np.float32)  # the cells without what is behind the face
_BLEND = 0.1  # weight of a new look in the remembered one

Look = NDArray[np.float32]


def look_of(rgb: NDArray[np.uint8], box: Box) -> Look:
    """The colours of a face in a disc of 12x12 cells, upright, free of light: float32 (432,), of length 1.

    Brightness and contrast are removed; the dot product of two looks is their correlation. Photographs of two people
    of the keypoint data's 298 validation faces have a median of 0.19 and a 99th percentile of 0.70; a face shifted,
    scaled and turned by about 3 %, with other light and noise, correlates with itself by 0.80 (median).
    """
    edge = box.size * (1 - _SIZE) / 2
    pixels = crop(rgb, Box(box.left + edge, box.top + edge, box.size - 2 * edge, box.roll))
    cells = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    centred = (cells - (cells.mean(2) * _FACE).sum() / _FACE.sum()) * _FACE[..., None]
    return unit(centred.ravel())


def unit(look: Look) -> Look:
    """A look scaled to length 1; a single colour stays zero."""
    length = np.linalg.norm(look)
    return look / length if length > 1e-3 else np.zeros_like(look)


def blended(before: Look, new: Look) -> Look:
    """A remembered look that follows the new one slowly."""
    return unit((1 - _BLEND) * before + _BLEND * new)


def as_text(look: Look) -> str:
    """A look for JSON, exactly."""
    return base64.b64encode(look.astype("<f4").tobytes()).decode()


def from_text(text: str) -> Look:
    """The look that `as_text` returned."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
