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
    """A square in a photo, in pixels: `left` and `top` are its first column and row, fractions included."""

    left: float
    top: float
    size: float

    def rounded(self) -> "Box":
        """The nearest square of whole pixels, at least one."""
        return Box(round(self.left), round(self.top), max(round(self.size), 1))

    def to_photo(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the 96x96 crop, (…, 2), in pixels of the photo."""
        corner = np.array([self.left, self.top])
        moved: NDArray[np.float64] = (points + 0.5) * (self.size / CROP_SIZE) + corner - 0.5
        return moved.astype(np.float32)

    def to_crop(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the photo, (…, 2), in pixels of the 96x96 crop."""
        corner = np.array([self.left, self.top])
        moved: NDArray[np.float64] = (points + 0.5 - corner) * (CROP_SIZE / self.size) - 0.5
        return moved.astype(np.float32)


def box_from_detection(points: NDArray[np.floating[Any]]) -> Box:
    """Where to crop a detected face so that it lies in the crop as the training faces do.

    The scale compares the spread of eyes and mouth with the mean face's; neither roll nor the sideways motion of the
    nose under yaw disturbs it much.

    Args:
        points: float (4 or more, 2), pixels of the photo: right eye, left eye (the subject's), nose tip, mouth; any
            further points, such as the ears, are ignored.
    """
    mean = _mean_anchors()
    scale = np.sqrt(max(_spread(points) / _spread(mean), 1e-6))
    # measured on 838 annotated faces: the detector puts eyes and mouth closer together, and higher, than annotators do;
    # with these two numbers the box is off by less than a pixel and 3 % on average
    scale *= 1.06
    return _aligned(_centre(points) + np.array([0.0, 1.7]) * scale, _centre(mean), scale)


def box_from_points(points: NDArray[np.floating[Any]]) -> Box:
    """Where to crop a face so that its 15 points lie in the crop with the mean face's centre and spread.

    Args:
        points: float (15, 2), pixels of the photo.
    """
    mean = np.array(MEAN_FACE)
    centre = points.mean(0, dtype=np.float64)
    scale = np.sqrt(max(((points - centre) ** 2).sum() / ((mean - mean.mean(0)) ** 2).sum(), 1e-6))
    return _aligned(centre, mean.mean(0), scale)


def crop(gray: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The pixels of `box.rounded()`, uint8 (S, S); outside the photo its border is repeated.

    Raises:
        ImageError: the photo is not gray, uint8 (H, W).
    """
    check_gray(gray, "the photo")
    box = box.rounded()
    rows = np.arange(box.top, box.top + box.size).clip(0, gray.shape[0] - 1)
    columns = np.arange(box.left, box.left + box.size).clip(0, gray.shape[1] - 1)
    return np.ascontiguousarray(gray[np.ix_(rows, columns)])


def _aligned(centre: NDArray[np.float64], mean_centre: NDArray[Any], scale: float) -> Box:
    """The box in which `centre` lies where `mean_centre` lies in the crop; `scale` is photo pixels per crop pixel."""
    corner = centre + 0.5 - (mean_centre + 0.5) * scale
    return Box(float(corner[0]), float(corner[1]), float(CROP_SIZE * scale))


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
