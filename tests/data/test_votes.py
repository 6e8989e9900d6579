"""FER+ votes: joined to FER2013's rows, trained on, and never evaluated on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_ai.class_set import FIVE, SEVEN
from emotion_ai.data.loaders import load
from emotion_ai.data.splits import DataConfig, build_splits
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.training.train import soft_targets

COLUMNS = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
ANGRY, HAPPY, NEUTRAL = "0,0,0,0,10,0,0,0,0,0", "0,10,0,0,0,0,0,0,0,0", "8,0,0,0,2,0,0,0,0,0"


def write(folder: Path, rows: list[tuple[int, str, str]], seed: int = 0) -> tuple[Path, Path]:
    """Of (FER2013's id, Usage, votes): the faces' file, every face another, and the votes' file."""
    rng = np.random.default_rng(seed)
    faces, votes = folder / "fer2013.csv", folder / "fer2013new.csv"
    pixels = [" ".join(map(str, rng.integers(0, 256, 48 * 48))) for _ in rows]
    lines = [f"{label},{text},{usage}" for (label, usage, _), text in zip(rows, pixels, strict=True)]
    faces.write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    ordered = sorted(rows, key=lambda row: row[1])  # FER+'s file need not interleave the parts as FER2013's does
    lines = [f"{usage},,{counts}" for _, usage, counts in ordered]
    votes.write_text("\n".join([f"Usage,Image name,{COLUMNS}", *lines]) + "\n")
    return faces, votes


def test_votes_are_joined_by_position_within_each_part(tmp_path: Path) -> None:
    rows = [(3, "PublicTest", HAPPY), (0, "Training", ANGRY), (3, "PublicTest", NEUTRAL), (4, "Training", HAPPY)]
    faces = load(*write(tmp_path, rows)[:1], vote_file=write(tmp_path, rows)[1])
    assert faces.votes is not None
    np.testing.assert_allclose(
        faces.votes, np.array([[0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0.2, 0, 0, 0, 0], [0, 0, 0, 1, 0]])
    )
    assert faces.targets.tolist() == [3, 0, 3, 2]


def test_faces_of_fear_and_neutral_stay_where_half_saw_one_of_the_five(tmp_path: Path) -> None:
    rows = [(2, "Training", ANGRY), (6, "Training", NEUTRAL), (6, "Training", HAPPY), (0, "Training", NEUTRAL)]
    path, votes = write(tmp_path, rows)
    faces = load(path, vote_file=votes)
    assert faces.targets.tolist() == [-1, -1, 0]
    assert len(load(path)) == 1


def test_soft_targets_mix_label_and_votes(tmp_path: Path) -> None:
    unseen = "10,0,0,0,0,0,0,0,0,0"
    rows = [
        (3, "Training", ANGRY),
        (3, "Training", NEUTRAL),
        (3, "Training", unseen),
        (6, "Training", "4,0,0,0,6,0,0,0,0,0"),
    ]
    path, votes = write(tmp_path, rows)
    faces = load(path, vote_file=votes)
    mixed = soft_targets(faces, 0.25).targets
    expected = np.array([[0.25, 0, 0, 0.75, 0], [0.25, 0, 0, 0.75, 0], [0, 0, 0, 1, 0], [0.6, 0, 0, 0, 0]])
    np.testing.assert_allclose(np.asarray(mixed, np.float64), expected, atol=1e-6)
    assert soft_targets(load(path), 0.25).targets.tolist() == [3, 3, 3]


def test_val_and_test_faces_are_the_same_with_and_without_votes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = ["Training"] * 80 + ["PublicTest"] * 20
    rows = [(int(rng.integers(0, 7)), part, [ANGRY, HAPPY][int(rng.integers(0, 2))]) for part in parts]
    path, votes = write(tmp_path, rows)
    plain = build_splits("emotion", DataConfig(str(path), val=0.2), seed=3)
    voted = build_splits("emotion", DataConfig(str(path), val=0.2, vote_file=str(votes)), seed=3)
    for part in ("val", "test"):
        np.testing.assert_array_equal(getattr(plain, part).images, getattr(voted, part).images)
        assert (getattr(voted, part).targets >= 0).all()
    labelled = voted.train.targets >= 0
    np.testing.assert_array_equal(plain.train.images, voted.train.images[labelled])
    assert (~labelled).sum() > 10


def test_votes_over_seven_classes(tmp_path: Path) -> None:
    rows = [(2, "Training", "0,0,0,0,2,0,6,2,0,0"), (6, "Training", NEUTRAL), (3, "Training", HAPPY)]
    path, votes = write(tmp_path, rows)
    faces = load(path, vote_file=votes, classes=SEVEN)
    assert faces.targets.tolist() == [5, 6, 3]
    assert faces.votes is not None
    expected = [[0.2, 0, 0, 0, 0, 0.6, 0], [0.2, 0, 0, 0, 0, 0, 0.8], [0, 0, 0, 1, 0, 0, 0]]
    np.testing.assert_allclose(faces.votes, np.array(expected))


def test_the_five_emotions_are_split_alike_with_and_without_other_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    parts = ["Training"] * 120 + ["PublicTest"] * 30
    path, _ = write(tmp_path, [(int(rng.integers(0, 7)), part, HAPPY) for part in parts])
    five, seven = (build_splits("emotion", DataConfig(str(path), val=0.2), 3, each) for each in (FIVE, SEVEN))
    for part in ("train", "val", "test"):
        of_five, of_seven = getattr(five, part), getattr(seven, part)
        emotions = of_seven.targets < 5
        np.testing.assert_array_equal(of_five.images, of_seven.images[emotions])
        np.testing.assert_array_equal(of_five.targets, of_seven.targets[emotions])
        assert (~emotions).any()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace("anger,", ""), "lacks the column anger"),
        (lambda text: text + "Training,," + HAPPY + "\n", "votes on 3 faces of Training, .* has 2"),
        (lambda text: text.replace("10", "many", 1), "'many' is not an integer"),
        (lambda text: text.replace("10", "-1", 1), "row 2: its votes are"),
        (lambda text: text.replace("10", "0", 1), "row 2: its votes are"),
    ],
)
def test_votes_that_do_not_fit_are_one_clear_error(tmp_path: Path, change: Any, complaint: str) -> None:
    path, votes = write(tmp_path, [(0, "Training", ANGRY), (3, "Training", HAPPY)])
    votes.write_text(change(votes.read_text()))
    with pytest.raises(DataError, match=complaint):
        load(path, vote_file=votes)


def test_votes_belong_to_fer2013(tmp_path: Path) -> None:
    _, votes = write(tmp_path, [(0, "Training", ANGRY)])
    settings = DataConfig("synthetic", count=20, vote_file=str(votes))
    with pytest.raises(ConfigError, match="belong to FER2013"):
        build_splits("emotion", settings, seed=3)
    with pytest.raises(ConfigError, match="belong to FER2013"):
        build_splits("keypoints", settings, seed=3)


def test_the_real_votes_agree_with_most_labels(real_data: Path) -> None:
    folder = real_data / "fer2013"
    faces = load(folder / "fer2013.csv.xz", vote_file=folder / "fer2013new.csv")
    assert faces.votes is not None
    seen = (faces.targets >= 0) & (faces.votes.sum(1) > 0)
    assert (faces.votes.argmax(1) == faces.targets)[seen].mean() > 0.8  # joined at random it would be 0.3
