"""Faces are found in the portraits, in a group of them at many sizes, and nowhere else."""

import subprocess
import sys
from threading import Thread

import numpy as np
import pytest
from PIL import Image, ImageFilter

from emotion_ai.benchmarks.scenes import PORTRAIT_BOXES
from emotion_ai.vision.blazeface import _decode, _merge
from emotion_ai.vision.crops import Box, box_from_detection
from emotion_ai.vision.detector import _starts, find_faces
from emotion_ai.vision.photo import PORTRAITS, load_photo

# by eye: where the eyes of the subject's right and left, nose and mouth are
POINTS = (
    [(203, 102), (246, 103), (225, 126), (224, 146)],
    [(222, 190), (302, 185), (264, 240), (270, 282)],
)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("scale", [0.5, 1, 4])
def test_portraits(which: int, scale: float) -> None:
    portrait = Image.open(PORTRAITS[which]).convert("RGB")
    rgb = np.asarray(portrait.resize((round(portrait.width * scale), round(portrait.height * scale))))
    (face,) = find_faces(rgb)
    true = PORTRAIT_BOXES[which]
    assert face.score > 0.7
    np.testing.assert_allclose(face.points[:4] / scale, POINTS[which], atol=true.size * 0.08)
    box = box_from_detection(face.points)
    assert box.size / scale == pytest.approx(true.size, rel=0.08)
    assert box.left / scale == pytest.approx(true.left, abs=true.size * 0.06)
    assert box.top / scale == pytest.approx(true.top, abs=true.size * 0.06)


def group(width: int, face: int, count: int) -> tuple[Image.Image, list[Box]]:
    """Portraits in a row on a wall, the faces so many pixels large."""
    wall, expected = Image.new("RGB", (width, width * 2 // 3), (126, 138, 132)), []
    for i in range(count):
        portrait, true = Image.open(PORTRAITS[i % 2]).convert("RGB"), PORTRAIT_BOXES[i % 2]
        scale = face / true.size
        small = portrait.resize(
            (round(portrait.width * scale), round(portrait.height * scale)), Image.Resampling.LANCZOS
        )
        left, top = 10 + i * (width - 20) // count, 30 + 37 * (i % 3)
        wall.paste(small, (left, top))
        expected.append(Box(true.left * scale + left, true.top * scale + top, face))
    return wall, expected


@pytest.mark.parametrize(("width", "face", "count"), [(1200, 45, 6), (1200, 90, 3), (3000, 130, 5)])
def test_small_faces_of_a_group_are_all_found_from_left_to_right(width: int, face: int, count: int) -> None:
    wall, expected = group(width, face, count)
    boxes = [box_from_detection(found.points) for found in find_faces(np.asarray(wall))]
    assert len(boxes) == count
    for box, true in zip(boxes, expected, strict=True):
        assert box.size == pytest.approx(true.size, rel=0.15)
        assert box.left + box.size / 2 == pytest.approx(true.left + true.size / 2, abs=face * 0.1)
        assert box.top + box.size / 2 == pytest.approx(true.top + true.size / 2, abs=face * 0.1)


def test_a_face_that_fills_the_picture_is_found() -> None:
    photo, true = load_photo(PORTRAITS[1]).rgb, PORTRAIT_BOXES[1]
    top, left, size = int(true.top), int(true.left), int(true.size)
    (face,) = find_faces(photo[top : top + size, left : left + size])
    assert box_from_detection(face.points).size == pytest.approx(true.size, rel=0.15)


@pytest.mark.parametrize("kind", ["black", "white", "noise", "blurred", "ramp", "headless"])
@pytest.mark.parametrize("size", [(40, 60), (640, 480)])
def test_no_face_where_there_is_none(kind: str, size: tuple[int, int]) -> None:
    width, height = size
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))
    picture = {
        "black": Image.new("RGB", size),
        "white": Image.new("RGB", size, "white"),
        "noise": noise,
        "blurred": noise.filter(ImageFilter.GaussianBlur(3)),
        "ramp": Image.linear_gradient("L").resize(size).convert("RGB"),
        "headless": Image.open(PORTRAITS[0]).convert("RGB").crop((0, 230, 512, 512)).resize(size),
    }[kind]
    assert find_faces(np.asarray(picture)) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (17, 4000)])
def test_odd_shapes_are_accepted(size: tuple[int, int]) -> None:
    assert find_faces(np.zeros((*size, 3), np.uint8)) == []


def test_a_higher_score_leaves_faces_out() -> None:
    rgb = load_photo(PORTRAITS[0]).rgb
    assert len(find_faces(rgb, 0.3)) == 1
    assert find_faces(rgb, 0.99) == []


def test_threads_share_the_detector() -> None:
    rgb, results = load_photo(PORTRAITS[0]).rgb, []
    threads = [Thread(target=lambda: results.append(find_faces(rgb)[0].points)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for points in results[1:]:
        np.testing.assert_array_equal(points, results[0])


def test_finding_faces_prints_nothing() -> None:
    code = (
        "import numpy as np; from emotion_ai.vision.detector import find_faces; "
        "find_faces(np.zeros((64, 64, 3), np.uint8))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_decoding_one_anchor() -> None:
    raw, logits = np.zeros((48 * 48, 16), np.float32), np.full((48 * 48, 1), -1000, np.float32)
    cell = 5 * 48 + 7  # row 5, column 7: its centre is (30, 22)
    raw[cell, :4], raw[cell, 4:6], logits[cell] = (1, 2, 20, 30), (-3, 4), 0
    boxes, points, scores = _decode(raw, logits)
    np.testing.assert_allclose(boxes[cell], (21, 9, 41, 39))
    np.testing.assert_allclose(points[cell, 0], (27, 26))
    assert scores[cell] == pytest.approx(0.5)
    assert np.delete(scores, cell).max() < 1e-30


def test_overlapping_detections_are_averaged_by_their_scores() -> None:
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]], np.float32)
    points = np.repeat(boxes[:, None, :2], 6, 1)
    merged, middle, scores = _merge(boxes, points, np.array([0.9, 0.6, 0.7], np.float32))
    np.testing.assert_allclose(merged, np.array([[0.8, 0, 10.8, 10], [50, 50, 60, 60]]), rtol=1e-5)
    np.testing.assert_allclose(middle[0], np.tile([[0.8, 0]], (6, 1)), rtol=1e-5)
    np.testing.assert_allclose(scores, [0.9, 0.7])


@pytest.mark.parametrize(("length", "tile"), [(1000, 500), (750, 500), (1000, 250), (200, 500), (500, 500)])
def test_tiles_cover_the_photo_and_overlap_by_a_quarter(length: int, tile: float) -> None:
    starts = _starts(length, tile)
    assert starts[0] <= 0
    assert starts[-1] + tile >= length - 1e-6
    assert all(after - before <= 0.75 * tile + 1e-6 for before, after in zip(starts, starts[1:], strict=False))
