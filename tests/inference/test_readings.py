"""From a photograph to readings and back: crops in order, points mapped exactly, rows and JSON."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import emotion_ai
from emotion_ai.contract import EMOTIONS, KEYPOINTS, MEAN_FACE
from emotion_ai.errors import ConfigError, ImageError, NoFaceError
from emotion_ai.inference.readings import COLUMNS, CropReadings, Crops, FaceReading, framed_faces, read_photo
from emotion_ai.vision.crops import Box
from emotion_ai.vision.photo import PORTRAITS, load_photo


def mean_face_reader(crops: Crops) -> CropReadings:
    """Answers the mean face, and a certainty that tells which crop it was."""
    keypoints = np.repeat(np.array(MEAN_FACE, np.float32)[None], len(crops), 0)
    probabilities = np.full((len(crops), 5), 0.05, np.float32)
    probabilities[np.arange(len(crops)), np.arange(len(crops)) % 5] = 0.8
    return CropReadings(keypoints, probabilities)


def side_by_side(*portraits: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (sum(p.width for p in portraits), max(p.height for p in portraits)), "gray")
    left = 0
    for portrait in portraits:
        canvas.paste(portrait, (left, 0))
        left += portrait.width
    return canvas


def test_faces_come_from_left_to_right_with_points_in_the_photograph() -> None:
    first, second = (Image.open(path).convert("RGB") for path in PORTRAITS)
    faces = read_photo(side_by_side(first, second), mean_face_reader)
    assert [face.emotion for face in faces] == list(EMOTIONS[:2])
    assert faces[0].box.left < 512 < faces[1].box.left
    eyes = [face.points[:2].mean(0) for face in faces]  # the mean face's eyes fall near the real ones
    np.testing.assert_allclose(eyes[0], (225, 102), atol=8)
    np.testing.assert_allclose(eyes[1], (512 + 262, 187), atol=14)
    for face in faces:
        np.testing.assert_allclose(face.box.to_crop(face.points), face.keypoints, atol=1e-3)
        assert face.confidence == pytest.approx(0.8)


def test_crops_are_squares_of_the_gray_photograph_first_the_detectors_then_the_points_own() -> None:
    photo, asked = load_photo(PORTRAITS[0]), []

    def reader(crops: Crops) -> CropReadings:
        asked.append(list(crops))
        answers = mean_face_reader(crops)
        return replace(answers, keypoints=answers.keypoints + np.float32(4))

    (face,) = read_photo(photo, reader)
    assert len(asked) == 2
    ((first, detected, _),) = framed_faces(photo)
    np.testing.assert_array_equal(asked[0][0], first)
    left, top, size = int(face.box.left), int(face.box.top), int(face.box.size)
    np.testing.assert_array_equal(asked[1][0], photo.gray[top : top + size, left : left + size])
    assert size == detected.size, "points as far apart as the mean face's"
    moved = (left - detected.left, top - detected.top)
    np.testing.assert_allclose(moved, 4 * size / 96, atol=0.51)
    np.testing.assert_allclose(face.points, face.box.to_photo(np.array(MEAN_FACE, np.float32) + 4), atol=1e-3)


def test_only_faces_whose_frame_still_moves_are_read_a_third_time() -> None:
    photo, asked = side_by_side(*(Image.open(path).convert("RGB") for path in PORTRAITS)), []

    def reader(crops: Crops) -> CropReadings:
        asked.append(len(crops))
        answers = mean_face_reader(crops)
        keypoints = answers.keypoints.copy()
        keypoints[-1] += 8 if len(asked) < 3 else 2  # the second face's
        deviations = np.full((len(crops), 15, 2), len(asked), np.float32)
        return CropReadings(keypoints, answers.probabilities, deviations)

    first, second = read_photo(photo, reader)
    assert asked == [2, 2, 1]
    np.testing.assert_array_equal(first.keypoints, np.array(MEAN_FACE, np.float32))
    np.testing.assert_array_equal(second.keypoints, np.array(MEAN_FACE, np.float32) + 2)
    assert (first.emotion, second.emotion) == (EMOTIONS[0], EMOTIONS[0]), "each is the first of its request"
    assert first.deviations is not None
    assert second.deviations is not None
    np.testing.assert_allclose(first.deviations, 2 * first.box.size / 96)
    np.testing.assert_allclose(second.deviations, 3 * second.box.size / 96)
    detected = [box for _, box, _ in framed_faces(load_photo(photo))]
    moved = [face.box.left - box.left for face, box in zip((first, second), detected, strict=True)]
    np.testing.assert_allclose(moved, [0, 2 * 8 * second.box.size / 96], atol=1.01)


@pytest.mark.parametrize("rubbish", ["far away", "one place", "huge"])
def test_points_that_lie_nowhere_near_the_frame_do_not_move_it(rubbish: str) -> None:
    mean = np.array(MEAN_FACE, np.float32)
    points = {"far away": mean + 200, "one place": mean * 0 + 48, "huge": (mean - 48) * 3 + 48}[rubbish]

    def reader(crops: Crops) -> CropReadings:
        return CropReadings(np.repeat(points[None], len(crops), 0), np.full((len(crops), 5), 0.2, np.float32))

    photo = load_photo(PORTRAITS[0])
    (face,) = read_photo(photo, reader)
    assert face.box == framed_faces(photo)[0][1]


def test_a_model_without_keypoints_is_asked_once() -> None:
    asked = []

    def reader(crops: Crops) -> CropReadings:
        asked.append(len(crops))
        return CropReadings(np.full((1, 15, 2), np.nan, np.float32), np.full((1, 5), 0.2, np.float32))

    (face,) = read_photo(PORTRAITS[0], reader)
    assert asked == [1]
    assert np.isnan(face.points).all()


def test_tiny_faces_are_refused_with_a_word() -> None:
    portrait = Image.open(PORTRAITS[1]).convert("RGB")
    for side, refused in ((13, True), (40, False)):
        scale = side / 218  # the frame's side in the portrait
        small = portrait.resize((round(portrait.width * scale), round(portrait.height * scale)))
        if refused:
            with pytest.raises(NoFaceError, match=r"the largest face is only 1\d pixels wide; at least 20 are needed"):
                framed_faces(load_photo(small))
        else:
            assert framed_faces(load_photo(small))[0][1].size == pytest.approx(side, rel=0.15)


def test_a_photograph_turned_by_exif_reads_as_the_upright_one() -> None:
    portrait, stream = Image.open(PORTRAITS[0]).convert("RGB"), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait.transpose(Image.Transpose.ROTATE_90).save(stream, "PNG", exif=exif)
    (turned,), (upright,) = (read_photo(source, mean_face_reader) for source in (stream.getvalue(), portrait))
    assert turned.box == upright.box
    np.testing.assert_array_equal(turned.points, upright.points)


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_face_at_the_border_is_framed_as_if_there_were_more(side: str) -> None:
    photo = load_photo(PORTRAITS[1])
    whole = framed_faces(photo)[0][1]
    height, width = photo.gray.shape
    low, high = round(whole.left + 0.1 * whole.size), round(whole.left + 0.9 * whole.size)
    first, last = round(whole.top + 0.1 * whole.size), round(whole.top + 0.95 * whole.size)
    left, right, top, bottom = {
        "left": (low, width, 0, height), "right": (0, high, 0, height),
        "top": (0, width, first, height), "bottom": (0, width, 0, last),
    }[side]  # fmt: skip
    ((pixels, box, _),) = framed_faces(load_photo(photo.rgb[top:bottom, left:right]))
    assert pixels.shape == (box.size, box.size)
    assert box.size == pytest.approx(whole.size, rel=0.1)
    assert box.left + left == pytest.approx(whole.left, abs=0.08 * whole.size)
    assert box.top + top == pytest.approx(whole.top, abs=0.08 * whole.size)


def test_no_face_and_no_picture_are_told_apart() -> None:
    with pytest.raises(NoFaceError, match="no face was found"):
        read_photo(np.full((300, 300), 128, np.uint8), mean_face_reader)
    with pytest.raises(ImageError, match="no such file"):
        read_photo("nowhere.jpg", mean_face_reader)
    assert framed_faces(load_photo(PORTRAITS[1]))[0][2] > 0.7


def reading(probabilities: list[float]) -> FaceReading:
    box = Box(10, 20, 192)
    keypoints = np.array(MEAN_FACE, np.float32)
    return FaceReading(keypoints, np.array(probabilities, np.float32), box, box.to_photo(keypoints), 0.9)


def test_json_and_rows_hold_the_same_numbers() -> None:
    face = reading([0.1, 0.1, 0.1, 0.6, 0.1])
    record = json.loads(json.dumps(face.as_dict(), allow_nan=False))
    row = face.as_row()
    assert record["emotion"] == row["emotion"] == "Happy"
    assert list(record["points"]) == list(KEYPOINTS)
    assert tuple(row) == COLUMNS
    for i, name in enumerate(KEYPOINTS):
        assert record["points"][name] == pytest.approx([row[f"{name}_x"], row[f"{name}_y"]], abs=0.01)
        assert row[f"{name}_x"] == pytest.approx((MEAN_FACE[i][0] + 0.5) * 2 + 10 - 0.5, rel=1e-6)
    assert face.to_row()["Happy"] == pytest.approx(0.6)


def test_below_a_confidence_the_emotion_is_uncertain() -> None:
    probabilities = [0.1, 0.1, 0.1, 0.6, 0.1]
    for threshold, uncertain in ((0.0, False), (0.59, False), (0.61, True), (1.0, True)):
        face = replace(reading(probabilities), uncertain_below=threshold)
        assert face.emotion == "Happy"
        assert face.verdict == ("uncertain" if uncertain else "Happy")
        assert face.caption == ("uncertain" if uncertain else "Happy 60%")
        assert face.uncertain is face.as_dict()["uncertain"] is face.as_row()["uncertain"] is uncertain
    nothing = replace(reading([float("nan")] * 5), uncertain_below=0.9)
    assert (nothing.verdict, nothing.caption, nothing.uncertain) == (None, "points", False)


def test_the_threshold_reaches_the_readings() -> None:
    for threshold in (0.79, 0.81):
        (face,) = read_photo(PORTRAITS[0], mean_face_reader, threshold)
        assert face.uncertain == (threshold > 0.8)


def test_a_model_without_emotions_says_none() -> None:
    face = reading([float("nan")] * 5)
    assert face.emotion is None
    record = json.loads(json.dumps(face.as_dict(), allow_nan=False))
    assert record["emotion"] is record["confidence"] is record["probabilities"]["Sad"] is None


def test_the_reader_answers_as_its_networks_do(tmp_path) -> None:
    import torch

    from emotion_ai import FaceReader
    from emotion_ai.models import FaceNetwork, save_network
    from emotion_ai.vision.crops import resize_to_crop

    torch.manual_seed(0)
    networks = {}
    for task in ("keypoints", "emotion"):
        network = FaceNetwork(task, {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}).eval()
        for parameter in network.head.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        save_network(network, tmp_path / f"{task}.safetensors", {"calibration": {"uncertain_below": 0.55}})
        networks[task] = network
    reader = FaceReader.load(tmp_path / "keypoints.safetensors", tmp_path / "emotion.safetensors")
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (rng.integers(20, 200), rng.integers(20, 200)), dtype=np.uint8) for _ in range(70)]
    answers = reader.read_crops(crops)
    assert answers.keypoints.shape == (70, 15, 2)
    assert answers.keypoints.dtype == answers.probabilities.dtype == np.float32
    np.testing.assert_allclose(answers.probabilities.sum(1), 1, atol=1e-5)
    with torch.inference_mode():
        for i in (0, 66):
            frame = torch.tensor(resize_to_crop(crops[i]))[None, None]
            points, deviations = networks["keypoints"].uncertainty(frame)
            np.testing.assert_allclose(answers.keypoints[i], points[0].numpy(), atol=1e-3)
            np.testing.assert_allclose(answers.deviations[i], deviations[0].numpy(), atol=1e-3)
            np.testing.assert_allclose(answers.probabilities[i], networks["emotion"](frame)[0].numpy(), atol=1e-5)
    assert reader.read_crops([]).keypoints.shape == reader.read_crops([]).deviations.shape == (0, 15, 2)
    (face,) = reader.read(PORTRAITS[0])
    assert face.uncertain_below == 0.55, "the checkpoint's own"
    sure = FaceReader.load(tmp_path / "keypoints.safetensors", tmp_path / "emotion.safetensors", uncertain_below=0)
    assert not sure.read(PORTRAITS[0])[0].uncertain
    with pytest.raises(ConfigError, match="uncertain_below=nan"):
        FaceReader(networks["keypoints"], networks["emotion"], float("nan"))


def test_the_base_install_imports_neither_torch_nor_tensorflow_nor_pandas() -> None:
    code = (
        "import sys, emotion_ai, emotion_ai.client, emotion_ai.cli.predict, emotion_ai.cli; emotion_ai.FaceClient;"
        "print([m for m in ('torch', 'tensorflow', 'pandas', 'onnx', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_without_torch_the_reader_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from emotion_ai.errors import MissingExtraError\n"
        "try:\n    from emotion_ai import FaceReader\n"
        "except MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "emotion-ai[train]" in done.stdout, done.stderr


def test_exports_are_complete() -> None:
    for name in emotion_ai.__all__:
        assert getattr(emotion_ai, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = emotion_ai.Nothing
