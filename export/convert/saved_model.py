"""Writes graphs as SavedModels with the contract's signatures."""

from pathlib import Path
from typing import Any

from emotion_ai.class_set import FIVE, ClassSet
from emotion_ai.contract import (
    BYTES_INPUT,
    BYTES_SIGNATURE,
    CLASSES,
    CLASSES_SIGNATURE,
    CROP_SIZE,
    EXPRESSIONS,
    FULL_SIGNATURE,
    IMAGES_INPUT,
    IMAGES_SIGNATURE,
    MAX_CROP_PIXELS,
    MAX_CROP_SIDE,
    MAX_FACES,
    REQUEST_INPUT,
    UNCERTAIN_BELOW,
    UNCERTAINTY_SIGNATURE,
    Servable,
    Task,
    outputs,
)
from emotion_ai.inference.verdict import VerdictRule
from emotion_ai.published import MODEL_TASKS
from emotion_ai_export.convert.frameworks import tf, tf_function
from emotion_ai_export.convert.graph import NetworkGraph

MAX_SCANS = 100
"""Of a JPEG file; a progressive one usually has 10, and its thumbnail one."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_JPEG_SCAN = b"\xff\xda"
_DECODED_AT_ONCE = 4  # files; each takes up to 80 MiB
_PNG_HEADER = 24  # bytes up to the end of width and height, in IHDR, the first chunk


def save_servable(
    graphs: dict[Task, NetworkGraph],
    servable: Servable,
    folder: Path,
    rule: float | VerdictRule = 0.0,
    classes: ClassSet = FIVE,
) -> None:
    """Writes a SavedModel with its signatures.

    Args:
        graphs: of the networks that the servable needs, at least.
        servable: which of the three.
        folder: must not exist.
        rule: the emotion network's own for a verdict, or a threshold, whose bounds `serving_full` returns.
        classes: of the emotion network, which `serving_full` and `serving_classes` return.
    """
    if not isinstance(rule, VerdictRule):
        rule = VerdictRule((rule,) * len(classes))
    names = tf.constant([name.encode() for name in classes.names])

    def for_each(count: Any, row: Any) -> Any:
        """One row of a value for each class, repeated for each face."""
        return tf.tile(tf.expand_dims(row, 0), tf.stack([count, 1]))

    parts = [graphs[task] for task in MODEL_TASKS[servable]]

    # one inner function, so all signatures share one copy of the weights
    @tf_function(tf.TensorSpec([None, CROP_SIZE, CROP_SIZE, 1], tf.float32, IMAGES_INPUT))
    def network(images: Any) -> dict[str, Any]:
        # servers do not check shapes, and a convolution on another rank crashes the whole process
        checked = _limited(tf.ensure_shape(images, [None, CROP_SIZE, CROP_SIZE, 1]))
        found = {name: tensor for part in parts for name, tensor in part(checked).items()}
        if "probabilities" in found:
            found.setdefault(EXPRESSIONS, tf.identity(found["probabilities"]))
            count = tf.shape(found["probabilities"])[0]
            bounds = for_each(count, tf.constant(rule.thresholds, tf.float32))
            if rule.neutral is not None:
                led = tf.constant(rule.leads, tf.float32) + found[EXPRESSIONS][:, rule.neutral, tf.newaxis]
                bounds = tf.minimum(tf.maximum(bounds, led), 1.0)
            found[UNCERTAIN_BELOW] = bounds
            found[CLASSES] = for_each(count, names)
        return found

    @tf_function(tf.TensorSpec([None, CROP_SIZE, CROP_SIZE, 1], tf.float32, IMAGES_INPUT))
    def from_images(images: Any) -> dict[str, Any]:
        found = network(images)
        return {name: found[name] for name in outputs(servable, IMAGES_SIGNATURE)}

    def from_files(signature: str) -> Any:
        @tf_function(tf.TensorSpec([None], tf.string, BYTES_INPUT))
        def function(image_bytes: Any) -> dict[str, Any]:
            found = network(decode(image_bytes))
            return {name: found[name] for name in outputs(servable, signature)}

        return function

    @tf_function(tf.TensorSpec([None], tf.int32, REQUEST_INPUT))
    def of_classes(request: Any) -> dict[str, Any]:
        return {CLASSES: for_each(tf.shape(_limited(tf.ensure_shape(request, [None])))[0], names)}

    signatures = {
        IMAGES_SIGNATURE: from_images,
        **{
            name: from_files(name)
            for name in (BYTES_SIGNATURE, UNCERTAINTY_SIGNATURE, FULL_SIGNATURE)
            if outputs(servable, name)
        },
        **({CLASSES_SIGNATURE: of_classes} if outputs(servable, CLASSES_SIGNATURE) else {}),
    }
    module = tf.Module(name=servable)
    module.network, module.functions = network, signatures
    tf.saved_model.save(module, str(folder), signatures)


def _limited(inputs: Any) -> Any:
    """The same tensor, after a check of the number of faces, before which nothing is computed from it."""
    count = tf.shape(inputs)[0]
    few = _require((count >= 1) & (count <= MAX_FACES), f"a request must hold 1 to {MAX_FACES} faces; got", count)
    with tf.control_dependencies([few]):
        return tf.identity(inputs)


def decode(image_bytes: Any) -> Any:
    """PNG or JPEG files, string (N,), decoded to crops, float32 (N, 96, 96, 1).

    Gray as in Pillow's `convert("L")`, then the one resize. Alpha is dropped. A file that cannot be decoded fails the
    whole call with INVALID_ARGUMENT.
    """
    return decode_pictures(_limited(tf.ensure_shape(image_bytes, [None])), CROP_SIZE, CROP_SIZE, 1)


def decode_pictures(files: Any, height: int, width: int, channels: int) -> Any:
    """PNG or JPEG files, string (N,), to gray or RGB pixels, float32 (N, height, width, channels), 0-255."""
    picture = tf.TensorSpec([height, width, channels], tf.float32)

    def decode_one(file: Any) -> Any:
        pixels = _decode_one(file)
        if channels == 1:
            red, green, blue = (tf.cast(channel, tf.int32) for channel in tf.unstack(pixels, axis=-1))
            # ITU-R 601, as Pillow rounds
            pixels = tf.bitwise.right_shift(red * 19595 + green * 38470 + blue * 7471 + 0x8000, 16)[..., tf.newaxis]
        return tf.image.resize(pixels, (height, width), method="bilinear", antialias=True)

    return tf.map_fn(decode_one, files, fn_output_signature=picture, parallel_iterations=_DECODED_AT_ONCE)


def _decode_one(file: Any) -> Any:
    """One file as RGB, uint8 (H, W, 3)."""
    long_enough = tf.strings.length(file) >= _PNG_HEADER
    is_png = tf.equal(tf.strings.substr(file, 0, len(_PNG)), _PNG) & long_enough
    is_jpeg = tf.equal(tf.strings.substr(file, 0, len(_JPEG)), _JPEG)
    known = _require(is_png | is_jpeg, "image_bytes holds what is neither a PNG nor a JPEG file")
    with tf.control_dependencies([known]):
        size = tf.cond(is_png, lambda: _png_size(file), lambda: _jpeg_size(file))
    small = _require(
        tf.reduce_all((size > 0) & (size <= MAX_CROP_SIDE)) & (tf.reduce_prod(size) <= MAX_CROP_PIXELS),
        f"image_bytes holds a picture of more than {MAX_CROP_PIXELS} pixels, or {MAX_CROP_SIDE} on a side; shrink it; "
        "its height and width are",
        size,
    )
    # a decoder goes through the whole picture for each scan, and a scan takes as little as 16 bytes
    scans = tf.where(is_jpeg, tf.size(tf.strings.split(file, _JPEG_SCAN, MAX_SCANS + 1)) - 1, 0)
    quick = _require(scans <= MAX_SCANS, f"image_bytes holds a JPEG file of more than {MAX_SCANS} scans; it has", scans)
    with tf.control_dependencies([small, quick]):
        # decodes PNG as well, but only this operation offers the accurate DCT that Pillow uses
        return tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")


def _png_size(file: Any) -> Any:
    size = tf.strings.substr(file, _PNG_HEADER - 8, 8)
    return tf.cast(tf.io.decode_raw(size, tf.int32, little_endian=False)[::-1], tf.int64)


def _jpeg_size(file: Any) -> Any:
    return tf.cast(tf.image.extract_jpeg_shape(file)[:2], tf.int64)


def _require(condition: Any, message: str, *values: Any) -> Any:
    return tf.debugging.Assert(condition, [message, *values])
