"""The one resize against PyTorch's and a slow reference, the maps of coordinates, and the box of a face."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE, KEYPOINTS, MEAN_FACE
from emotion_ai.errors import ImageError
from emotion_ai.vision.crops import Box, box_from_detection, box_from_points, crop, resize_to_crop

MEAN = np.array(MEAN_FACE, np.float32)
coordinates = st.floats(-500, 5000, allow_nan=False, width=32)
sizes = st.floats(8, 4000, allow_nan=False, width=32)


def anchors(points: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    face = dict(zip(KEYPOINTS, points, strict=True))
    mouth = (face["mouth_center_top_lip"] + face["mouth_center_bottom_lip"]) / 2
    return np.stack([face["right_eye_center"], face["left_eye_center"], face["nose_tip"], mouth])


def reference_resize(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half-pixel triangle filter, widened when shrinking, in float64, one axis after the other."""
    for _ in range(2):
        length = image.shape[0]
        scale = max(length / CROP_SIZE, 1.0)
        centres = (np.arange(CROP_SIZE) + 0.5) * length / CROP_SIZE
        weights = 1 - np.abs((np.arange(length) + 0.5)[None] - centres[:, None]) / scale
        weights = weights.clip(0)
        image = (weights / weights.sum(1, keepdims=True) @ image).T
    return image


@settings(max_examples=25)
@given(st.integers(1, 260), st.integers(1, 260), st.integers(0, 2**32 - 1))
def test_resize_is_antialiased_half_pixel_bilinear(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    ours = resize_to_crop(image)
    theirs = F.interpolate(
        torch.from_numpy(image)[None, None].float(),
        (CROP_SIZE, CROP_SIZE),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    assert ours.dtype == np.float32
    assert ours.shape == (CROP_SIZE, CROP_SIZE)
    np.testing.assert_allclose(ours, reference_resize(image.astype(np.float64)), atol=1e-3)
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), atol=2e-3)


def test_resize_returns_a_96x96_image_unchanged_and_does_not_round() -> None:
    image = np.random.default_rng(0).integers(0, 256, (CROP_SIZE, CROP_SIZE), dtype=np.uint8)
    np.testing.assert_array_equal(resize_to_crop(image), image)
    assert (resize_to_crop(image[:48, :48]) % 1 != 0).any()


@pytest.mark.parametrize("shape", [(0, 5), (96, 96, 3), (96,), (1, 96, 96)])
def test_resize_refuses_what_is_no_gray_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"must be gray, uint8 \(H, W\)"):
        resize_to_crop(np.zeros(shape, np.uint8))


@settings(max_examples=100)
@given(coordinates, coordinates, sizes, st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=15))
def test_maps_are_each_others_inverse(left: float, top: float, size: float, points: list[tuple[float, float]]) -> None:
    box, face = Box(left, top, size), np.array(points, np.float32)
    photo = box.to_photo(face)
    back = box.to_crop(photo)
    # float32 holds the photo's pixels to about 1e-7 of the largest number on the way
    largest = max(np.abs(photo).max(), abs(left), abs(top), 1)
    assert np.abs(back - face).max() <= 4e-7 * (largest * CROP_SIZE / size + np.abs(face).max() + 1)


def test_a_bright_pixel_lies_where_the_map_says() -> None:
    gray = np.zeros((240, 320), np.uint8)
    gray[100, 150] = 255
    box = Box(60.3, 10.2, 192.4).rounded()
    pixels = crop(gray, box)
    resized = resize_to_crop(pixels)
    rows, columns = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    centre = np.array([(columns * resized).sum(), (rows * resized).sum()]) / resized.sum()
    np.testing.assert_allclose(box.to_photo(centre.astype(np.float32)), [150, 100], atol=0.05)


@settings(max_examples=60)
@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(0.1, 90))
def test_crop_repeats_the_border_outside_the_photo(left: float, top: float, size: float) -> None:
    gray = np.random.default_rng(1).integers(0, 256, (30, 40), dtype=np.uint8)
    pixels, box = crop(gray, Box(left, top, size)), Box(left, top, size).rounded()
    assert pixels.shape == (box.size, box.size)
    assert abs(box.left - left) <= 0.5
    assert abs(box.top - top) <= 0.5
    side = len(pixels)
    for row, column in ((0, 0), (side - 1, 0), (side // 2, side - 1)):
        y, x = min(max(int(box.top) + row, 0), 29), min(max(int(box.left) + column, 0), 39)
        assert pixels[row, column] == gray[y, x]


@settings(max_examples=60)
@given(st.floats(0.2, 20), st.floats(-200, 3000), st.floats(-200, 3000))
def test_box_follows_the_face(scale: float, dx: float, dy: float) -> None:
    """The box scales and moves with the face."""
    one = box_from_detection(anchors(MEAN))
    moved = box_from_detection((anchors(MEAN) + 0.5) * np.float32(scale) - 0.5 + np.array([dx, dy], np.float32))
    want = (one.left * scale + dx, one.top * scale + dy, one.size * scale)
    np.testing.assert_allclose((moved.left, moved.top, moved.size), want, rtol=1e-3, atol=0.01)


def test_box_of_the_mean_face_is_about_its_crop() -> None:
    box = box_from_detection(anchors(MEAN))
    # not exactly: the detector's own points sit a little differently on a face than annotators' points
    assert box.size == pytest.approx(CROP_SIZE, rel=0.08)
    assert box.left + box.size / 2 == pytest.approx(48, abs=0.5)
    assert box.top + box.size / 2 == pytest.approx(48, abs=4)


@pytest.mark.parametrize("degrees", [-40, -15, 15, 40])
def test_roll_changes_neither_size_nor_centre_of_the_points(degrees: float) -> None:
    turn = np.deg2rad(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], np.float32)
    centre = anchors(MEAN)[[0, 1, 3]].mean(0)
    rolled = box_from_detection((anchors(MEAN) - centre) @ rotation.T + centre)
    assert rolled.size == pytest.approx(box_from_detection(anchors(MEAN)).size, rel=1e-4)


def test_yaw_shrinks_the_box_little() -> None:
    turned = anchors(MEAN).copy()
    turned[:2, 0] = (turned[:2, 0] - 47.5) * 0.7 + 47.5
    turned[2, 0] += 9
    assert box_from_detection(turned).size > 0.85 * box_from_detection(anchors(MEAN)).size


@settings(max_examples=60)
@given(st.floats(0.2, 20), st.floats(-200, 3000), st.floats(-200, 3000))
def test_box_from_points_puts_them_where_the_mean_face_lies(scale: float, dx: float, dy: float) -> None:
    box = Box(dx, dy, CROP_SIZE * scale)
    own = box_from_points(box.to_photo(MEAN))
    np.testing.assert_allclose((own.left, own.top, own.size), (dx, dy, box.size), rtol=1e-3, atol=0.02)


@pytest.mark.parametrize("box_from", [box_from_detection, box_from_points])
def test_degenerate_points_still_make_a_box(box_from: Callable[[NDArray[np.floating[Any]]], Box]) -> None:
    box = box_from(np.full((15, 2), 7, np.float32))
    assert box.size > 0
    assert np.isfinite([box.left, box.top, box.size]).all()
