"""How well a crop shows its face: size, sharpness, brightness and contrast, with NumPy only."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emotion_ai.vision.crops import check_gray, resize_to_crop

Flag = Literal["small", "blurred", "dark", "turned", "cut"]
FLAGS: tuple[Flag, ...] = ("small", "blurred", "dark", "turned", "cut")
"""What can be wrong with a face, in the order in which it is reported."""

SMALL = 32
"""A crop with a shorter side, in pixels of the photo, is small."""

BLURRED = 0.06
"""A crop of lower sharpness is blurred."""

DARK = 20
"""A crop of lower brightness is dark."""


@dataclass(frozen=True)
class FaceQuality:
    """Measures of one crop, without a trained model, as ISO/IEC 29794-5 names them for face images.

    All but `size` are taken from the crop as the networks see it: resized to 96x96, gray levels 0 to 255.

    Attributes:
        size: side of the crop in pixels of the photo; of a crop that is not square, the shorter one.
        sharpness: standard deviation of the 4-neighbour Laplacian (Pech-Pacheco et al. 2000,
            doi:10.1109/ICPR.2000.903548) divided by the contrast, so that light does not change it; no unit. 0.3 for a
            sharp face, 0.1 after a Gaussian blur of 1.5 pixels of the 96, 0.05 after one of 3; noise raises it. 0 for
            a crop of a single gray level.
        brightness: mean gray level.
        contrast: standard deviation of the gray levels (RMS contrast, Peli 1990, doi:10.1364/JOSAA.7.002032).
    """

    size: float
    sharpness: float
    brightness: float
    contrast: float

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Those of small, blurred and dark that the crop is."""
        found: dict[Flag, bool] = {
            "small": self.size < SMALL,
            "blurred": self.sharpness < BLURRED,
            "dark": self.brightness < DARK,
        }
        return tuple(flag for flag in FLAGS if found.get(flag))


UNKNOWN_QUALITY = FaceQuality(*[float("nan")] * 4)


def measure_quality(crop: NDArray[np.uint8], size: float | None = None) -> FaceQuality:
    """The quality of a crop, uint8 (H, W).

    Args:
        crop: gray, of any size.
        size: side of the crop in pixels of the photo, if the crop was resized since; by default its shorter side.

    Raises:
        ImageError: the crop is not gray, uint8 (H, W).
    """
    gray = resize_to_crop(check_gray(crop, "a face crop")).astype(np.float64)
    neighbours = gray[1:-1, :-2] + gray[1:-1, 2:] + gray[:-2, 1:-1] + gray[2:, 1:-1]
    contrast = float(gray.std())
    sharpness = float((neighbours - 4 * gray[1:-1, 1:-1]).std()) / contrast if contrast > 1e-6 else 0.0
    return FaceQuality(float(min(crop.shape) if size is None else size), sharpness, float(gray.mean()), contrast)
