import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emotion_ai.contract import MAX_CROP_PIXELS, OUTPUTS, SERVABLES
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.saved_model import decode

GRAY_LEVELS = 0.01  # how far decoding and resizing may differ from Pillow's, of 255
SHAPES = {
    "keypoints": (15, 2),
    "deviations": (15, 2),
    "probabilities": (5,),
    "expressions": (7,),
    "uncertain_below": (7,),
    "classes": (7,),
}


def picture(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Smooth colours with noise, as a photograph has both."""
    coarse = np.random.default_rng(size[0]).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    noise = np.random.default_rng(size[1]).integers(-20, 21, smooth.shape)
    image = Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))
    if mode in ("RGBA", "LA"):
        alpha = Image.linear_gradient("L").resize(size)
        image = image.convert(mode[:-1])
        image.putalpha(alpha)
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def pillows(file: bytes) -> np.ndarray:
    return resize_to_crop(np.asarray(Image.open(io.BytesIO(file)).convert("L")))


@pytest.mark.parametrize("name", SERVABLES)
def test_signatures_have_the_contracts_names_shapes_and_batch_first(name: str, loaded: dict[str, Any]) -> None:
    signatures = loaded[name].signatures
    images = tf.TensorSpec([None, 96, 96, 1], tf.float32, "images")
    files = tf.TensorSpec([None], tf.string, "image_bytes")
    specs = {"serving_default": images, "serving_bytes": files, "serving_full": files}
    if name != "emotion":
        specs["serving_uncertainty"] = files
    if name != "keypoints":
        specs["serving_classes"] = tf.TensorSpec([None], tf.int32, "request")
    assert set(signatures) == set(specs)
    for signature, spec in specs.items():
        assert signatures[signature].structured_input_signature[1] == {spec.name: spec}
        found = signatures[signature].structured_outputs
        names = [] if signature == "serving_classes" else [*OUTPUTS[name]]
        if signature in ("serving_uncertainty", "serving_full") and name != "emotion":
            names += ["deviations"]
        if signature == "serving_full" and name != "keypoints":
            names += ["expressions", "uncertain_below"]
        if signature in ("serving_full", "serving_classes") and name != "keypoints":
            names += ["classes"]
        assert {k: tuple(v.shape) for k, v in found.items()} == {k: (None, *SHAPES[k]) for k in names}


@pytest.mark.parametrize("batch", [1, 3])
def test_any_batch_size_works_in_both_signatures(batch: int, loaded: dict[str, Any]) -> None:
    faces = [picture((96, 96), "L") for _ in range(batch)]
    pixels = np.zeros((batch, 96, 96, 1), np.float32)
    files = tf.constant([encoded(face, "PNG") for face in faces])
    for answer in (
        loaded["face"].signatures["serving_default"](images=tf.constant(pixels)),
        loaded["face"].signatures["serving_bytes"](image_bytes=files),
    ):
        assert answer["keypoints"].shape == (batch, 15, 2)
        assert answer["probabilities"].shape == (batch, 5)


@pytest.mark.parametrize("size", [(96, 96), (48, 48), (1, 1), (97, 31), (131, 260), (640, 480), (5, 400)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_png_decodes_and_resizes_as_pillow_does(size: tuple[int, int], mode: str) -> None:
    file = encoded(picture(size, mode), "PNG")
    assert np.abs(decode(tf.constant([file]))[0, ..., 0].numpy() - pillows(file)).max() < GRAY_LEVELS


@pytest.mark.parametrize("size", [(96, 96), (97, 31), (640, 480)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("settings", [{"quality": 30}, {"quality": 75}, {"quality": 98, "subsampling": 0}])
def test_jpeg_decodes_and_resizes_as_pillow_does(size: tuple[int, int], mode: str, settings: dict[str, int]) -> None:
    for progressive in (False, True):
        file = encoded(picture(size, mode), "JPEG", progressive=progressive, **settings)
        assert np.abs(decode(tf.constant([file]))[0, ..., 0].numpy() - pillows(file)).max() < GRAY_LEVELS


def test_the_fast_dct_would_be_noticed() -> None:
    file = encoded(picture((96, 96)), "JPEG", quality=75)
    fast = tf.io.decode_jpeg(file, channels=1, dct_method="INTEGER_FAST")[..., 0].numpy().astype(float)
    assert np.abs(fast - pillows(file)).max() > GRAY_LEVELS


def test_a_crop_passes_unchanged() -> None:
    image = picture((96, 96), "L")
    np.testing.assert_array_equal(decode(tf.constant([encoded(image, "PNG")]))[0, ..., 0], np.asarray(image))


def bad_files() -> dict[str, bytes]:
    png, jpeg = (encoded(picture((300, 200)), kind) for kind in ("PNG", "JPEG"))
    bomb = bytearray(encoded(picture((8, 8), "L"), "PNG"))
    bomb[16:24] = (20_000).to_bytes(4, "big") * 2
    return {
        "empty": b"",
        "text": b"this is not an image",
        "gif": encoded(picture((20, 20), "P"), "GIF"),
        "bmp": encoded(picture((20, 20)), "BMP"),
        "png cut in its header": png[:12],
        "png cut in its pixels": png[: len(png) // 2],
        "jpeg cut in its header": jpeg[:5],
        "jpeg cut in its pixels": jpeg[: len(jpeg) // 2],
        "20,000 x 20,000": bytes(bomb),
    }


@pytest.mark.parametrize("kind", bad_files())
def test_a_broken_file_is_rejected_and_the_next_request_succeeds(kind: str, loaded: dict[str, Any]) -> None:
    ask = loaded["emotion"].signatures["serving_bytes"]
    good = encoded(picture((96, 96), "L"), "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        ask(image_bytes=tf.constant([good, bad_files()[kind]]))
    if kind in ("empty", "text", "gif", "bmp", "png cut in its header"):
        assert "neither a PNG nor a JPEG" in str(caught.value)
    if kind == "20,000 x 20,000":
        assert f"more than {MAX_CROP_PIXELS} pixels" in str(caught.value)
    assert ask(image_bytes=tf.constant([good]))["probabilities"].shape == (1, 5)


def test_weights_are_written_once_in_a_saved_model(folders: dict[str, Path], networks: dict[str, Any]) -> None:
    weights = sum(4 * tensor.numel() for network in networks.values() for tensor in network.parameters())
    graphs = 190_000  # bytes of four signatures and their checks; a second copy of the weights adds 65,000
    assert (folders["face"] / "saved_model.pb").stat().st_size < weights + graphs + 20_000
