"""`FaceReader` and `FaceClient` take the same crops and refuse the others in the same words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emotion_ai import FaceClient, FaceReader
from emotion_ai.client.transport import Prediction
from emotion_ai.contract import EMOTIONS, KEYPOINTS
from emotion_ai.data.batches import resize_to_crops
from emotion_ai.errors import EmotionAIError, ImageError, RequestRejectedError
from emotion_ai.evaluation.explain import activation_maps
from emotion_ai.inference.drawing import annotate
from emotion_ai.models import FaceNetwork
from emotion_ai.vision.crops import Box, crop, resize_to_crop
from emotion_ai.vision.detector import find_faces

GRAY = np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)
UNIT = (GRAY / 255).astype(np.float32)
RGB = np.stack([GRAY] * 3, -1)


class Silent:
    """A transport that responds with the mean face, of a version that names no classes."""

    def predict(self, signature: str, inputs: Any, outputs: tuple[str, ...]) -> Prediction:
        if signature == "serving_classes":
            raise RequestRejectedError('Serving signature name: "serving_classes" not found in signature def')
        shapes = {"keypoints": (len(KEYPOINTS), 2), "probabilities": (len(EMOTIONS),)}
        return Prediction({name: np.full((len(inputs), *shapes[name]), 1 / len(EMOTIONS)) for name in outputs})


@pytest.fixture(scope="module")
def reader(networks: dict[Any, FaceNetwork]) -> FaceReader:
    return FaceReader(networks["keypoints"], networks["emotion"])


@pytest.fixture(params=["serving_bytes", "serving_default"])
def client(request: pytest.FixtureRequest) -> FaceClient:
    client = FaceClient(signature=request.param)
    client._transport = Silent()  # type: ignore[assignment]
    return client


BAD = {
    "float 0 to 1": UNIT[None],
    "float 0 to 1 in a list": [GRAY, UNIT],
    "float 0 to 255": GRAY[None].astype(np.float64),
    "float16": UNIT[None].astype(np.float16),
    "float from -1 to 1": 2 * UNIT[None] - 1,
    "NaN": np.full((1, 96, 96), np.nan, np.float32),
    "one NaN": [np.where(GRAY > 9, UNIT, np.nan)],
    "boolean": GRAY[None] > 9,
    "16 bits": GRAY[None].astype(np.uint16),
    "signed": GRAY[None].astype(np.int8),
    "int64": [GRAY.astype(np.int64)],
    "complex": [GRAY.astype(np.complex64)],
    "one crop alone": GRAY,
    "one row": GRAY[0],
    "a number": np.uint8(3),
    "a number as an array": np.array(3, np.uint8),
    "colour": RGB[None],
    "colour in a list": [RGB],
    "one channel": GRAY[None, :, :, None],
    "five dimensions": np.zeros((1, 1, 1, 9, 9), np.uint8),
    "no pixels": np.zeros((1, 0, 96), np.uint8),
    "no pixels in a list": [GRAY, np.zeros((0, 9), np.uint8)],
    "object array": np.array([UNIT, None], object),
    "objects": GRAY[None].astype(object),
    "nested lists": [GRAY.tolist()],
    "texts": ["a.jpg"],
    "a text": "a.jpg",
    "a path": Path("a.jpg"),
    "bytes": b"\x89PNG",
    "files": [b"\x89PNG"],
    "nothing": None,
    "a dictionary": {0: GRAY},
    "a generator": (row for row in [GRAY]),
    "PIL": [Image.fromarray(GRAY)],
    "PyTorch": torch.from_numpy(GRAY)[None],
    "PyTorch in a list": [torch.from_numpy(GRAY)],
}


def message(call: Callable[[Any], Any], value: Any) -> str:
    with pytest.raises(ImageError) as caught:
        call(value)
    return str(caught.value)


@pytest.mark.parametrize("case", BAD)
def test_both_readers_refuse_the_same_crops_in_the_same_words(
    case: str, reader: FaceReader, client: FaceClient
) -> None:
    text = message(client.read_crops, BAD[case])
    assert text == message(reader.read_crops, BAD[case])
    assert "uint8" in text
    assert "\n" not in text


def test_the_message_says_where_and_how_to_convert(reader: FaceReader) -> None:
    text = message(reader.read_crops, [GRAY, UNIT])
    assert text.startswith("crop 1 must be gray, uint8 (H, W), got float32 (96, 96); for pixels from 0 to 1 give ")
    with pytest.raises(ImageError):  # all checked before any is read
        reader.read_crops([GRAY] * 64 + [RGB])
    converted = np.rint(255 * UNIT).astype(np.uint8)
    np.testing.assert_array_equal(converted, GRAY)


@pytest.mark.parametrize(
    "crops",
    [
        GRAY[None],
        [GRAY, GRAY[:20, :9]],
        (GRAY,),
        np.array([GRAY, GRAY[:5], None], object)[:2],
        [GRAY[::-1, ::2]],
        [np.asfortranarray(GRAY)],
        [],
        np.zeros((0, 96, 96), np.uint8),
    ],
    ids=["array", "sizes", "tuple", "object array", "view", "columns first", "none", "empty array"],
)
def test_both_readers_take_the_same_crops(crops: Any, reader: FaceReader, client: FaceClient) -> None:
    for found in (reader.read_crops(crops), client.read_crops(crops)):
        assert found.keypoints.shape == (len(crops), 15, 2)
        assert found.probabilities.shape == (len(crops), 5)


@pytest.mark.parametrize("value", [UNIT, RGB, GRAY[None], GRAY > 9, np.full((9, 9), np.nan)], ids=range(5))
def test_functions_on_crops_take_gray_uint8_only(value: Any, networks: dict[Any, FaceNetwork]) -> None:
    for call in (
        resize_to_crop,
        lambda image: activation_maps(networks["emotion"], [image]),
        lambda image: resize_to_crops(torch.from_numpy(image)) if image.ndim == 2 else resize_to_crop(image),
    ):
        assert "must be" in message(call, value)


@pytest.mark.parametrize("value", [UNIT, GRAY[None], GRAY > 9, RGB / 255, np.dstack([RGB, GRAY])], ids=range(5))
def test_faces_are_cropped_from_gray_and_colour_photos_only(value: Any) -> None:
    assert "must be" in message(lambda image: crop(image, Box(0, 0, 9)), value)


@pytest.mark.parametrize("value", [RGB / 255, GRAY, RGB[:0], np.dstack([RGB, GRAY])], ids=["0-1", "gray", "no", "RGBA"])
def test_functions_on_photos_take_colour_uint8_only(value: Any) -> None:
    for call in (find_faces, lambda image: annotate(image, [])):
        assert "the photo must be colour, uint8 (H, W, 3), got" in message(call, value)


PIXELS = GRAY[None, :, :, None].astype(np.float32)


@pytest.mark.parametrize(
    "inputs",
    [
        UNIT[None, :, :, None],
        2 * UNIT[None, :, :, None] - 1,
        PIXELS * 257,
        np.where(PIXELS > 9, PIXELS, np.nan),
        PIXELS[0],
        PIXELS[..., 0],
        PIXELS[:, :48],
        np.dstack([PIXELS[0]] * 3)[None],
        "a.jpg",
        None,
        [b"\x89PNG"],
    ],
    ids=["0-1", "-1-1", "16 bits", "NaN", "one", "3-D", "size", "colour", "text", "None", "files"],
)
def test_pixels_to_predict_are_checked(inputs: Any) -> None:
    client = FaceClient(signature="serving_default")
    client._transport = Silent()  # type: ignore[assignment]
    assert client.predict(PIXELS)["keypoints"].shape == (1, 15, 2)
    assert client.predict(np.zeros_like(PIXELS))["keypoints"].shape == (1, 15, 2)  # black is a picture
    with pytest.raises(EmotionAIError):
        client.predict(inputs)


@pytest.mark.parametrize(
    "inputs", [b"\x89PNG", ["a.jpg"], "a.jpg", [GRAY], PIXELS, None, [bytearray(b"x")]], ids=range(7)
)
def test_files_to_predict_are_checked(inputs: Any) -> None:
    client = FaceClient()
    client._transport = Silent()  # type: ignore[assignment]
    assert "takes a list of PNG or JPEG files, each as bytes, got" in message(client.predict, inputs)
