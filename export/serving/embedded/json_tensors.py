"""JSON values to tensors and back, by TensorFlow Serving's rules."""

import base64
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai_export.serving.embedded.errors import TYPE_NAMES, ServingError

_MAX_RANK = 64  # of NumPy
_INT32 = (-(2**31), 2**31 - 1)
_RANGES = {"int64": (-(2**63), 2**63 - 1), "uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1)}
_BLANKS = dict.fromkeys(map(ord, " \t\n\v\f\r"))


def to_tensor(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A nested list as an array.

    Flattens level by level in C loops: a batch of images has half a million numbers.

    Raises:
        ServingError: ragged lists, or values that do not fit the dtype.
    """
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    if len(shape) > _MAX_RANK:
        raise ServingError(f"Tensors of more than {_MAX_RANK} dimensions are not supported, got {len(shape)}")
    level = [value]
    for depth, size in enumerate(shape):
        for item in level:
            if not isinstance(item, list) or len(item) != size:
                got = len(item) if isinstance(item, list) else "none"
                raise ServingError(f"Expecting a list of size: {size} at level: {depth} but got: {got}")
        level = list(chain.from_iterable(level))
    if list in set(map(type, level)):
        raise ServingError(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    values = [_bytes(item) for item in level] if dtype.kind == "O" else _checked(level, dtype)
    if dtype.kind in "iu" and dtype.itemsize < 4:
        return np.array(values, np.int32).astype(dtype).reshape(shape)  # the server wraps values out of range
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32
        return np.array(values, dtype).reshape(shape)


def _checked(values: list[Any], dtype: np.dtype[Any]) -> list[Any]:
    kinds: dict[str, set[type]] = {"f": {int, float}, "b": {bool}}
    allowed = kinds.get(dtype.kind, {int})  # exact types, because a bool is an instance of int
    ranged = dtype.kind in "iu"
    low, high = _RANGES.get(dtype.name, _INT32)
    if set(map(type, values)) <= allowed and (not ranged or all(low <= value <= high for value in values)):
        return values
    wrong = next(v for v in values if type(v) not in allowed or (ranged and not low <= v <= high))
    raise _wrong_type(wrong, dtype)


def _wrong_type(value: Any, dtype: np.dtype[Any]) -> ServingError:
    shown = str(value)[:100] if isinstance(value, int | float | str | None) else f"a JSON {type(value).__name__}"
    return ServingError(f"JSON Value: {shown} is not of expected type: {TYPE_NAMES.get(dtype.name, dtype.name)}")


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ServingError("JSON Parse error: The surrogate pair in string is invalid.") from error
    if not is_base64(value):
        raise _wrong_type(value, np.dtype(object))
    text = value["b64"].translate(_BLANKS)
    digits = text.rstrip("=")
    padding = -len(digits) % 4
    try:
        if len(text) - len(digits) not in (0, padding):  # all of it or none
            raise ValueError
        return base64.b64decode(digits + "=" * padding, validate=True)
    except ValueError as error:
        raise ServingError("Unable to base64 decode") from error


def is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def to_json(value: NDArray[Any], as_bytes: bool) -> Any:
    """Nested lists; strings as text, or in base64 if `as_bytes`."""
    flat: Any = value.ravel()
    if value.dtype == np.float32:  # the shortest digits of the float32, not those of its double
        flat = np.array([float(str(number)) for number in flat], float)
    elif value.dtype == object:
        encode = _base64 if as_bytes else _string
        flat = np.array([None, *map(encode, flat)], object)[1:]
    return flat.reshape(value.shape).tolist()


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _string(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
