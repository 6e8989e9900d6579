"""The one resize, and the crop of a face that both networks were trained on.

Coordinates have pixel centres at integers, in the photo as in the 96x96 crop.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.contract import CROP_SIZE, KEYPOINTS, MEAN_FACE
from emotion_ai.errors import ImageError


def check_gray(image: Any, name: str) -> NDArray[np.uint8]:
    """Returns an image unchanged.

    Raises:
        ImageError: it is not gray, uint8 (H, W), or has no pixels; `name` says which it is.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 2 and image.size:
        return image
    raise ImageError(f"{name} must be gray, uint8 (H, W), got {describe(image)}")


def check_rgb(image: Any, name: str) -> NDArray[np.uint8]:
    """Returns an image unchanged.

    Raises:
        ImageError: it is not colour, uint8 (H, W, 3), or has no pixels; `name` says which it is.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size:
        return image
    raise ImageError(f"{name} must be colour, uint8 (H, W, 3), got {describe(image)}")


def describe(value: Any) -> str:
    """What a value is, for messages: dtype and shape of an array, otherwise the type."""
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    scaled = value.dtype.kind == "f" and value.size and 0 <= value.min() <= value.max() <= 1
    remedy = "; for pixels from 0 to 1 give np.rint(255 * pixels).astype(np.uint8)" if scaled else ""
    return f"{value.dtype} {value.shape}{remedy}"


def resize_to_crop(image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """The one resize: gray (H, W), 0-255, to float32 (96, 96), not rounded.

    Half-pixel bilinear, antialiased when shrinking, aspect not kept: x96 = (x + 1/2) * 96 / W - 1/2.

    Raises:
        ImageError: the image is neither uint8 (H, W) nor float32 (H, W) from 0 to 255, or has no pixels.
    """
    pixels = isinstance(image, np.ndarray) and image.dtype == np.float32 and image.ndim == 2 and image.size
    if not pixels or not 1 < image.max() <= 255 or image.min() < 0:  # also for NaN
        check_gray(image, "a face crop")
    if image.shape == (CROP_SIZE, CROP_SIZE):
        return image.astype(np.float32)
    floating = Image.fromarray(image.astype(np.float32))  # mode F: the result is not rounded
    return np.asarray(floating.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BILINEAR))


def shrink(image: NDArray[np.uint8], pixels: int, side: int) -> NDArray[np.uint8]:
    """A gray image (H, W) of at most so many pixels, and on a side, antialiased; a smaller one unchanged."""
    height, width = image.shape
    if image.size <= pixels and max(image.shape) <= side:
        return image
    scale = min((pixels / image.size) ** 0.5, 1.0)
    width = min(max(int(width * scale), 1), side)
    height = max(min(int(height * scale), side, pixels // width), 1)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Box:
    """A square in a photo, in pixels.

    Attributes:
        left, top: its first column and row, fractions included, before it is turned.
        size: its side.
        roll: degrees by which it is turned about its centre, clockwise; the crop shows what it holds upright.
    """

    left: float
    top: float
    size: float
    roll: float = 0.0

    def rounded(self) -> "Box":
        """The nearest square of whole pixels, at least one; the roll stays."""
        return Box(round(self.left), round(self.top), max(round(self.size), 1), self.roll)

    def scaled(self, factor: float) -> "Box":
        """The same square in a photo `factor` times as large."""
        return Box(self.left * factor, self.top * factor, self.size * factor, self.roll)

    def to_photo(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the 96x96 crop, (…, 2), in pixels of the photo."""
        corner, half = np.array([self.left, self.top]), self.size / 2
        inside = (points + 0.5) * (self.size / CROP_SIZE)
        if self.roll:
            inside = turned(inside - half, self.roll) + half
        moved: NDArray[np.float64] = inside + corner - 0.5
        return moved.astype(np.float32)

    def to_crop(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the photo, (…, 2), in pixels of the 96x96 crop."""
        corner, half = np.array([self.left, self.top]), self.size / 2
        inside = points + 0.5 - corner
        if self.roll:
            inside = turned(inside - half, -self.roll) + half
        moved: NDArray[np.float64] = inside * (CROP_SIZE / self.size) - 0.5
        return moved.astype(np.float32)

    def corners(self) -> NDArray[np.float64]:
        """Its corners in pixels of the photo, (4, 2), clockwise from the crop's top left."""
        half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * self.size / 2
        return turned(half, self.roll) + [self.left + self.size / 2 - 0.5, self.top + self.size / 2 - 0.5]

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what it covers, in pixels of the photo, pixel edges at integers."""
        (left, top), (right, bottom) = self.corners().min(0) + 0.5, self.corners().max(0) + 0.5
        return float(left), float(top), float(right), float(bottom)


def turned(points: NDArray[np.floating[Any]], degrees: float) -> NDArray[np.float64]:
    """Points (…, 2) turned clockwise about the origin."""
    angle = np.radians(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = points[..., 0], points[..., 1]
    moved: NDArray[np.float64] = np.stack([cos * x - sin * y, sin * x + cos * y], -1).astype(np.float64)
    return moved


def eye_roll(points: NDArray[np.floating[Any]]) -> float:
    """Roll of the line from the right to the left eye (the subject's), -180 to 180 degrees, clockwise; 0 is upright.

    Args:
        points: float (2 or more, 2): right eye, left eye.
    """
    across, down = (float(value) for value in points[1] - points[0])
    return float(np.degrees(np.arctan2(down, across)))


def box_from_detection(points: NDArray[np.floating[Any]]) -> Box:
    """Where to crop a detected face so that it lies in the crop as the training faces do, upright by its eye line.

    The scale compares the spread of eyes and mouth with the mean face's; neither roll nor the sideways motion of the
    nose under yaw disturbs it much.

    Args:
        points: float (4 or more, 2), pixels of the photo: right eye, left eye (the subject's), nose tip, mouth; any
            further points, such as the ears, are ignored.
    """
    mean, roll = _mean_anchors(), eye_roll(points)
    scale = np.sqrt(max(_spread(points) / _spread(mean), 1e-6))
    # measured on 838 annotated faces: the detector puts eyes and mouth closer together, and higher, than annotators do;
    # with these two numbers the box is off by less than a pixel and 3 % on average
    scale *= 1.06
    down = turned(np.array([0.0, 1.7]), roll) * scale
    return _aligned(_centre(points) + down, _centre(mean), scale, roll)


def box_from_points(points: NDArray[np.floating[Any]], roll: float = 0.0) -> Box:
    """Where to crop a face so that its 15 points lie in the crop with the mean face's centre and spread.

    Args:
        points: float (15, 2), pixels of the photo.
        roll: of the box, in degrees.
    """
    mean = np.array(MEAN_FACE)
    centre = points.mean(0, dtype=np.float64)
    scale = np.sqrt(max(((points - centre) ** 2).sum() / ((mean - mean.mean(0)) ** 2).sum(), 1e-6))
    return _aligned(centre, mean.mean(0), scale, roll)


def crop(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """What `box.rounded()` holds, upright: uint8 (S, S), or (S, S, 3) of a colour photo.

    Outside the photo its border is repeated. A box with a roll is sampled bicubically, pixel for pixel.

    Raises:
        ImageError: the photo is neither gray, uint8 (H, W), nor colour, uint8 (H, W, 3).
    """
    check = check_rgb if isinstance(pixels, np.ndarray) and pixels.ndim == 3 else check_gray
    check(pixels, "the photo")
    box = box.rounded()
    if not box.roll:
        return _window(pixels, int(box.left), int(box.top), int(box.size), int(box.size))
    margin = 3  # what bicubic sampling reads beyond the edge
    left, top, right, bottom = (round(edge) for edge in box.bounds())
    left, top, right, bottom = left - margin, top - margin, right + margin, bottom + margin
    window = Image.fromarray(_window(pixels, left, top, right - left, bottom - top))
    half, (cos, sin) = box.size / 2, turned(np.array([1.0, 0.0]), box.roll)
    centre = (box.left + half - left, box.top + half - top)
    across = (cos, -sin, centre[0] - (cos - sin) * half)
    down = (sin, cos, centre[1] - (sin + cos) * half)
    side = int(box.size)
    upright = window.transform(
        (side, side), Image.Transform.AFFINE, (*across, *down), resample=Image.Resampling.BICUBIC
    )
    return np.asarray(upright)


def share_outside(box: Box, height: int, width: int) -> float:
    """The share of a box that lies outside a photo of that many pixels, 0 to 1, to about a hundredth."""
    cells = (np.arange(24, dtype=np.float32) + 0.5) * (CROP_SIZE / 24) - 0.5
    places = box.to_photo(np.stack(np.meshgrid(cells, cells), -1))
    return float(np.mean(outside(places, height, width)))


def outside(points: NDArray[np.floating[Any]], height: int, width: int) -> NDArray[np.bool_]:
    """Which points, (…, 2), lie outside a photo of that many pixels."""
    beyond: NDArray[np.bool_] = (points < -0.5) | (points > np.array([width, height]) - 0.5)
    return beyond[..., 0] | beyond[..., 1]


def _window(pixels: NDArray[np.uint8], left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
    """A rectangle of a photo; outside the photo its border is repeated."""
    rows = np.arange(top, top + height).clip(0, pixels.shape[0] - 1)
    columns = np.arange(left, left + width).clip(0, pixels.shape[1] - 1)
    return np.ascontiguousarray(pixels[np.ix_(rows, columns)])


def _aligned(centre: NDArray[np.float64], mean_centre: NDArray[Any], scale: float, roll: float) -> Box:
    """The box in which `centre` lies where `mean_centre` lies in the crop; `scale` is photo pixels per crop pixel."""
    size = float(CROP_SIZE * scale)
    from_middle = (mean_centre + 0.5 - CROP_SIZE / 2) * scale
    corner = centre + 0.5 - (turned(from_middle, roll) if roll else from_middle) - size / 2
    return Box(float(corner[0]), float(corner[1]), size, roll)


def _mean_anchors() -> NDArray[np.float64]:
    face = dict(zip(KEYPOINTS, np.array(MEAN_FACE), strict=True))
    mouth = (face["mouth_center_top_lip"] + face["mouth_center_bottom_lip"]) / 2
    return np.stack([face["right_eye_center"], face["left_eye_center"], face["nose_tip"], mouth])


def _centre(points: NDArray[Any]) -> NDArray[np.float64]:
    eyes_and_mouth: NDArray[Any] = (points[0] + points[1]) / 2 + points[3]
    return eyes_and_mouth.astype(np.float64) / 2


def _spread(points: NDArray[Any]) -> float:
    centred = points[[0, 1, 3]] - _centre(points)
    return float((centred**2).sum())
