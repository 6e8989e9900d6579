"""Faces at any roll: found, cropped upright, their points where they lie in the turned photo; and their flags."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from emotion_ai.benchmarks.roll import measure, turn, turn_points
from emotion_ai.class_set import SEVEN
from emotion_ai.contract import MEAN_FACE
from emotion_ai.inference.pipeline import detect_faces, is_cut, read_photo
from emotion_ai.inference.results import CropReadings, Crops, FaceReading
from emotion_ai.vision.crops import Box
from emotion_ai.vision.photo import PORTRAITS, Photo, load_photo
from emotion_ai.vision.pose import TURNED, Pose
from emotion_ai.vision.quality import FLAGS, FaceQuality

MEAN = np.array(MEAN_FACE, np.float32)
CLEAR = FaceQuality(200, 0.3, 120, 50)


class MeanReader:
    """Reads every crop as the mean face, so that points show where the crops lie."""

    def read_crops(self, images: Crops) -> CropReadings:
        probabilities = np.tile(np.array([0.02, 0.02, 0.03, 0.9, 0.03], np.float32), (len(images), 1))
        deviations = np.tile(np.array([1, 2], np.float32), (len(images), 15, 1))
        return CropReadings(np.repeat(MEAN[None], len(images), 0), probabilities, deviations)

    def read(self, photo: object) -> list[FaceReading]:
        return read_photo(photo, self, 0.5)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[0, 1])
def portrait(request: pytest.FixtureRequest) -> tuple[Photo, FaceReading]:
    photo = load_photo(PORTRAITS[request.param])
    (face,) = MeanReader().read(photo)
    return photo, face


@pytest.mark.parametrize("degrees", [33, 58, 127, 180, 211, 270])
def test_the_points_follow_a_turned_photo(portrait: tuple[Photo, FaceReading], degrees: float) -> None:
    photo, face = portrait
    result = measure(photo.rgb, face, degrees, MeanReader())  # type: ignore[arg-type]
    assert (result.found, result.invented) == (True, 0)
    assert result.distance < 0.05, "the detector's own scatter"
    assert abs(result.roll_error) < 8


def test_points_of_a_turned_photo_are_exactly_the_turned_points() -> None:
    rgb = np.zeros((60, 90, 3), np.uint8)
    rgb[10, 20] = 255
    for degrees in (0, 90, 180, 270):
        picture = turn(rgb, degrees)
        ((x, y),) = turn_points(np.array([(20, 10)], np.float32), degrees, (90, 60), picture.size)
        assert picture.getpixel((round(float(x)), round(float(y)))) == (255, 255, 255)


def test_faces_of_a_group_picture_on_its_side_are_all_found() -> None:
    wall = Image.new("RGB", (1200, 800), (126, 138, 132))
    places = [(30 + i * 190, 40 + 37 * (i % 3)) for i in range(6)]
    for i, place in enumerate(places):
        portrait = Image.open(PORTRAITS[i % 2]).convert("RGB")
        scale = 48 / (100, 218)[i % 2]
        wall.paste(portrait.resize((round(portrait.width * scale), round(portrait.height * scale))), place)
    upright = detect_faces(load_photo(wall))
    assert len(upright) == 6
    for quarter, roll in ((Image.Transpose.ROTATE_270, 90), (Image.Transpose.ROTATE_90, -90)):
        faces = detect_faces(load_photo(wall.transpose(quarter)))
        assert len(faces) == 6
        for face in faces:
            assert face.box.roll == pytest.approx(roll, abs=15)
            assert face.box.size == pytest.approx(np.median([one.box.size for one in upright]), rel=0.2)


def test_a_small_face_upside_down_among_upright_ones_is_read_upright_or_not_at_all() -> None:
    wall = Image.new("RGB", (1200, 800), (126, 138, 132))
    for i, place in enumerate([(40, 60), (460, 90), (800, 330)]):
        portrait = Image.open(PORTRAITS[1]).convert("RGB").resize((150, 176))
        wall.paste(portrait.transpose(Image.Transpose.ROTATE_180) if i == 1 else portrait, place)
    faces = detect_faces(load_photo(wall))
    assert len(faces) in (2, 3)
    for face in faces:
        upside_down = 460 < face.box.left + face.box.size / 2 < 610
        assert abs(face.box.roll) == pytest.approx(180 if upside_down else 0, abs=15)


def test_deviations_turn_with_the_crop() -> None:
    photo = load_photo(PORTRAITS[1])
    (upright,) = MeanReader().read(photo)
    (side,) = MeanReader().read(turn(photo.rgb, 90))
    assert upright.deviations is not None
    assert side.deviations is not None
    np.testing.assert_allclose(upright.deviations[:, 1] / upright.deviations[:, 0], 2, rtol=0.05)
    np.testing.assert_allclose(side.deviations[:, 0] / side.deviations[:, 1], 2, rtol=0.05)


def reading(**changes: object) -> FaceReading:
    probabilities = np.array([0.02, 0.02, 0.03, 0.9, 0.03], np.float32)
    box = Box(10, 10, 96)
    face = FaceReading(MEAN, probabilities, box, box.to_photo(MEAN), 0.9, None, 0.5, quality=CLEAR)
    return replace(face, **changes)  # type: ignore[arg-type]


def test_flags_come_in_order_and_those_that_matter_make_the_verdict_uncertain() -> None:
    assert (reading().flags, reading().verdict) == ((), "Happy")
    dim = FaceQuality(31, 0.01, 3, 1)
    every = reading(quality=dim, pose=Pose(3, TURNED + 1), cut=True)
    assert every.flags == FLAGS
    for side in (-1, 1):
        turned_away = reading(pose=Pose(0, side * (TURNED + 1)))
        assert (turned_away.flags, turned_away.doubts, turned_away.verdict) == (("turned",), ("turned",), "uncertain")
        assert reading(pose=Pose(0, side * (TURNED - 1))).verdict == "Happy"
    blurred = reading(quality=replace(CLEAR, sharpness=0.01))
    assert (blurred.verdict, blurred.caption, blurred.emotion) == ("uncertain", "uncertain", "Happy")
    assert reading(quality=replace(CLEAR, size=25)).verdict == "Happy", "a small face is flagged, and still named"
    assert replace(blurred, uncertain_below=0.0).verdict == "Happy", "a threshold of 0 names every face"
    nothing = np.full(5, np.nan, np.float32)
    assert replace(blurred, probabilities=nothing).verdict is None


def test_flags_count_for_a_class_without_a_threshold_beside_others_that_have_one() -> None:
    seven = np.array([0.02, 0.02, 0.03, 0.02, 0.01, 0.0, 0.9], np.float32)
    bounds = np.array([0.99, 0.99, 0.99, 0.99, 0.99, 0, 0], np.float32)
    calm = reading(expressions=seven, classes=SEVEN.names, class_thresholds=bounds, uncertain_below=0.0)
    assert (calm.verdict, replace(calm, quality=replace(CLEAR, sharpness=0.01)).verdict) == ("Neutral", "uncertain")
    named_always = replace(calm, class_thresholds=np.zeros(7, np.float32), pose=Pose(0, TURNED + 1))
    assert named_always.verdict == "Neutral"


def test_a_face_cut_by_the_edge_is_flagged() -> None:
    photo = load_photo(PORTRAITS[1])
    (whole,) = MeanReader().read(photo)
    assert "cut" not in whole.flags
    half = photo.rgb[:, : round(whole.box.left + 0.6 * whole.box.size)]
    (cut,) = MeanReader().read(half)
    assert "cut" in cut.flags
    box = Box(0, 0, 96)
    assert not is_cut(box, MEAN, 96, 96)
    assert is_cut(box, MEAN, 96, 79), "a brow beyond the right edge"
    assert is_cut(Box(0, -25, 96), MEAN, 96, 96), "a quarter of the box"
    assert not is_cut(box, np.full((15, 2), np.nan, np.float32), 96, 96)


def test_the_record_and_the_row_carry_pose_and_quality() -> None:
    face = reading(pose=Pose(-12.345, TURNED + 1.25), box=Box(10, 10, 96, -10), cut=True)
    record, row = face.as_dict(), face.as_row()
    assert (record["roll"], record["yaw"], record["flags"]) == (-12.3, TURNED + 1.2, ["turned", "cut"])
    assert record["box"]["roll"] == -10
    assert record["quality"] == {"size": 200, "sharpness": 0.3, "brightness": 120, "contrast": 50}
    assert (row["roll"], row["box_roll"], row["sharpness"], row["quality"]) == (-12.345, -10, 0.3, "turned;cut")
    assert face.scaled(2).quality == replace(CLEAR, size=400)
    assert face.scaled(2).box.roll == -10
    assert face.roll == -12.345
    assert replace(face, pose=Pose(float("nan"), float("nan"))).roll == -10, "of the box, without points"
