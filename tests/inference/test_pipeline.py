"""From a photo to readings: faces in order, crops cut where they belong, points mapped exactly."""

import io
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from emotion_ai.contract import EMOTIONS, KEYPOINTS, MEAN_FACE
from emotion_ai.errors import ImageError, NoFaceError
from emotion_ai.inference.pipeline import detect_faces, read_photo
from emotion_ai.inference.results import CropReadings, Crops
from emotion_ai.vision.crops import crop, turned
from emotion_ai.vision.photo import PORTRAITS, load_photo

MEAN = np.array(MEAN_FACE, np.float32)


def mean_face(images: Crops) -> CropReadings:
    """The mean face, and probabilities that tell a crop's place in its request."""
    probabilities = np.full((len(images), 5), 0.05, np.float32)
    probabilities[np.arange(len(images)), np.arange(len(images)) % 5] = 0.8
    return CropReadings(np.repeat(MEAN[None], len(images), 0), probabilities)


class Reader:
    """A `CropReader` made from a function; keeps its requests."""

    def __init__(self, read: Callable[[Crops], CropReadings] = mean_face) -> None:
        self._read = read
        self.requests: list[Crops] = []

    def read_crops(self, images: Crops) -> CropReadings:
        self.requests.append(images)
        return self._read(images)


def side_by_side(*portraits: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (sum(p.width for p in portraits), max(p.height for p in portraits)), "gray")
    left = 0
    for portrait in portraits:
        canvas.paste(portrait, (left, 0))
        left += portrait.width
    return canvas


def test_faces_come_from_left_to_right_with_points_in_the_photo() -> None:
    first, second = (Image.open(path).convert("RGB") for path in PORTRAITS)
    faces = read_photo(side_by_side(first, second), Reader())
    assert [face.emotion for face in faces] == list(EMOTIONS[:2])
    assert faces[0].box.left < 512 < faces[1].box.left
    eyes = [face.points[:2].mean(0) for face in faces]  # the mean face's eyes fall near the real ones
    np.testing.assert_allclose(eyes[0], (225, 102), atol=8)
    np.testing.assert_allclose(eyes[1], (512 + 262, 187), atol=14)
    for face in faces:
        np.testing.assert_allclose(face.box.to_crop(face.points), face.keypoints, atol=1e-3)
        assert face.confidence == pytest.approx(0.8)


def test_crops_are_squares_of_the_gray_photo_at_the_detection_then_at_the_keypoints() -> None:
    def shifted(images: Crops) -> CropReadings:
        return replace(mean_face(images), keypoints=mean_face(images).keypoints + np.float32(4))

    photo, reader = load_photo(PORTRAITS[0]), Reader(shifted)
    (face,) = read_photo(photo, reader)
    assert len(reader.requests) == 2
    detected = detect_faces(photo)[0].box
    np.testing.assert_array_equal(reader.requests[0][0], crop(photo.gray, detected))
    left, top, size = int(face.box.left), int(face.box.top), int(face.box.size)
    np.testing.assert_array_equal(reader.requests[1][0], crop(photo.gray, face.box))
    assert face.box.roll == detected.roll, "the second crop keeps the roll"
    assert size == detected.size, "points as far apart as the mean face's"
    moved = (left - detected.left, top - detected.top)
    np.testing.assert_allclose(moved, 4 * size / 96, atol=0.51)
    np.testing.assert_allclose(face.points, face.box.to_photo(MEAN + 4), atol=1e-3)


def test_only_faces_whose_box_still_moves_are_read_a_third_time() -> None:
    def moving(images: Crops) -> CropReadings:
        readings, passes = mean_face(images), len(reader.requests)
        keypoints = readings.keypoints.copy()
        keypoints[-1] += 8 if passes < 3 else 2  # the second face's
        return CropReadings(keypoints, readings.probabilities, np.full((len(images), 15, 2), passes, np.float32))

    photo, reader = side_by_side(*(Image.open(path).convert("RGB") for path in PORTRAITS)), Reader(moving)
    first, second = read_photo(photo, reader)
    assert [len(images) for images in reader.requests] == [2, 2, 1]
    np.testing.assert_array_equal(first.keypoints, MEAN)
    np.testing.assert_array_equal(second.keypoints, MEAN + 2)
    assert (first.emotion, second.emotion) == (EMOTIONS[0], EMOTIONS[0]), "each is the first of its request"
    assert first.deviations is not None
    assert second.deviations is not None
    np.testing.assert_allclose(first.deviations, 2 * first.box.size / 96)
    np.testing.assert_allclose(second.deviations, 3 * second.box.size / 96)
    detected = [face.box for face in detect_faces(load_photo(photo))]
    pairs = zip((first, second), detected, strict=True)
    moved = np.array([(face.box.left - box.left, face.box.top - box.top) for face, box in pairs])
    along = turned(np.array([8.0, 8.0]), second.box.roll)  # the crop's axes, which lie as the face does
    np.testing.assert_allclose(moved, np.stack([0 * along, 2 * along * second.box.size / 96]), atol=1.01)


