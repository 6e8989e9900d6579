"""Batches: order, shares of processes, the one resize."""

from typing import Any

import numpy as np
import pytest
import torch

from emotion_ai.data.batches import Batches, resize_to_crops
from emotion_ai.data.synthetic import synthetic_faces


def test_batches_share_an_epoch_between_processes() -> None:
    faces = synthetic_faces(23, seed=0).faces("emotion")
    epoch = 0

    def rows(rank: int, world: int, size: int = 5) -> list[int]:
        batches = Batches(faces, size, torch.device("cpu"), lambda: epoch, shuffle_seed=1, rank=rank, world=world)
        found = [row for _, _, rows in batches for row in rows.tolist()]
        assert len(found) == len(batches) * size
        return found

    first, second = rows(0, 2), rows(1, 2)
    assert not set(first) & set(second)
    assert len(first) == len(second) == 10
    one = rows(0, 1, size=10)
    assert set(one[:10]) == set(first[:5] + second[:5])
    assert set(one[10:]) == set(first[5:] + second[5:])
    assert len(rows(1, 2, size=11)) == 11
    assert len(Batches(faces, 64, torch.device("cpu"), lambda: 0, shuffle_seed=1, rank=1, world=2)) == 1
    before = rows(0, 1)
    epoch = 1
    assert rows(0, 1) != before
    kept = Batches(faces, 5, torch.device("cpu"), lambda: 0)
    assert [row for _, _, rows in kept for row in rows.tolist()] == list(range(23))
    assert len(kept) == 5
    shared = [Batches(faces, 5, torch.device("cpu"), lambda: 0, rank=rank, world=2) for rank in range(2)]
    assert sorted(row for part in shared for _, _, rows in part for row in rows.tolist()) == list(range(23))
    assert [len(part) for part in shared] == [3, 3]


def test_each_process_has_its_share_of_the_faces_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    faces, moved = synthetic_faces(23, seed=0).faces("emotion"), list[int]()
    placed = Batches._on_device

    def counted(batches: Batches, rows: Any) -> Any:
        images, targets = placed(batches, rows)
        moved.append(len(images))
        return images, targets

    monkeypatch.setattr(Batches, "_on_device", counted)
    for seed in (1, None):
        for rank in range(2):
            batches = Batches(faces, 5, torch.device("cpu"), lambda: 0, shuffle_seed=seed, rank=rank, world=2)
            for images, targets, rows in (*batches, *batches):
                assert np.array_equal(images[:, 0].numpy(), faces.images[rows])
                assert np.array_equal(targets.numpy(), faces.targets[rows])
    assert max(moved) == 12
    whole = Batches(faces, 5, torch.device("cpu"), lambda: 0, shuffle_seed=1)
    moved.clear()
    for images, _, rows in whole:
        assert np.array_equal(images[:, 0].numpy(), faces.images[rows])
    assert moved == []  # they were there before


def test_small_images_take_the_one_resize() -> None:
    from emotion_ai.vision.crops import resize_to_crop

    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48), dtype=np.uint8)
    crops = resize_to_crops(torch.from_numpy(images))
    expected = np.stack([resize_to_crop(image) for image in images])
    np.testing.assert_allclose(crops[:, 0].numpy(), expected, atol=1e-3)
