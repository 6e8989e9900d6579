"""The one resize, and the one framing of a face that both networks were trained on.

Coordinates have pixel centres at integers, in the photograph as in the 96x96 frame.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.contract import CROP_SIZE, KEYPOINTS, MEAN_FACE
from emotion_ai.errors import ImageError


def resize_to_crop(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """The one resize: gray (H, W), 0-255, to float32 (96, 96), not rounded.

    Half-pixel bilinear, antialiased when shrinking, aspect not kept: x96 = (x + 1/2) * 96 / W - 1/2.

    Raises:
        ImageError: not two dimensions, or no pixels.
    """
    if image.ndim != 2 or image.size == 0:
        raise ImageError(f"a face crop has the shape {image.shape}; wanted is gray (H, W)")
    if image.shape == (CROP_SIZE, CROP_SIZE):
        return image.astype(np.float32)
    floating = Image.fromarray(image.astype(np.float32))  # mode F: the result is not rounded
    return np.asarray(floating.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Box:
    """A square of the photograph, in its pixels: `left` and `top` are the outer edges of the first pixels minus 1/2."""

    left: float
    top: float
    size: float

    def to_photo(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the 96x96 frame, (…, 2), in pixels of the photograph."""
        corner = np.array([self.left, self.top])
        return ((points + 0.5) * (self.size / CROP_SIZE) + corner - 0.5).astype(np.float32)

    def to_crop(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the photograph, (…, 2), in pixels of the 96x96 frame."""
        corner = np.array([self.left, self.top])
        return ((points + 0.5 - corner) * (CROP_SIZE / self.size) - 0.5).astype(np.float32)


def box_from_detection(points: NDArray[np.float32]) -> Box:
    """Where the frame lies around a face, so that it is framed as the training faces are.

    Args:
        points: float (4 or more, 2), pixels of the photograph: the eye of the subject's right, of the left, nose tip,
            mouth; what follows, such as the ears, is not used.

    The scale compares the points' spread about their centre with the mean face's, which neither roll nor the nose's
    sideways motion under yaw disturbs much; the centre is that of the eyes and the mouth.
    """
    mean = _mean_anchors()
    scale = np.sqrt(max(_spread(points) / _spread(mean), 1e-6))
    # measured on 838 annotated faces: the detector puts eyes and mouth closer together, and higher, than annotators do;
    # with these two numbers the frame is off by less than a pixel and 3 % on average
    scale *= 1.06
    centre = _centre(points) + np.array([0.0, 1.7]) * scale
    corner = centre + 0.5 - (_centre(mean) + 0.5) * scale
    return Box(float(corner[0]), float(corner[1]), float(CROP_SIZE * scale))


def box_from_points(points: NDArray[np.float32]) -> Box:
    """The frame in which a face's 15 points, float (15, 2), pixels of the photograph, lie as the mean face's do: the
    same mean, and the same spread about it."""
    mean = np.array(MEAN_FACE)
    centre = points.mean(0, dtype=np.float64)
    scale = np.sqrt(max(((points - centre) ** 2).sum() / ((mean - mean.mean(0)) ** 2).sum(), 1e-6))
    corner = centre + 0.5 - (mean.mean(0) + 0.5) * scale
    return Box(float(corner[0]), float(corner[1]), float(CROP_SIZE * scale))


def crop(gray: NDArray[np.uint8], box: Box) -> tuple[NDArray[np.uint8], Box]:
    """The square of whole pixels nearest to the box, uint8 (S, S), and exactly where it lies.

    What lies outside the photograph repeats its border.
    """
    size = max(round(box.size), 1)
    left, top = round(box.left), round(box.top)
    rows = np.arange(top, top + size).clip(0, gray.shape[0] - 1)
    columns = np.arange(left, left + size).clip(0, gray.shape[1] - 1)
    return np.ascontiguousarray(gray[np.ix_(rows, columns)]), Box(left, top, size)


def _mean_anchors() -> NDArray[np.float32]:
    face = dict(zip(KEYPOINTS, np.array(MEAN_FACE), strict=True))
    mouth = (face["mouth_center_top_lip"] + face["mouth_center_bottom_lip"]) / 2
    return np.stack([face["right_eye_center"], face["left_eye_center"], face["nose_tip"], mouth])


def _centre(points: NDArray[np.float32]) -> NDArray[np.float64]:
    return ((points[0] + points[1]) / 2 + points[3]).astype(np.float64) / 2


def _spread(points: NDArray[np.float32]) -> float:
    centred = points[[0, 1, 3]] - _centre(points)
    return float((centred**2).sum())
