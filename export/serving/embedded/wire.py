"""JSON in, tensors through, JSON out: TensorFlow Serving's REST bodies, with its own error texts.

Format and texts are those of the recorded answers in tests/contract/reference; the rules behind them are in
tensorflow/serving's api_rest.md.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_ECHO = 512
_INT32 = (-(2**31), 2**31 - 1)
_RANGES = {"int64": (-(2**63), 2**63 - 1), "uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1)}
NAMES = {"float32": "float", "float64": "double", "object": "string"}
"""The server's names of types, where they are not NumPy's."""
_KINDS = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number", type(None): "Null"}
_SYNTAX = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Expecting ',' delimiter": "Missing a comma or a closing bracket.",
}


class ServingError(Exception):
    """A request that gets an error answer: its text, its gRPC code, and the HTTP status that goes with that."""

    def __init__(self, text: str, code: str = "INVALID_ARGUMENT", status: int | None = None) -> None:
        super().__init__(text)
        self.code, self.status = code, status or _HTTP.get(code, 500)


@dataclass(frozen=True)
class PredictRequest:
    """The input tensors of one request by name, and whether it came in row form (`instances`)."""

    signature: str
    tensors: dict[str, NDArray[Any]]
    row: bool


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; what stands after it is ignored, NaN and Infinity are numbers.

    Raises:
        Refusal: not JSON, or not an object.
    """
    text = body.decode("utf-8", "surrogateescape").lstrip(" \t\r\n")  # strings may hold any bytes
    if not text:
        raise ServingError("JSON Parse error: The document is empty")
    offset = len(body) - len(text.encode("utf-8", "surrogateescape"))
    try:
        value, _ = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        where = f"at offset: {offset + error.pos}"
        raise ServingError(f"JSON Parse error: {_SYNTAX.get(error.msg, error.msg + '.')} {where}") from error
    except _TooBig as error:
        where = f"at offset: {offset + text.find(str(error))}"
        raise ServingError(f"JSON Parse error: Number too big to be stored in double. {where}") from error
    except RecursionError as error:
        raise ServingError("JSON Parse error: The document is nested too deeply.") from error
    if not isinstance(value, dict):
        raise ServingError(f"JSON Value: {_echo(value)} Is not object")
    return value


