from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from emotion_ai.contract import CROP_SIZE, FLIP, MEAN_FACE
from emotion_ai.data.augment import Augmentation, affine, blurred, warp_images, warp_points
from emotion_ai.data.keyed_random import sample_keys, uniform
from emotion_ai.errors import ConfigError

FACE = torch.tensor(MEAN_FACE)[None]
STRONG = Augmentation(0.5, 25, 0.25, 0.1, 0.3, 0.5, 0.8, 15, 0.5)


def keys(count: int, seed: int = 0, epoch: int = 0) -> Tensor:
    return sample_keys(seed, epoch, torch.arange(count))


def dot(points: Tensor) -> Tensor:
    """One image a point, a Gaussian dot under it; wide, for bilinear sampling blurs unevenly from pixel to pixel."""
    steps = torch.arange(CROP_SIZE, dtype=torch.float32)
    x, y = points[:, 0, None, None], points[:, 1, None, None]
    return 255 * torch.exp(-((steps - x) ** 2 + (steps[:, None] - y) ** 2) / 98)[:, None]


def centroid(images: Tensor) -> Tensor:
    steps = torch.arange(CROP_SIZE, dtype=torch.float64)
    weight = images[:, 0].double()
    total = weight.sum((1, 2))
    return torch.stack([(weight.sum(1) * steps).sum(1) / total, (weight.sum(2) * steps).sum(1) / total], -1)


def one(angle: float, factor: float, dx: float, dy: float, flip: bool) -> tuple[Tensor, Tensor]:
    flipped = torch.tensor([flip])
    return affine(
        torch.deg2rad(torch.tensor([angle])), torch.tensor([factor]), torch.tensor([[dx, dy]]), flipped
    ), flipped


transforms = st.tuples(st.floats(-30, 30), st.floats(0.8, 1.2), st.floats(-4, 4), st.floats(-4, 4), st.booleans())


@settings(max_examples=40)
@given(transform=transforms, x=st.floats(42, 53), y=st.floats(42, 53))
def test_drawn_dots_stay_under_their_points(
    transform: tuple[float, float, float, float, bool], x: float, y: float
) -> None:
    matrix, _ = one(*transform)
    point = torch.tensor([[x, y]])
    moved = point @ matrix[0, :, :2].T + matrix[0, :, 2]
    found = centroid(warp_images(dot(point), matrix))
    assert (found - moved).abs().max() < 0.01


@settings(max_examples=40)
@given(transform=transforms)
def test_points_against_a_float64_reference(transform: tuple[float, float, float, float, bool]) -> None:
    angle, factor, dx, dy, flip = transform
    matrix, flipped = one(*transform)
    got = warp_points(FACE, matrix, flipped)[0].double().numpy()
    face = np.array(MEAN_FACE)
    if flip:  # x -> 95 - x, and left and right exchange
        face = np.stack([95 - face[:, 0], face[:, 1]], 1)[list(FLIP)]
    radians = np.deg2rad(angle)
    turn = factor * np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    expected = (face - 47.5) @ turn.T + 47.5 + [dx, dy]
    assert np.abs(got - expected).max() < 1e-3


@settings(max_examples=40)
@given(transform=transforms)
def test_transform_then_inverse_gives_the_points_back(transform: tuple[float, float, float, float, bool]) -> None:
    matrix, flipped = one(*transform)
    moved = warp_points(FACE, matrix, flipped)
    inverse = torch.linalg.inv(matrix[:, :, :2])
    back = torch.cat([inverse, -(inverse @ matrix[:, :, 2:])], -1)
    assert (warp_points(moved, back, flipped) - FACE).abs().max() < 0.01


def test_flip_twice_is_the_identity_and_once_is_a_mirror_image() -> None:
    images = torch.rand(2, 1, CROP_SIZE, CROP_SIZE) * 255
    points = FACE.expand(2, -1, -1) + torch.rand(2, 15, 2)
    flip = Augmentation(flip=1.0)
    once, mirrored = flip(images, points, keys(2))
    twice, back = flip(once, mirrored, keys(2))
    assert mirrored is not None
    assert back is not None
    torch.testing.assert_close(once, images.flip(-1), atol=0.01, rtol=0)
    torch.testing.assert_close(twice, images, atol=0.02, rtol=0)
    torch.testing.assert_close(back, points, atol=1e-3, rtol=0)
    torch.testing.assert_close(mirrored[:, 0, 0], 95 - points[:, 1, 0], atol=1e-3, rtol=0)  # the eyes exchange


