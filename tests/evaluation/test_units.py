"""What intervals resample: people from a column or a file, near-identical faces, or faces."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_ai.data.loaders import load
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError, EmotionAIError
from emotion_ai.evaluation import near_identical
from emotion_ai.evaluation.near_identical import near_identical_groups
from emotion_ai.evaluation.side_tables import FaceRows, read_side_table
from emotion_ai.evaluation.statistics import Units, bootstrap, mcnemar, share
from emotion_ai.evaluation.units import resampling_units

IMAGES = synthetic_faces(6, 0).images
PEOPLE = Path(__file__).parents[2] / "docs" / "benchmarks" / "validation-people.csv"


def rows(dataset: Path | None = None, ids: tuple[int, ...] = (1, 2, 3, 4, 5, 6), loaded: int = 6) -> FaceRows:
    return FaceRows(np.array(ids).astype(str), dataset, loaded)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Eight rows, of which an evaluation may use some."""
    path = tmp_path / "faces.csv"
    lines = [f"{row},{name},f{row}.png" for row, name in enumerate("aabbccdd", 1)]
    path.write_text("\n".join(["emotion,person,picture", *lines]) + "\n")
    return path


def written(folder: Path, text: str) -> Path:
    path = folder / "side.csv"
    path.write_text(text)
    return path


def mean_of(values: NDArray[np.float64], chosen: NDArray[np.int64]) -> float:
    return float(values[chosen].mean())


def test_whole_groups_are_resampled() -> None:
    units = Units.of(np.array(["b", "a", "b", "c"]), "people")
    seen: list[NDArray[np.int64]] = []

    def measure(chosen: NDArray[np.int64]) -> float:
        seen.append(chosen)
        return float(len(chosen))

    bootstrap(measure, units, 0, 50)
    assert str(units) == "3 people"
    assert all((draw == 0).sum() == (draw == 2).sum() for draw in seen)  # of one person
    assert {len(draw) for draw in seen} >= {3, 4, 5}


def test_intervals_over_people_are_wider_and_cover_as_stated() -> None:
    rng = np.random.default_rng(0)
    hits, wider = 0, 0
    for seed in range(100):
        people = np.repeat(np.arange(30), 8)
        values = rng.normal(size=30)[people] + 0.2 * rng.normal(size=240)
        single, grouped = (bootstrap(partial(mean_of, values), u, seed, 200) for u in (240, Units.of(people, "people")))
        hits += grouped.low <= 0 <= grouped.high
        wider += grouped.high - grouped.low > 1.5 * (single.high - single.low)
    assert hits >= 85  # 95 % nominal; percentile intervals of 30 people are a little narrow
    assert wider == 100


