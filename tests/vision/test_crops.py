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
from emotion_ai.vision.crops import (
    Box,
    box_from_detection,
    box_from_points,
    crop,
    outside,
    resize_to_crop,
    share_outside,
    turned,
)

MEAN = np.array(MEAN_FACE, np.float32)
coordinates = st.floats(-500, 5000, allow_nan=False, width=32)
sizes = st.floats(8, 4000, allow_nan=False, width=32)
rolls = st.one_of(st.just(0.0), st.floats(-180, 180))


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
@given(coordinates, coordinates, sizes, rolls, st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=15))
def test_maps_are_each_others_inverse(
    left: float, top: float, size: float, roll: float, points: list[tuple[float, float]]
) -> None:
    box, face = Box(left, top, size, roll), np.array(points, np.float32)
    photo = box.to_photo(face)
    back = box.to_crop(photo)
    # float32 holds the photo's pixels to about 1e-7 of the largest number on the way
    largest = max(np.abs(photo).max(), abs(left), abs(top), 1)
    assert np.abs(back - face).max() <= 4e-7 * (largest * CROP_SIZE / size + np.abs(face).max() + 1)


@pytest.mark.parametrize("roll", [0, 1e-6, 7, 90, -90, 133, 180])
def test_a_bright_spot_lies_where_the_map_says(roll: float) -> None:
    rows, columns = np.mgrid[:240, :320]
    gray = np.rint(255 * np.exp(-((rows - 100) ** 2 + (columns - 150) ** 2) / 8)).astype(np.uint8)
    box = Box(60.3, 10.2, 192.4, roll).rounded()
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


def test_a_crop_is_what_the_turned_box_holds_upright() -> None:
    photo = np.random.default_rng(2).integers(0, 256, (120, 150), dtype=np.uint8)
    upright = crop(photo, Box(20, 30, 61))
    for quarters, roll in ((0, 1e-9), (1, -90.0), (2, 180.0), (3, 90.0)):
        # the same square, from a side that is now on top; bicubic sampling at pixel centres changes nothing
        turned_one = crop(photo, Box(20, 30, 61, roll)).astype(int)
        assert np.abs(turned_one - np.rot90(upright, -quarters)).max() <= 1, roll


def test_a_turned_crop_repeats_the_border_and_takes_colour() -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    colour = crop(rgb, Box(-30, -20, 80, 45))
    assert colour.shape == (80, 80, 3)
    for channel in range(3):
        np.testing.assert_array_equal(colour[..., channel], crop(rgb[..., channel], Box(-30, -20, 80, 45)))
    assert (crop(np.full((40, 50), 77, np.uint8), Box(-30, -20, 80, 45)) == 77).all()


@settings(max_examples=60)
@given(st.floats(-180, 180), st.floats(0.2, 20), st.floats(-200, 3000))
def test_both_boxes_turn_with_the_face(roll: float, scale: float, dx: float) -> None:
    """In the crop of a turned face the points lie as in that of the upright one."""
    face, whole = anchors(MEAN) * scale, MEAN * np.float32(scale)
    detected = box_from_detection(turned(face, roll) + [dx, 7])
    upright = box_from_detection(face)
    assert (detected.roll - roll + 180) % 360 - 180 == pytest.approx(0, abs=0.01)
    assert detected.size == pytest.approx(upright.size, rel=1e-4)
    inside = detected.to_crop((turned(face, roll) + [dx, 7]).astype(np.float32))
    np.testing.assert_allclose(inside, upright.to_crop(face.astype(np.float32)), atol=0.05)
    own = box_from_points(turned(whole, roll) + [dx, 7], roll)
    np.testing.assert_allclose(own.to_crop((turned(whole, roll) + [dx, 7]).astype(np.float32)), MEAN, atol=0.05)


def test_the_corners_and_the_share_outside() -> None:
    np.testing.assert_allclose(Box(10, 20, 5).corners(), [(9.5, 19.5), (14.5, 19.5), (14.5, 24.5), (9.5, 24.5)])
    assert Box(10, 20, 5).bounds() == pytest.approx((10, 20, 15, 25))
    assert Box(10, 20, 10, 45).bounds() == pytest.approx((15 - 50**0.5, 25 - 50**0.5, 15 + 50**0.5, 25 + 50**0.5))
    for box, share in ((Box(0, 0, 50), 0), (Box(-25, 0, 50), 0.5), (Box(-50, 9, 50), 1), (Box(0, 0, 100), 0.5)):
        assert share_outside(box, 50, 100) == pytest.approx(share, abs=0.01)
        assert share_outside(Box(box.left, box.top, box.size, 90), 50, 100) == pytest.approx(share, abs=0.01)
    assert share_outside(Box(-25, -25, 50, 45), 500, 500) == pytest.approx(0.75, abs=0.01)
    points = np.array([(-0.5, 0), (-0.6, 0), (99.4, 49.4), (99.6, 3), (3, 49.6)], np.float32)
    assert outside(points, 50, 100).tolist() == [False, True, False, True, True]
