"""Datasets that exceed the memory budget are mapped from files, with the same faces."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emotion_ai.data.batches import Batches, resize_to_crops
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.describe import describe
from emotion_ai.data.duplicates import common_groups, duplicate_groups
from emotion_ai.data.image_arrays import ImageRows, blocks, is_mapped, memory_budget, take
from emotion_ai.data.loaders import load
from emotion_ai.data.splits import DataConfig, build_splits
from emotion_ai.errors import ConfigError

BUDGET = "EMOTION_AI_IMAGE_MEMORY"


def write_fer(path: Path, count: int, seed: int = 0) -> Path:
    images = np.random.default_rng(seed).integers(0, 256, (count, 48 * 48))
    images[1::7] = images[0]
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for i, image in enumerate(images):
            file.write(f"{i % 7},{' '.join(map(str, image))},{'PublicTest' if i % 5 == 0 else 'Training'}\n")
    return path


def arrays(faces: FaceDataset) -> list[object]:
    return [faces.images.tolist(), faces.targets.tolist(), faces.part.tolist(), np.asarray(faces.ids).tolist()]


def test_mapped_faces_are_those_in_memory(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fer(tmp_path / "fer2013.csv", 200)
    expected = load(path)
    assert not is_mapped(expected.images)
    splits = build_splits("emotion", DataConfig(str(path)), 1)

    monkeypatch.setenv(BUDGET, "0")
    for times in range(2):  # parsed, since the entry in memory exceeds the budget; then from the cache
        if times:
            monkeypatch.setattr("emotion_ai.data.loaders._parse_emotion", None)
        mapped = load(path)
        assert is_mapped(mapped.images)
        assert arrays(mapped) == arrays(expected)
        assert describe(mapped) == describe(expected)
    again = build_splits("emotion", DataConfig(str(path)), 1)
    for name in ("train", "val", "test"):
        assert is_mapped(getattr(again, name).images)
        assert arrays(getattr(again, name)) == arrays(getattr(splits, name))
    assert again.record() == splits.record()
    assert not list(own_cache.glob(".*"))


def test_mapped_faces_make_batches(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_fer(tmp_path / "fer2013.csv", 40)
    expected = load(path).images
    monkeypatch.setenv(BUDGET, "0")
    faces = load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = Batches(faces, 8, torch.device("cpu"), lambda: 0, shuffle_seed=1)
        found = [(crops, rows) for crops, _, rows in batches]
    for crops, rows in found:
        assert torch.equal(crops, resize_to_crops(torch.from_numpy(expected[rows])))
    assert len(found) == len(faces) // 8


def test_damaged_images_are_parsed_anew(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUDGET, "0")
    path = write_fer(tmp_path / "fer2013.csv", 20)
    faces = load(path)
    expected = arrays(faces)
    (file,) = own_cache.glob(f"{faces.fingerprint[:32]}*.npy")
    content = bytearray(file.read_bytes())
    for damaged in (content[:-9000], bytes(len(content)), content[:-1] + bytes([content[-1] ^ 1])):
        file.write_bytes(damaged)
        assert arrays(load(path)) == expected
    file.unlink()
    assert arrays(load(path)) == expected


def test_without_a_cache_folder_images_are_mapped_from_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUDGET, "0")
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMOTION_AI_CACHE", str(tmp_path / "file"))
    assert is_mapped(load(write_fer(tmp_path / "fer2013.csv", 20)).images)


def test_folders_of_mixed_sizes_are_mapped(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for i, side in enumerate((48, 48, 60, 48, 96)):
        folder = tmp_path / "photos" / ("happy", "sad")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).save(folder / f"{i}.png")
    expected = load(tmp_path / "photos")
    monkeypatch.setenv(BUDGET, "0")
    mapped = load(tmp_path / "photos")
    assert is_mapped(mapped.images)
    assert mapped.images.shape == (5, 96, 96)
    assert arrays(mapped) == arrays(expected)


def test_rows_that_fit_the_budget_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3000, 24, 24), np.uint8)
    monkeypatch.setenv(BUDGET, "1")
    rows = ImageRows()
    for _, block in blocks(images):
        rows.append(block)
    mapped = rows.array()
    assert is_mapped(mapped)
    chosen = np.array([5, 2, 2, 2999])
    assert not is_mapped(take(mapped, chosen))
    assert (take(mapped, chosen) == images[chosen]).all()
    assert is_mapped(take(mapped, np.arange(2999)))
    assert (take(mapped, np.arange(3000) % 2 == 0) == images[::2]).all()
    assert take(mapped, np.arange(3000)) is mapped
    assert (take(mapped, slice(3, 6)) == images[3:6]).all()
    assert len(take(mapped, np.zeros(3000, bool))) == 0


@pytest.mark.parametrize("text", ["-1", "many", "1.5", "1e3"])
def test_an_unusable_budget_is_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUDGET, text)
    with pytest.raises(ConfigError, match=f"{BUDGET}={text}: must be an integer"):
        memory_budget()


@pytest.mark.parametrize("alike", [0, 30, 48])
def test_groups_are_in_the_order_of_their_pixels(alike: int) -> None:
    images = np.random.default_rng(alike).integers(0, 3, (80, 6, 8), np.uint8)
    flat = images.reshape(80, -1)
    flat[:, :alike] = 1
    flat[40:60] = flat[:20]
    _, expected = np.unique(flat, axis=0, return_inverse=True)
    assert duplicate_groups(images).tolist() == expected.ravel().tolist()
    assert np.concatenate(common_groups(images[:50], images[50:])).tolist() == expected.ravel().tolist()


SCRIPT = """
import json, re, sys
from pathlib import Path
from emotion_ai.data.splits import DataConfig, build_splits

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

before = peak()
splits = build_splits("emotion", DataConfig(sys.argv[1]), 0)
print(json.dumps([before, peak(), len(splits.train) + len(splits.val) + len(splits.test)]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_many_faces_are_read_and_split_within_the_budget(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, budget = 60_000, 16
    rows = [" ".join(map(str, row)) for row in np.random.default_rng(0).integers(0, 256, (50, 47 * 48))]
    path = tmp_path / "many.csv"
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for i in range(count):
            own = " ".join(f"{i // 256**place % 256}" for place in range(48))
            file.write(f"{(0, 1, 3, 4, 5)[i % 5]},{rows[i % 50]} {own},{'Training' if i % 4 else 'PublicTest'}\n")
    monkeypatch.setenv(BUDGET, str(budget))
    for _ in range(2):  # parsed, and from the cache
        done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], check=True, capture_output=True, text=True)
        before, peak, found = json.loads(done.stdout)
        assert found == count
        assert peak - before < 132  # MiB, which the images alone would take
    assert count * 48 * 48 + 128 in [file.stat().st_size for file in own_cache.glob("*.npy")]