def test_a_share_of_independent_faces_has_wilsons_interval() -> None:
    found = share(np.zeros(10, bool), Units.faces(10), 0)
    assert (found.low, found.high) == pytest.approx((0, 0.2775), abs=1e-4)
    people = Units.of(np.arange(10) // 5, "people")
    assert share(np.arange(10) < 5, people, 0).high == 1


def test_mcnemar_needs_independent_faces() -> None:
    first, second = np.array([True, False, True, True]), np.array([True, True, False, False])
    assert mcnemar(first, second, 0).p is not None
    assert mcnemar(first, second, 0, Units.of(np.array([0, 0, 1, 1]), "people")).p is None


def test_near_identical_frames_are_grouped_whatever_their_brightness() -> None:
    brighter = (IMAGES * 0.7 + 40).astype(np.uint8)
    noisy = np.clip(IMAGES + np.random.default_rng(0).normal(0, 4, IMAGES.shape), 0, 255).astype(np.uint8)
    groups = near_identical_groups(np.concatenate([IMAGES, brighter, noisy]))
    assert len(set(groups[:6])) >= 4  # synthetic faces are alike, but not all the same
    np.testing.assert_array_equal(groups[:6], groups[6:12])
    np.testing.assert_array_equal(groups[:6], groups[12:])
    blank = np.stack([np.full((48, 48), level, np.uint8) for level in (0, 90, 255)])
    np.testing.assert_array_equal(near_identical_groups(blank), [0, 0, 0])
    assert near_identical_groups(np.concatenate([blank[:1], IMAGES[:1, ::2, ::2]])).tolist() == [0, 1]


def test_a_chain_of_small_changes_does_not_join_different_faces() -> None:
    steps = np.linspace(0, 1, 40)[:, None, None]
    noise = np.random.default_rng(1).integers(0, 256, (2, 16, 16)).astype(float)
    groups = near_identical_groups(((1 - steps) * noise[0] + steps * noise[1]).astype(np.uint8))
    assert groups[0] != groups[-1]
    assert groups[0] == groups[1]


def test_people_are_found_in_a_column_of_the_dataset(dataset: Path) -> None:
    found = resampling_units("auto", rows(dataset, (2, 3, 4, 7, 8)), IMAGES[:5])
    assert (found.groups.tolist(), str(found)) == ([0, 1, 1, 2, 2], "3 people")
    assert resampling_units("picture", rows(dataset), IMAGES).count == 6
    assert resampling_units("none", rows(dataset), IMAGES).name == "faces"


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("who\nx\nx\ny\ny\nz\nz\n", [0, 0, 1, 1, 2, 2]),  # a row for each evaluated face
        ("who\nq\nx\nx\ny\ny\nz\nz\nq\n", [0, 0, 1, 1, 2, 2]),  # a row for each of the dataset
        (",who\n0,x\n1,x\n2,y\n3,y\n4,z\n5,z\n", [0, 0, 1, 1, 2, 2]),  # as pandas writes it
        ("note,person,row\n,z,7\n,x,2\n,x,3\n,y,4\n,y,5\n,z,6\n,w,99\n", [0, 0, 1, 1, 2, 2]),  # by number
        ("picture;subject\nf7.png;z\nf2.png;x\nf3.png;x\nf4.png;y\nf5.png;y\nf6.png;z\n", [0, 0, 1, 1, 2, 2]),
    ],
)
def test_people_come_from_a_file(text: str, groups: list[int], dataset: Path, tmp_path: Path) -> None:
    found = resampling_units(str(written(tmp_path, text)), rows(dataset, (2, 3, 4, 5, 6, 7)), IMAGES)
    assert (found.groups.tolist(), found.name) == (groups, "people")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", DataError, "is empty"),
        ("person\n", DataError, "header but no rows"),
        ("person\na\nb\n", DataError, "has 2 rows, expected 6, one for each evaluated face, or 8"),
        ("row,person\n1,a\n2,a\n3,a\n4,a\n5,a\n5,b\n", DataError, "'5' occurs 2 times"),
        ("row,person\n1,a\n2,a\n3,a\n4,a\n5,a\n", DataError, "no row for 1 of the 6 evaluated faces, such as '6'"),
        ("row\n1\n2\n3\n4\n5\n6\n", DataError, "has no column besides row"),
        ('""\n0\n', DataError, "no column besides its index"),
        ("person\na\na\na\n \na\na,b\n", DataError, "row 7: has 2 columns, the header 1"),
        ('person,x\na,1\na,1\na,1\na,1\na,1\n"",1\n', DataError, "column person: empty for 1 of the 6"),
        ("who,what\na,b\na,b\na,b\na,b\na,b\na,b\n", DataError, "who, what; call the one with the people person"),
        ("person\n\x00\n", DataError, "it is binary"),
        (None, ConfigError, "no such file, nor a column"),
    ],
)
def test_files_that_do_not_fit_are_errors(
    text: str | None, error: type[EmotionAIError], message: str, dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "none.csv" if text is None else written(tmp_path, text)
    with pytest.raises(error, match=message):
        resampling_units(str(path), rows(dataset), IMAGES)


def test_a_folders_pictures_are_named_by_their_path(tmp_path: Path) -> None:
    faces = FaceRows(np.array(["happy/1.png", "sad/2.png"]), None, 2)
    table = read_side_table(written(tmp_path, "path,group\nsad/2.png,b\nhappy/1.png,a\n"), faces)
    assert table["group"].tolist() == ["a", "b"]


def test_the_people_of_the_keypoint_test_faces(real_data: Path) -> None:
    faces = load(real_data / "facial-keypoints" / "validation.csv.xz", "keypoints")
    assert faces.ids is not None
    found = FaceRows(faces.ids, real_data / "facial-keypoints" / "validation.csv.xz", len(faces))
    people = resampling_units(str(PEOPLE), found, faces.images)
    assert str(people) == "25 people"
    frames = resampling_units("auto", found, faces.images)
    assert str(frames) == "230 groups of near-identical faces"
    for group in range(frames.count):
        assert len(set(people.groups[frames.groups == group])) == 1


def test_near_identical_groups_are_those_of_all_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_identical, "_BLOCK", 7)
    monkeypatch.setattr(near_identical, "_LEADERS", 5)
    rng = np.random.default_rng(0)
    base = synthetic_faces(12, 3).images
    noise = rng.integers(0, 256, (10, 96, 96)).astype(np.float64)
    images = (
        np.concatenate([base, noise])[rng.integers(0, 22, 120)]
        + rng.normal(0, 1, (120, 96, 96)) * np.arange(120)[:, None, None]
    )
    images[[3, 40, 41]] = [[[9]], [[0]], [[255]]]  # blank
    pixels = images.clip(0, 255).astype(np.uint8)
    flat, blank = near_identical._normalised(pixels)
    alike = (flat @ flat.T >= near_identical.SIMILAR) | (blank[:, None] & blank)
    groups = np.full(120, -1)
    for row in range(120):
        if groups[row] < 0:
            groups[(groups < 0) & alike[row]] = groups.max() + 1
    assert near_identical_groups(pixels).tolist() == groups.tolist()
    assert 10 < groups.max() < 100
