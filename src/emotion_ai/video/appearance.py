"""What a face looks like, coarsely: enough to tell the people of one video apart, and cheap."""

import base64

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.vision.crops import Box, crop

SIDE = 12
"""Cells along a side of the described square."""

_WIDER = 1.25  # than the face's box: with hair and chin
_BLEND = 0.1  # weight of a new look in the remembered one

Look = NDArray[np.float32]


def look_of(rgb: NDArray[np.uint8], box: Box) -> Look:
    """The colours of a face in 12x12 cells, upright, free of brightness and contrast: float32 (432,), of length 1.

    The dot product of two is their correlation. Of 298 annotated faces of the keypoint data, photographs of two people
    have a median of 0.12 and a 95th percentile of 0.57; a face and the same photograph, shifted, scaled and turned by
    3 %, with other light and noise, have 0.85 and a 5th percentile of 0.56 (gray, without hair).
    """
    grown = box.size * (_WIDER - 1) / 2
    pixels = crop(rgb, Box(box.left - grown, box.top - grown, box.size + 2 * grown, box.roll))
    cells = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    centred = cells.ravel() - cells.mean()
    return unit(centred)


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
