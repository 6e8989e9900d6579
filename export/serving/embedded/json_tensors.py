"""JSON values to tensors and back, by TensorFlow Serving's rules and with its error texts."""

import base64
import binascii
import json
import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai_export.serving.embedded.errors import TYPE_NAMES, ServingError

_ECHO = 512  # characters of a value in an error
_MAX_RANK = 64  # of NumPy
_INT32 = (-(2**31), 2**31 - 1)
_RANGES = {"int64": (-(2**63), 2**63 - 1), "uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1)}
_KINDS = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number", type(None): "Null"}


def flatten(value: Any, dtype: np.dtype[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """The values of a nested list, and its shape.

    Flattens level by level in C loops: a batch of images has half a million numbers.

    Raises:
        ServingError: ragged lists, or values that do not fit the dtype.
    """
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    level = [value]
    for depth, size in enumerate(shape):
        for item in level:
            if not isinstance(item, list):
                raise ServingError(
                    f"JSON Value: {echo(item)} found at incorrect level: {depth + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)}"
                )
            if len(item) != size:
                raise ServingError(
                    f"Encountered list at unexpected size: {len(item)} at level: {depth} expected size: {size}"
                )
        level = list(chain.from_iterable(level))
    if list in set(map(type, level)):
        raise ServingError(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return _checked(level, dtype), tuple(shape)


def _checked(values: list[Any], dtype: np.dtype[Any]) -> list[Any]:
    if dtype.kind == "O":
        return [_bytes(value) for value in values]
    kinds: dict[str, set[type]] = {"f": {int, float}, "b": {bool}}
    allowed = kinds.get(dtype.kind, {int})  # exact types, because a bool is an instance of int
    ranged = dtype.kind in "iu"
    low, high = _RANGES.get(dtype.name, _INT32)
    if set(map(type, values)) <= allowed and (not ranged or all(low <= value <= high for value in values)):
        return values
    wrong = next(v for v in values if type(v) not in allowed or (ranged and not low <= v <= high))
    raise _wrong_type(wrong, TYPE_NAMES.get(dtype.name, dtype.name))


def _wrong_type(value: Any, expected: str) -> ServingError:
    kind = str(value) if isinstance(value, bool) else _KINDS[type(value)]
    return ServingError(f"JSON Value: {echo(value)} Type: {kind} is not of expected type: {expected}")


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ServingError("JSON Parse error: The surrogate pair in string is invalid.") from error
    if is_base64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ServingError("Unable to base64 decode") from error
    if isinstance(value, dict):
        raise ServingError(f"JSON Value: {echo(value)} not formatted correctly for base64 data")
    raise _wrong_type(value, "string")


def to_array(leaves: list[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(shape) > _MAX_RANK:
        raise ServingError(f"Tensors of more than {_MAX_RANK} dimensions are not supported, got {len(shape)}")
    if dtype.kind in "iu" and dtype.itemsize < 4:
        return np.array(leaves, np.int32).astype(dtype).reshape(shape)  # the server wraps values out of range
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32
        return np.array(leaves, dtype).reshape(shape)


def check_same_shape(expected: tuple[int, ...], got: tuple[int, ...]) -> None:
    if math.prod(expected) != math.prod(got):
        raise ServingError(f"Expecting tensor size: {math.prod(expected)} but got: {math.prod(got)}")
    if expected != got:
        texts = ["[" + ",".join(map(str, shape)) + "]" for shape in (expected, got)]
        raise ServingError(f"Expecting shape {texts[0]} but got: {texts[1]}")


def is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def to_json(value: NDArray[Any], as_bytes: bool) -> Any:
    if value.dtype == np.float32:  # the shortest digits of the float32, not those of its double
        flat = np.array([float(str(number)) for number in value.ravel()], float)
        return flat.reshape(value.shape).tolist()
    if value.dtype != object:
        return value.tolist()
    encode = _base64 if as_bytes else _string
    flat = np.empty(value.size, object)
    flat[:] = [encode(item) for item in value.ravel()]
    return flat.reshape(value.shape).tolist()


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _string(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def echo(value: Any) -> str:
    """A value as the server prints it: objects over several lines, lists on one; long ones are cut."""
    text = ""
    for part in _parts(value, 0):  # no more than are shown: indents alone make gigabytes of a small request
        text += part
        if len(text) > _ECHO:
            return text[:_ECHO] + "..."
    return text


def _parts(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, list):
        yield "["
        for position, item in enumerate(value):
            yield ", " if position else ""
            yield from _parts(item, depth + 1)
        yield "]"
    elif isinstance(value, dict) and value:
        indent = "\n" + "    " * depth
        for position, (key, item) in enumerate(value.items()):
            yield f"{',' if position else '{'}{indent}    {_literal(key)}: "
            yield from _parts(item, depth + 1)
        yield indent + "}"
    else:
        yield _literal(value)


def _literal(value: Any) -> str:
    return json.dumps(value[: _ECHO + 1] if isinstance(value, str) else value, ensure_ascii=False)