@pytest.mark.parametrize("rubbish", ["far away", "one place", "huge"])
def test_points_far_from_the_box_do_not_move_it(rubbish: str) -> None:
    points = {"far away": MEAN + 200, "one place": MEAN * 0 + 48, "huge": (MEAN - 48) * 3 + 48}[rubbish]

    def wrong(images: Crops) -> CropReadings:
        return replace(mean_face(images), keypoints=np.repeat(points[None], len(images), 0))

    photo = load_photo(PORTRAITS[0])
    (face,) = read_photo(photo, Reader(wrong))
    assert face.box == detect_faces(photo)[0].box


def test_a_model_without_keypoints_reads_once() -> None:
    def emotions(images: Crops) -> CropReadings:
        return replace(mean_face(images), keypoints=np.full((1, 15, 2), np.nan, np.float32))

    reader = Reader(emotions)
    (face,) = read_photo(PORTRAITS[0], reader)
    assert len(reader.requests) == 1
    assert np.isnan(face.points).all()


def test_deviations_are_in_pixels_of_the_photo() -> None:
    def uncertain(images: Crops) -> CropReadings:
        return replace(mean_face(images), deviations=np.full((1, 15, 2), 1.5, np.float32))

    (face,) = read_photo(PORTRAITS[0], Reader(uncertain))
    assert face.deviations is not None
    np.testing.assert_allclose(face.deviations, 1.5 * face.box.size / 96, rtol=1e-6)
    deviations = json.loads(json.dumps(face.as_dict()))["deviations"]
    assert list(deviations) == list(KEYPOINTS)
    assert deviations["nose_tip"] == [round(1.5 * face.box.size / 96, 2)] * 2
    (face,) = read_photo(PORTRAITS[0], Reader())
    assert face.deviations is None
    assert "deviations" not in face.as_dict()


def test_a_face_that_is_too_small_is_an_error() -> None:
    portrait = Image.open(PORTRAITS[1]).convert("RGB")
    for side, refused in ((13, True), (40, False)):
        scale = side / 218  # the face's side in the portrait
        small = portrait.resize((round(portrait.width * scale), round(portrait.height * scale)))
        if refused:
            with pytest.raises(NoFaceError, match=r"the largest face is 1\d pixels wide; it must be at least 20"):
                detect_faces(load_photo(small))
        else:
            assert detect_faces(load_photo(small))[0].box.size == pytest.approx(side, rel=0.15)


def test_a_photo_turned_by_exif_reads_as_the_upright_one() -> None:
    portrait, stream = Image.open(PORTRAITS[0]).convert("RGB"), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait.transpose(Image.Transpose.ROTATE_90).save(stream, "PNG", exif=exif)
    (turned,), (upright,) = (read_photo(source, Reader()) for source in (stream.getvalue(), portrait))
    assert turned.box == upright.box
    np.testing.assert_array_equal(turned.points, upright.points)


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_face_at_the_border_has_the_box_it_would_have_in_a_larger_photo(side: str) -> None:
    photo = load_photo(PORTRAITS[1])
    whole = detect_faces(photo)[0].box
    height, width = photo.gray.shape
    low, high = round(whole.left + 0.1 * whole.size), round(whole.left + 0.9 * whole.size)
    first, last = round(whole.top + 0.1 * whole.size), round(whole.top + 0.95 * whole.size)
    left, right, top, bottom = {
        "left": (low, width, 0, height), "right": (0, high, 0, height),
        "top": (0, width, first, height), "bottom": (0, width, 0, last),
    }[side]  # fmt: skip
    (face,) = detect_faces(load_photo(photo.rgb[top:bottom, left:right]))
    box = face.box
    assert box.size == pytest.approx(whole.size, rel=0.1)
    assert box.left + left == pytest.approx(whole.left, abs=0.08 * whole.size)
    assert box.top + top == pytest.approx(whole.top, abs=0.08 * whole.size)


def test_no_face_and_no_picture_are_different_errors() -> None:
    with pytest.raises(NoFaceError, match="no face found"):
        read_photo(np.full((300, 300), 128, np.uint8), Reader())
    with pytest.raises(ImageError, match="no such file"):
        read_photo("nowhere.jpg", Reader())
    assert detect_faces(load_photo(PORTRAITS[1]))[0].score > 0.7


def test_the_threshold_reaches_the_readings() -> None:
    for threshold in (0.79, 0.81):
        (face,) = read_photo(PORTRAITS[0], Reader(), threshold)
        assert face.uncertain == (threshold > 0.8)


def test_points_of_a_shrunken_photo_are_in_pixels_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, stream = Image.open(PORTRAITS[0]).convert("RGB"), io.BytesIO()
    picture.resize((1024, 1024)).save(stream, "JPEG", quality=95)
    (whole,) = read_photo(stream.getvalue(), Reader())
    monkeypatch.setattr("emotion_ai.vision.decoding.MAX_PIXELS", 300_000)
    (shrunk,) = read_photo(stream.getvalue(), Reader())
    np.testing.assert_allclose(shrunk.points, whole.points, atol=0.02 * whole.box.size)
    photo = load_photo(stream.getvalue())
    (in_photo,) = read_photo(photo, Reader())
    assert (photo.scale, photo.gray.shape) == (2, (512, 512))
    np.testing.assert_allclose((in_photo.points + 0.5) * 2, shrunk.points + 0.5, atol=1e-3)
    assert in_photo.box.size * 2 == shrunk.box.size