def test_flip_permutation_is_an_involution_that_pairs_left_with_right() -> None:
    assert [FLIP[FLIP[i]] for i in range(15)] == list(range(15))
    assert FLIP[10] == 10  # the nose tip is its own mirror image
    assert FLIP[0] == 1


def test_a_batch_gives_what_single_images_give() -> None:
    images, points = torch.rand(5, 1, CROP_SIZE, CROP_SIZE) * 255, FACE.expand(5, -1, -1).clone()
    batch, moved = STRONG(images, points, keys(5))
    assert moved is not None
    for i in range(5):
        image, point = STRONG(images[i : i + 1], points[i : i + 1], keys(5)[i : i + 1])
        torch.testing.assert_close(image[0], batch[i], atol=1e-3, rtol=0)
        torch.testing.assert_close(point[0], moved[i], atol=1e-4, rtol=0, equal_nan=True)  # type: ignore[index]


def test_none_changes_nothing_and_strong_changes_every_sample_its_own_way() -> None:
    images, points = torch.rand(4, 1, CROP_SIZE, CROP_SIZE) * 255, FACE.expand(4, -1, -1).clone()
    same, stay = Augmentation()(images, points, keys(4))
    torch.testing.assert_close(same, images, atol=0.01, rtol=0)
    torch.testing.assert_close(stay, points, atol=1e-3, rtol=0)
    before = images.clone()
    changed, _ = STRONG(images[:1].expand(4, -1, -1, -1), None, keys(4))
    assert torch.equal(images, before)
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert min((changed[i] - changed[j]).abs().mean() for i in range(4) for j in range(i)) > 1


def test_unknown_points_stay_unknown_and_points_that_leave_become_unknown() -> None:
    points = FACE.clone()
    points[0, 3] = torch.nan
    points[0, 4] = torch.tensor([-3.0, 20.0])
    _, moved = Augmentation(rotation=5)(torch.zeros(1, 1, CROP_SIZE, CROP_SIZE), points, keys(1))
    assert moved is not None
    assert moved[0, 3].isnan().all()
    assert moved[0, 4].isnan().all()
    assert not moved[0, 0].isnan().any()


def test_random_numbers_depend_on_seed_epoch_and_sample_only() -> None:
    base = uniform(keys(6), 4, 0)
    torch.testing.assert_close(uniform(sample_keys(0, 0, torch.tensor([5, 2])), 4, 0), base[[5, 2]])
    for other in (uniform(keys(6, seed=1), 4, 0), uniform(keys(6, epoch=1), 4, 0), uniform(keys(6), 4, 1)):
        assert (other != base).all()


def test_random_numbers_are_uniform_and_uncorrelated() -> None:
    u = uniform(keys(20_000), 8, 3)
    assert u.min() >= 0
    assert u.max() < 1
    assert (u.mean(0) - 0.5).abs().max() < 0.01  # four standard errors are 0.008
    assert (u.std(0) - 12**-0.5).abs().max() < 0.01
    correlations = torch.corrcoef(u.T) - torch.eye(8)
    assert correlations.abs().max() < 0.03
    neighbours = torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1]
    assert abs(neighbours) < 0.03


@pytest.mark.parametrize("setting", [{"flip": 1.5}, {"rotation": -1}, {"erasing": -0.1}])
def test_impossible_settings(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="augment"):
        Augmentation(**setting)


def test_the_blur_is_binomial_and_keeps_even_faces() -> None:
    point = torch.zeros(1, 1, CROP_SIZE, CROP_SIZE)
    point[0, 0, 40, 50] = 1.0
    once = torch.tensor([1, 4, 6, 4, 1]) / 16
    twice = torch.nn.functional.conv1d(once[None, None], once[None, None], padding=4)[0, 0]  # symmetric: no flip
    expected = torch.zeros(CROP_SIZE, CROP_SIZE)
    expected[36:45, 46:55] = twice[:, None] * twice[None, :]
    torch.testing.assert_close(blurred(point)[0, 0], expected)
    even = torch.full((2, 1, CROP_SIZE, CROP_SIZE), 200.0)
    torch.testing.assert_close(blurred(even), even)


def test_draws_are_those_of_earlier_versions() -> None:
    """Runs are resumed with them, and records of runs hold for them."""
    keys = sample_keys(2**31 - 1, 41, torch.tensor([0, 1, 25000]))
    assert keys.tolist() == [-7442543224698686508, 3231647740906971675, -7790225366993315725]
    expected = [[12838071, 2598383, 14144164], [649628, 5208252, 1360460], [2091613, 10399713, 11351669]]
    assert (uniform(keys, 3, stream=2) * 2**24).int().tolist() == expected
