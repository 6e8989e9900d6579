"""Synthetic faces are deterministic, fit the crop, have their points on their features, and can be learned."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from emotion_ai.contract import CROP_SIZE, EMOTIONS, KEYPOINTS, MEAN_FACE, TASKS, Task
from emotion_ai.data.duplicates import duplicate_groups
from emotion_ai.data.synthetic import SyntheticFaces, synthetic_faces
from emotion_ai.errors import ConfigError

COUNT = 800
AT = {name: index for index, name in enumerate(KEYPOINTS)}
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def many() -> SyntheticFaces:
    return synthetic_faces(COUNT, seed=11)


def test_the_same_seed_gives_the_same_faces_and_a_shorter_run_is_a_prefix() -> None:
    long, short = synthetic_faces(23, seed=5), synthetic_faces(7, seed=5)
    for name in ("images", "points", "labels"):
        np.testing.assert_array_equal(getattr(long, name)[:7], getattr(short, name))
    assert long.fingerprint == synthetic_faces(23, seed=5).fingerprint
    assert long.fingerprint != short.fingerprint


def test_another_seed_gives_other_faces() -> None:
    both = np.concatenate([synthetic_faces(40, seed=0).images, synthetic_faces(40, seed=1).images])
    assert len(set(duplicate_groups(both))) == 80


def test_shapes_types_and_ranges(many: SyntheticFaces) -> None:
    assert many.images.shape == (COUNT, CROP_SIZE, CROP_SIZE)
    assert many.points.shape == (COUNT, len(KEYPOINTS), 2)
    assert [str(a.dtype) for a in (many.images, many.points, many.labels)] == ["uint8", "float32", "int64"]
    assert many.points.min() >= 0
    assert many.points.max() <= CROP_SIZE - 1
    assert many.images.std((1, 2)).min() > 5, "a face is nearly blank"


def test_classes_are_balanced_in_random_order(many: SyntheticFaces) -> None:
    fives = many.labels.reshape(-1, len(EMOTIONS))
    np.testing.assert_array_equal(np.sort(fives, 1), np.broadcast_to(np.arange(len(EMOTIONS)), fives.shape))
    assert len({tuple(five) for five in fives.tolist()}) > 60, "the order should vary over 120 permutations"


def test_faces_lie_in_the_crop_like_real_ones(many: SyntheticFaces) -> None:
    assert np.abs(many.points.mean(0) - MEAN_FACE).max() < 3
    deviation = many.points.std(0).mean()
    assert 2.5 < deviation < 5, "real faces deviate by about 3 to 4 pixels"
    eyes = many.points[:, AT["left_eye_center"]] - many.points[:, AT["right_eye_center"]]
    roll = np.rad2deg(np.arctan2(eyes[:, 1], eyes[:, 0]))
    assert np.abs(roll).max() < 20
    assert roll.std() > 4


def test_left_is_the_subjects_left(many: SyntheticFaces) -> None:
    for name in KEYPOINTS:
        if "left" in name:
            mirrored = AT[name.replace("left", "right")]
            assert (many.points[:, AT[name], 0] > many.points[:, mirrored, 0]).all(), name


def _gray(images: NDArray[np.uint8], places: Floats, reach: int = 1) -> Floats:
    """Mean gray of each image (N, 96, 96) in a small square around its own place (N, 2)."""
    x, y = np.rint(places).astype(int).clip(reach, CROP_SIZE - 1 - reach).T
    steps = range(-reach, reach + 1)
    return np.asarray(np.mean([images[np.arange(len(images)), y + j, x + i] for i in steps for j in steps], 0))


@pytest.mark.parametrize("side", ["left", "right"])
def test_points_lie_on_their_features(many: SyntheticFaces, side: str) -> None:
    def place(name: str) -> Floats:
        return np.asarray(many.points[:, AT[name]], np.float64)

    def darker(dark: Floats, bright: Floats) -> float:
        return float(np.mean(_gray(many.images, dark) < _gray(many.images, bright)))

    eye = place(f"{side}_eye_center")
    below_eye = eye + 0.3 * (place("nose_tip") - (place("left_eye_center") + place("right_eye_center")) / 2)
    assert darker(eye, below_eye) > 0.9, "the iris is darker than the cheek below"
    inner, outer = place(f"{side}_eyebrow_inner_end"), place(f"{side}_eyebrow_outer_end")
    for t in (0.2, 0.7):
        brow = (1 - t) * inner + t * outer - [0, 9.7 * t * (1 - t)]  # it arches between its ends
        assert darker(brow, brow + [0, 3]) > 0.95, "the brow is darker than the lid below"
        assert darker(brow, brow - [0, 3]) > 0.95, "the brow is darker than the forehead above"
    corner = place(f"mouth_{side}_corner")
    outward = corner + 0.25 * (corner - place("mouth_center_top_lip"))
    assert darker(corner, outward) > 0.9, "the corner of the mouth is darker than the cheek beside it"


def test_points_move_with_the_expression(many: SyntheticFaces) -> None:
    def mean(emotion: str, name: str) -> Floats:
        return np.asarray(many.points[many.labels == EMOTIONS.index(emotion), AT[name]].mean(0), np.float64)

    def mouth(emotion: str) -> Floats:
        return mean(emotion, "mouth_left_corner") - mean(emotion, "mouth_right_corner")

    assert mean("Happy", "mouth_left_corner")[1] < mean("Sad", "mouth_left_corner")[1] - 4
    assert mouth("Happy")[0] > mouth("Surprise")[0] + 8
    assert mean("Surprise", "mouth_center_bottom_lip")[1] > mean("Angry", "mouth_center_bottom_lip")[1] + 5
    assert mean("Surprise", "left_eyebrow_inner_end")[1] < mean("Angry", "left_eyebrow_inner_end")[1] - 6
    assert mean("Disgust", "mouth_center_top_lip")[1] < mean("Angry", "mouth_center_top_lip")[1] - 1.5


def test_a_linear_model_learns_both_tasks(many: SyntheticFaces) -> None:
    small = many.images.reshape(-1, 24, 4, 24, 4).mean((2, 4)).reshape(COUNT, -1)
    small = (small - small.mean(1, keepdims=True)) / small.std(1, keepdims=True)
    train, test = slice(0, 650), slice(650, None)
    emotion = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(small[train], many.labels[train])
    assert emotion.score(small[test], many.labels[test]) > 0.6, "chance is 0.2"
    flat = many.points.reshape(COUNT, -1)
    points = Ridge(alpha=100).fit(small[train], flat[train])
    rmse = np.sqrt(np.mean((points.predict(small[test]) - flat[test]) ** 2))
    constant = np.sqrt(np.mean((flat[train].mean(0) - flat[test]) ** 2))
    assert rmse < 0.7 * constant, "the mean face is the floor"


@pytest.mark.parametrize("task", TASKS)
def test_faces_of_a_task(task: Task) -> None:
    generated = synthetic_faces(6, seed=2)
    faces = generated.faces(task)
    np.testing.assert_array_equal(faces.targets, generated.points if task == "keypoints" else generated.labels)
    assert (faces.task, faces.source, len(faces), faces.part.tolist()) == (task, "synthetic", 6, [""] * 6)


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-3, 0), (5, -1)])
def test_impossible_arguments(count: int, seed: int) -> None:
    with pytest.raises(ConfigError, match=rf"count={count}, seed={seed}"):
        synthetic_faces(count, seed)
