"""Frames of photographs fit the networks, and the points stay where they are when frames do not."""

from pathlib import Path

import numpy as np
import pytest

from emotion_ai.benchmarks.crops import (
    ROOMY,
    PointsReader,
    detected,
    framing,
    jittered,
    main,
    movement,
    points_of,
    read_once,
    roomy,
)
from emotion_ai.contract import MEAN_FACE
from emotion_ai.data.loaders import load
from emotion_ai.inference.pipeline import read_boxes
from emotion_ai.vision.crops import Box, box_from_detection, box_from_points
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


def test_room_is_made_around_a_face_without_moving_it() -> None:
    image = np.zeros((96, 96), np.uint8)
    image[30, 70] = 255
    room = roomy(image).astype(float)
    rows, columns = np.mgrid[:384, :384]
    centre = np.array([(columns * room).sum(), (rows * room).sum()]) / room.sum()
    np.testing.assert_allclose(ROOMY.to_crop(centre.astype(np.float32)), [70, 30], atol=0.05)


def test_the_mean_face_is_framed_as_itself() -> None:
    for value, mean in zip(framing(np.array([MEAN_FACE], np.float32)).values(), (47.5, 47.5, 36.1, 26.0), strict=True):
        assert value == pytest.approx(mean, abs=0.1)


@pytest.mark.parametrize("path", PORTRAITS, ids=lambda path: path.stem)
def test_a_frame_that_is_a_tenth_off_moves_the_points_by_less_than_two_hundredths(path: Path) -> None:
    photo = load_photo(path)
    (face,) = find_faces(photo.rgb)
    assert movement(photo.gray, box_from_detection(face.points), PointsReader("bundled")).max() < 0.02


def test_frames_of_annotated_faces(real_data: Path) -> None:
    """Bias and spread of the detector's frames and of the points' own against the annotated ones, the points' error in
    each, and what jitter does."""
    faces = load(real_data / "facial-keypoints" / "validation.csv.xz")[::4]
    found = detected(faces.images)
    here = [i for i, box in enumerate(found) if box is not None]
    assert len(here) > 0.9 * len(faces)
    boxes, rooms = [box for box in found if box is not None], [roomy(faces.images[i]) for i in here]
    read = PointsReader("bundled")
    own = [box_from_points(points_of(room, [box], read, read_once)[0]) for room, box in zip(rooms, boxes, strict=True)]
    for frames, spread in ((boxes, (6, 6, 0.12)), (own, (4, 4, 0.1))):
        off = np.array([(b.left + b.size / 2 - 192, b.top + b.size / 2 - 192, b.size / 192 - 1) for b in frames])
        off[:, :2] /= 2
        assert (np.abs(np.median(off, 0)) < (1.5, 1.5, 0.04)).all()
        assert (off.std(0) < spread).all()
    true = ROOMY.to_photo(faces.targets[here])
    for frames, how in (([ROOMY] * len(here), read_once), (boxes, read_once), (boxes, read_boxes)):
        points = np.concatenate([points_of(r, [b], read, how) for r, b in zip(rooms, frames, strict=True)])
        assert np.sqrt(((points - true) ** 2).mean()) / 2 < 1.9
    moved = np.stack([movement(room, box, read) for room, box in zip(rooms[:40], boxes[:40], strict=True)])
    assert np.median(moved) < 0.005
    assert moved.max() < 0.02


def test_no_faces_at_all_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["frames", "--faces", "faces.csv", "--count", "0"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "error: --count is at least 1" in capsys.readouterr().err
