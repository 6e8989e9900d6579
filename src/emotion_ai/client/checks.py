"""What a client sends and accepts: inputs within the contract, and outputs that a working model can return."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.class_set import ClassSet
from emotion_ai.client.transport import Connection, Inputs
from emotion_ai.contract import (
    BYTES_INPUT,
    CLASSES,
    CROP_SIZE,
    DEVIATIONS,
    EMOTIONS,
    EXPRESSIONS,
    INPUTS,
    KEYPOINTS,
    REQUEST_INPUT,
    UNCERTAIN_BELOW,
)
from emotion_ai.errors import ConfigError, ImageError, ServerFailureError
from emotion_ai.vision.crops import describe

SHAPES: dict[str, tuple[int, ...]] = {
    "keypoints": (len(KEYPOINTS), 2),
    DEVIATIONS: (len(KEYPOINTS), 2),
}
"""Of each output that has no column for each class, for one face."""

_BY_CLASS = ("probabilities", EXPRESSIONS, UNCERTAIN_BELOW)

Outputs = dict[str, NDArray[Any]]
"""Outputs by name, one row per input: float32, and `classes` as texts."""

POINT_RANGE = (-2.0 * CROP_SIZE, 3.0 * CROP_SIZE)
"""Pixels of the crop: a keypoint further than two crops outside is an error of the model."""

SUM_TOLERANCE = 0.01
"""How far the probabilities of a face may be from a sum of 1, and each of them from 0 to 1."""


def check_inputs(signature: str, inputs: Any) -> Inputs:
    """The inputs of a request, as transports take them.

    Raises:
        ImageError: they are not encoded files, or not pixels float (N, 96, 96, 1) from 0 to 255.
    """
    if INPUTS[signature] == BYTES_INPUT:
        files = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if wrong := [file for file in files if not isinstance(file, bytes) or file is inputs]:
            raise ImageError(f"{signature} takes a list of PNG or JPEG files, each as bytes, got {describe(wrong[0])}")
        return files
    if INPUTS[signature] == REQUEST_INPUT:
        numbers = np.asarray(inputs)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise ImageError(f"{signature} takes integers, int32 (N,), got {describe(inputs)}")
        return numbers.astype(np.int32)
    try:
        pixels = np.asarray(inputs, np.float32)
    except (TypeError, ValueError) as error:
        raise ImageError(f"{signature} takes pixels, float (N, 96, 96, 1), got {describe(inputs)}") from error
    if pixels.shape[1:] != (CROP_SIZE, CROP_SIZE, 1):
        raise ImageError(f"{signature} takes pixels, float (N, 96, 96, 1), got {describe(pixels)}")
    if pixels.size and not (pixels.min() >= -0.5 and pixels.max() <= 255.5):  # NaN too; a resize may be off by rounding
        raise ImageError(f"pixels must be from 0 to 255, got {pixels.min():g} to {pixels.max():g}")
    if pixels.size and pixels.max() <= 1 and (pixels % 1).any():
        raise ImageError("pixels must be from 0 to 255, got values from 0 to 1; multiply them by 255")
    return pixels


def check_outputs(
    names: Sequence[str], response: Mapping[str, Any], count: int, connection: Connection, any_classes: bool = False
) -> Outputs:
    """The outputs of a response for `count` faces.

    Args:
        names: the outputs that the signature has.
        response: them, as arrays or nested lists.
        count: faces in the request.
        connection: for messages.
        any_classes: whether probabilities without the names of their classes may be of other than the five emotions.

    Raises:
        ServerFailureError: one is missing, has another shape, or values that no working model returns.
    """
    found: Outputs = {}
    sizes: dict[str, int | None] = {} if any_classes else dict.fromkeys(_BY_CLASS, len(EMOTIONS))
    if CLASSES in names:
        found[CLASSES] = _check_classes(response.get(CLASSES), count, connection)
        if count:
            classes = ClassSet.of(found[CLASSES][0].tolist())
            sizes = {**dict.fromkeys(_BY_CLASS, len(classes)), "probabilities": classes.emotions}
    for name in names:
        if name != CLASSES:
            found[name] = check_output(name, response.get(name), count, connection, sizes.get(name))
    return {name: found[name] for name in names}


def _check_classes(values: Any, count: int, connection: Connection) -> NDArray[Any]:
    """The names of the classes, text (N, K), in the same order for every face."""
    rows = values.tolist() if isinstance(values, np.ndarray) else values
    try:
        if not isinstance(rows, list) or len(rows) != count:
            raise TypeError(f"{len(rows) if isinstance(rows, list) else 'no'} rows for {count} faces")
        if any(not isinstance(row, list) for row in rows):
            raise TypeError("a face without a list of names")
        rows = [[name.decode() if isinstance(name, bytes) else name for name in row] for row in rows]
        if any(row != rows[0] for row in rows):
            raise ValueError("not the same for every face")
        classes = ClassSet.of(rows[0]).names if rows else ()
    except (TypeError, ValueError, AttributeError, ConfigError) as error:
        raise ServerFailureError(
            f"{connection.url}: the response of {connection.model} has no usable {CLASSES} ({error})"
        ) from error
    return np.array([classes] * count, object).reshape(count, len(classes))


def check_output(
    name: str, values: Any, count: int, connection: Connection, classes: int | None = None
) -> NDArray[np.float32]:
    """One output of a response for `count` faces, as float32.

    Args:
        name: the output's.
        values: an array, or nested lists of numbers.
        count: faces in the request.
        connection: for messages.
        classes: columns of an output with one for each class; None takes any number, as of a version that names none.

    Raises:
        ServerFailureError: no numbers, another shape, or values that no working model returns.
    """
    url, shape = connection.url, (count, *SHAPES.get(name, (classes,)))
    try:
        found = np.asarray(values)
        if found.dtype.kind not in "fiuO":
            raise TypeError(f"values of type {found.dtype}")
        if name in _BY_CLASS and classes is None and found.ndim == 2:
            shape = (count, max(found.shape[1], 2))
        if found.shape != shape:  # before the copy, since a small message can claim a huge tensor
            raise ServerFailureError(f"{url}: {name} must have the shape {shape}, got {found.shape}")
        with np.errstate(over="ignore"):  # too large for float32 is infinite, reported below
            found = np.array(found, np.float32)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = repr(error)[:200]
        raise ServerFailureError(f"{url}: the response of {connection.model} lacks {name} ({reason})") from error
    if not np.isfinite(found).all():
        raise ServerFailureError(f"{url}: {name} contains NaN or infinite values; the model is broken")
    if found.size and (problem := _impossible(name, found)):
        raise ServerFailureError(f"{url}: {problem}; the model is broken, or it is another model")
    return found


def check_status(status: Any, connection: Connection) -> list[dict[str, Any]]:
    """A server's record of its versions, unchanged.

    Raises:
        ServerFailureError: it is not TensorFlow Serving's: a list of objects with `version` and `state`.
    """
    if not isinstance(status, list):
        message = "the response has no model_version_status; is this TensorFlow Serving?"
        raise ServerFailureError(f"{connection.url}: {message}")
    for entry in status:
        known = isinstance(entry, dict) and _is_version(entry.get("version")) and isinstance(entry.get("state"), str)
        if not known:
            raise ServerFailureError(f"{connection.url}: the status is not in TensorFlow Serving's format")
    return status


def check_metadata(metadata: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """A version's metadata, unchanged.

    Raises:
        ServerFailureError: it lacks `model_spec` with the version or `metadata` with the signatures.
    """
    signatures: Any = metadata
    for key in ("metadata", "signature_def", "signature_def"):
        signatures = signatures.get(key) if isinstance(signatures, dict) else None
    spec = metadata.get("model_spec")
    if isinstance(spec, dict) and _is_version(spec.get("version")) and isinstance(signatures, dict):
        return metadata
    raise ServerFailureError(f"{connection.url}: the metadata is not in TensorFlow Serving's format")


def _is_version(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) < 20
    return type(value) is int and 0 <= value < 2**63


def _impossible(name: str, values: NDArray[np.float32]) -> str:
    """What no working model returns, or nothing."""
    low, high = float(values.min()), float(values.max())
    if name == "keypoints" and not POINT_RANGE[0] <= low <= high <= POINT_RANGE[1]:
        bounds = " to ".join(f"{bound:g}" for bound in POINT_RANGE)
        return f"keypoints lie from {low:g} to {high:g} in pixels of the 96x96 crop, outside {bounds}"
    if name == DEVIATIONS and low < 0:
        return f"deviations must not be negative, got {low:g}"
    if name == UNCERTAIN_BELOW and (low < 0 or high > 1):
        return f"{name} must be between 0 and 1, got {low:g} to {high:g}"
    if name in ("probabilities", EXPRESSIONS):
        if low < -SUM_TOLERANCE or high > 1 + SUM_TOLERANCE:
            return f"{name} must be between 0 and 1, got {low:g} to {high:g}"
        sums = values.sum(-1, dtype=np.float64)
        if (wrong := np.abs(sums - 1) > SUM_TOLERANCE).any():
            return f"{name} of a face must sum to 1, got {sums[wrong][0]:g}"
    return ""
