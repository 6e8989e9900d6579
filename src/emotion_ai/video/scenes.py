"""Cuts: where the picture of a video changes at once."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIZE = (16, 12)  # cells across and down
_CHANGE = 10.0  # mean change of the cells, in gray levels, from which a frame can be a cut
_ABRUPT = 3.0  # by which that must exceed the changes before
_ALIKE = 0.5  # correlation with the frame before; more light alone leaves it high


@dataclass(frozen=True, eq=False)
class Scene:
    """What a frame shows, coarsely, to notice a cut in the next one.

    Attributes:
        cells: uint8 (12, 16), gray levels; None before the first frame.
        usual: mean change of the cells from frame to frame, lately.
        cut: whether this frame shows another scene than the one before: its cells change by far more than before, and
            in their pattern.
    """

    cells: NDArray[np.uint8] | None = None
    usual: float = 0.0
    cut: bool = False

    def then(self, gray: NDArray[np.uint8]) -> Self:
        """The scene of the next frame, uint8 (H, W)."""
        cells = np.asarray(Image.fromarray(gray).resize(_SIZE, Image.Resampling.BOX, reducing_gap=2.0))
        if self.cells is None:
            return type(self)(cells)
        change = float(np.abs(cells - self.cells.astype(np.float64)).mean())
        cut = change > max(_CHANGE, _ABRUPT * self.usual) and _correlation(cells, self.cells) < _ALIKE
        return type(self)(cells, self.usual if cut else self.usual + 0.2 * (change - self.usual), cut)

    def state(self) -> dict[str, Any]:
        """The scene for JSON; `of` takes it."""
        return {
            "cells": self.cells if self.cells is None else base64.b64encode(self.cells.tobytes()).decode(),
            "usual": self.usual,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Self:
        """The scene that `state` returned."""
        text = state["cells"]
        cells = None if text is None else np.frombuffer(base64.b64decode(text), np.uint8).reshape(_SIZE[::-1])
        return cls(cells, state["usual"])


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Correlation of two pictures, -1 to 1; 0 where either is a single gray level."""
    a, b = one - one.mean(), other - other.mean()
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / length if length > 1e-3 else 0.0
