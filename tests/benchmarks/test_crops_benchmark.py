"""Detected boxes fit the networks, and keypoints hardly move if boxes are off."""

from pathlib import Path

import numpy as np
import pytest

from emotion_ai.benchmarks.crops import (
    PADDED_BOX,
    CropBenchmark,
    PointsReader,
    jittered,
    main,
    movement,
    padded,
    placement,
)
from emotion_ai.contract import MEAN_FACE
from emotion_ai.data.loaders import load
from emotion_ai.vision.crops import Box, box_from_detection
from emotion_ai.vision.detector import find_faces
from emotion_ai.vision.photo import PORTRAITS, load_photo


def test_boxes_are_shifted_and_scaled_about_their_middle() -> None:
    boxes = jittered(Box(100, 200, 50))
    assert len(boxes) == len(set(boxes)) == 14
    assert boxes[0] == Box(105, 200, 50)
    assert boxes[5] == Box(97.5, 197.5, 55.00000000000001)
    for box in boxes[6:]:
        shift = (box.left + box.size / 2 - 125, box.top + box.size / 2 - 225)
        np.testing.assert_allclose(np.abs(shift), 5)


def test_padding_keeps_the_face_in_place() -> None:
    image = np.zeros((96, 96), np.uint8)
    image[30, 70] = 255
    wide = padded(image).astype(float)
    rows, columns = np.mgrid[:384, :384]
    centre = np.array([(columns * wide).sum(), (rows * wide).sum()]) / wide.sum()
    np.testing.assert_allclose(PADDED_BOX.to_crop(centre.astype(np.float32)), [70, 30], atol=0.05)


def test_the_mean_face_is_placed_as_itself() -> None:
    values = placement(np.array([MEAN_FACE], np.float32)).values()
    for value, mean in zip(values, (47.5, 47.5, 36.1, 26.0), strict=True):
        assert value == pytest.approx(mean, abs=0.1)


@pytest.mark.parametrize("path", PORTRAITS, ids=lambda path: path.stem)
def test_a_box_that_is_a_tenth_off_moves_the_points_by_less_than_two_percent(path: Path) -> None:
    photo = load_photo(path)
    (face,) = find_faces(photo.rgb)
    assert movement(photo.gray, box_from_detection(face.points), PointsReader("bundled")).max() < 0.02


def test_boxes_of_annotated_faces(real_data: Path) -> None:
    """Bias and spread of the boxes against the annotated ones, keypoint errors in them, and the effect of jitter."""
    faces = load(real_data / "facial-keypoints" / "validation.csv.xz")[::4]
    reader = PointsReader("bundled")
    benchmark = CropBenchmark.of(faces.images, faces.points, reader)
    assert len(benchmark.images) > 0.9 * len(faces)
    for kind, spread in (("detector", (6, 6, 0.12)), ("keypoints", (4, 4, 0.1))):
        boxes = benchmark.boxes[kind]
        off = np.array([(b.left + b.size / 2 - 192, b.top + b.size / 2 - 192, b.size / 192 - 1) for b in boxes])
        off[:, :2] /= 2
        assert (np.abs(np.median(off, 0)) < (1.5, 1.5, 0.04)).all()
        assert (off.std(0) < spread).all()
    errors = [row[3] for row in benchmark.error_table().rows]
    assert len(errors) == 4
    assert all(isinstance(error, float) and error < 1.9 for error in errors)
    some = zip(benchmark.images[:40], benchmark.boxes["detector"][:40], strict=True)
    moved = np.stack([movement(image, box, reader) for image, box in some])
    assert np.median(moved) < 0.005
    assert moved.max() < 0.02


def test_a_count_of_zero_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["crops", "--faces", "faces.csv", "--count", "0"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "error: --count must be at least 1, got 0" in capsys.readouterr().err