def parse_predict(body: bytes, dtypes: Callable[[str], Mapping[str, np.dtype[Any]]]) -> PredictRequest:
    """Reads a predict request.

    Args:
        body: JSON, in row form (`instances`) or columnar (`inputs`).
        dtypes: gives each input of a signature; object stands for strings.

    Raises:
        Refusal: the body is not what that signature takes.
    """
    document = parse_body(body)
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise ServingError(
            f"JSON Value: {_echo(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    signature = signature or "serving_default"
    inputs = dtypes(signature)
    if not inputs:
        raise ServingError(f"Failed to get input map for signature: {signature}")
    if "instances" in document and "inputs" in document:
        raise ServingError(
            f"JSON Value: {_echo(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise ServingError(f"JSON Value: {_echo(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise ServingError(f"JSON Value: {_echo(document)} No values in 'instances' array")
        return PredictRequest(signature, _rows(instances, inputs), row=True)
    if "inputs" in document:
        return PredictRequest(signature, _columns(document["inputs"], inputs), row=False)
    raise ServingError("Missing 'inputs' or 'instances' key")


def render_predict(outputs: Mapping[str, NDArray[Any]], row: bool) -> bytes:
    """The answer's JSON: one output is a bare list, several are objects.

    Raises:
        Refusal: in row form, an output without the batch as its first dimension.
    """
    if row:
        sizes = {name: value.shape[0] if value.ndim else None for name, value in outputs.items()}
        expected = next(iter(sizes.values()))
        for name, size in sizes.items():
            if size is None:
                raise ServingError(f"Tensor name: {name} has no shape information ")
            if size != expected:
                raise ServingError(f"Tensor name: {name} has inconsistent batch size: {size} expecting: {expected}")
    values = {name: _plain(value, name.endswith("_bytes")) for name, value in outputs.items()}
    if len(values) == 1:
        (answer,) = values.values()
    elif row:
        answer = [dict(zip(values, items, strict=True)) for items in zip(*values.values(), strict=True)]
    else:
        answer = values
    text = json.dumps({"predictions" if row else "outputs": answer}, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


class _TooBig(ValueError):
    pass


def _float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise _TooBig(literal)
    return value


def _int(literal: str) -> int | float:
    return int(literal) if len(literal) <= 20 else _float(literal)  # as RapidJSON: beyond 64 bits it is a double


_DECODER = json.JSONDecoder(parse_float=_float, parse_int=_int)


def _rows(instances: list[Any], inputs: Mapping[str, np.dtype[Any]]) -> dict[str, NDArray[Any]]:
    named = _is_named(instances[0])
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise ServingError(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    leaves: dict[str, list[Any]] = {name: [] for name in inputs}
    shapes: dict[str, tuple[int, ...]] = {}
    for position, instance in enumerate(instances):
        if named != _is_named(instance):
            wanted, got = ("object", "list") if named else ("value/list", "object")
            raise ServingError(f"Expecting {wanted} but got {got} at item {position} of input list")
        for name, value in instance.items() if named else [(next(iter(inputs)), instance)]:
            try:
                if name not in inputs:
                    raise ServingError(f"JSON object: does not have named input: {name}")
                found, shape = _leaves(value, inputs[name])
                _same_shape(shapes.setdefault(name, shape), shape)
                leaves[name] += found
            except ServingError as error:
                key = f" key: {name}" if named else ""
                raise ServingError(
                    f"Failed to process element: {position}{key} of 'instances' list. Error: INVALID_ARGUMENT: {error}"
                ) from error
        if named and instance.keys() != inputs.keys():
            raise ServingError(
                f"Failed to process element: {position} of 'instances' list. JSON object: {_echo(instance)} "
                f"keys must be equal to: {','.join(sorted(inputs))}"
            )
    return {name: _array(leaves[name], (len(instances), *shapes[name]), inputs[name]) for name in inputs}


def _columns(value: Any, inputs: Mapping[str, np.dtype[Any]]) -> dict[str, NDArray[Any]]:
    if not _is_named(value):
        if len(inputs) > 1:
            raise ServingError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        value = {next(iter(inputs)): value}
    missing = [name for name in inputs if name not in value]
    if missing:
        raise ServingError(f"Missing named input: {missing[0]} in 'inputs' object.")
    return {name: _array(*_leaves(value[name], dtype), dtype) for name, dtype in inputs.items()}


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _same_shape(expected: tuple[int, ...], got: tuple[int, ...]) -> None:
    if math.prod(expected) != math.prod(got):
        raise ServingError(f"Expecting tensor size: {math.prod(expected)} but got: {math.prod(got)}")
    if expected != got:
        texts = ["[" + ",".join(map(str, shape)) + "]" for shape in (expected, got)]
        raise ServingError(f"Expecting shape {texts[0]} but got: {texts[1]}")


def _leaves(value: Any, dtype: np.dtype[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """A nested list flattened, level by level in C loops: a batch of images has half a million numbers."""
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
                    f"JSON Value: {_echo(item)} found at incorrect level: {depth + 1} in the JSON DOM. "
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
    allowed = {"f": {int, float}, "b": {bool}}.get(dtype.kind, {int})  # types, as to isinstance a bool is an int
    ranged = dtype.kind in "iu"
    low, high = _RANGES.get(dtype.name, _INT32)
    if set(map(type, values)) <= allowed and (not ranged or all(low <= value <= high for value in values)):
        return values
    wrong = next(v for v in values if type(v) not in allowed or (ranged and not low <= v <= high))
    raise _wrong_type(wrong, NAMES.get(dtype.name, dtype.name))


def _wrong_type(value: Any, wanted: str) -> ServingError:
    kind = str(value) if isinstance(value, bool) else _KINDS[type(value)]
    return ServingError(f"JSON Value: {_echo(value)} Type: {kind} is not of expected type: {wanted}")


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ServingError("JSON Parse error: The surrogate pair in string is invalid.") from error
    if _is_base64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ServingError("Unable to base64 decode") from error
    if isinstance(value, dict):
        raise ServingError(f"JSON Value: {_echo(value)} not formatted correctly for base64 data")
    raise _wrong_type(value, "string")


def _array(leaves: list[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind in "iu" and dtype.itemsize < 4:
        return np.array(leaves, np.int32).astype(dtype).reshape(shape)  # the server wraps what does not fit
    with np.errstate(over="ignore"):  # 1e39 is infinite in float32
        return np.array(leaves, dtype).reshape(shape)


def _plain(value: NDArray[Any], as_bytes: bool) -> Any:
    if value.dtype == np.float32:  # the shortest digits that mean the same float32, not its double
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


def _echo(value: Any) -> str:
    """A value as the server shows it, objects over lines and lists on one; but long ones are cut."""
    try:
        text = _pretty(value, 0)
    except RecursionError:
        return "(nested too deeply to show)"
    return text if len(text) <= _ECHO else text[:_ECHO] + "..."


def _pretty(value: Any, depth: int) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_pretty(item, depth + 1) for item in value[:_ECHO]) + "]"
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    indent = "\n" + "    " * (depth + 1)
    members = (
        f"{indent}{json.dumps(key, ensure_ascii=False)}: {_pretty(item, depth + 1)}" for key, item in value.items()
    )
    return "{" + ",".join(members) + "\n" + "    " * depth + "}"
