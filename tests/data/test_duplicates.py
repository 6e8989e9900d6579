import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_ai.data.duplicates import common_groups, duplicate_groups, folds, grouped_split, seen_in
from emotion_ai.errors import ConfigError


@settings(max_examples=40)
@given(
    copies=st.lists(st.integers(1, 4), min_size=30, max_size=80),
    fractions=st.sampled_from([[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.5, 0.5]]),
    seed=st.integers(0, 1000),
)
def test_duplicates_stay_together_and_nothing_is_lost(copies: list[int], fractions: list[float], seed: int) -> None:
    images = np.repeat(np.arange(len(copies)), copies).astype(np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
    groups = duplicate_groups(images)
    rows = grouped_split(groups, fractions, seed)
    assert sorted(np.concatenate(rows)) == list(range(len(images)))
    owners = [set(groups[r]) for r in rows]
    assert sum(len(o) for o in owners) == len(copies)
    for part, fraction in zip(rows, fractions, strict=True):
        assert abs(len(part) - fraction * len(images)) <= 4


def test_split_depends_on_the_seed_only() -> None:
    groups = np.arange(100)
    first, again, other = (grouped_split(groups, [0.5, 0.5], seed)[0].tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_folds_cover_everything_once() -> None:
    rows = folds(np.arange(53), 5, 0)
    assert sorted(np.concatenate(rows)) == list(range(53))
    assert {len(r) for r in rows} <= {10, 11}


def test_seen_in_finds_equal_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 4, 4), dtype=np.uint8)
    assert seen_in(images, images[[1, 4]]).tolist() == [False, True, False, False, True, False]
    assert not seen_in(images, np.zeros((2, 5, 5), np.uint8)).any()


def test_sets_share_groups_if_their_images_have_one_size() -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 4, 4), dtype=np.uint8)
    first, second = common_groups(images[:4], images[2:])
    assert first[2:].tolist() == second[:2].tolist()
    assert len(set(first) | set(second)) == 6
    small, large = common_groups(images[:2, :2, :2], images[:3])
    assert not set(small) & set(large)


def test_a_subset_splits_like_its_own_groups() -> None:
    images = np.random.default_rng(0).integers(0, 2, (200, 3, 3), dtype=np.uint8)
    rows = np.arange(0, 200, 3)
    own, common = duplicate_groups(images[rows]), duplicate_groups(images)[rows]
    for part, other in zip(grouped_split(own, [0.7, 0.3], 5), grouped_split(common, [0.7, 0.3], 5), strict=True):
        np.testing.assert_array_equal(part, other)


@pytest.mark.parametrize("fractions", [[0.5, 0.2], [1.2, -0.2], [0.999, 0.001]])
def test_bad_fractions(fractions: list[float]) -> None:
    with pytest.raises(ConfigError, match="split"):
        grouped_split(np.arange(10), fractions, 0)
