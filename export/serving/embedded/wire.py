"""TensorFlow Serving's REST bodies: predict requests parsed, responses rendered.

The rules are in tensorflow/serving's api_rest.md and in the recorded responses in tests/contract/reference.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray

from emotion_ai_export.serving.embedded.errors import ServingError

MAX_INSTANCES = 10_000
"""In a request: each is checked on its own, which takes minutes for millions of them."""

_BOM = b"\xef\xbb\xbf"
_TYPES: dict[str, set[type]] = {"f": {int, float}, "b": {bool}}  # a bool is no number
_BLANKS = dict.fromkeys(map(ord, " \t\n\v\f\r"))


@dataclass(frozen=True)
class PredictRequest:
    """A parsed request: its input tensors by name, and whether it was in row form (`instances`)."""

    signature: str
    tensors: dict[str, NDArray[Any]]
    row: bool


def parse_predict(body: bytes, dtypes: Callable[[str], Mapping[str, np.dtype[Any]]]) -> PredictRequest:
    """Parses a predict request.

    Args:
        body: JSON, in row form (`instances`) or columnar (`inputs`).
        dtypes: returns the inputs of a signature; object stands for strings.

    Raises:
        ServingError: the body does not fit the signature.
    """
    document = _parse(body)
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise ServingError("JSON Value: 'signature_name' key must be a string value.")
    signature = signature or "serving_default"
    inputs = dtypes(signature)
    row = "instances" in document
    if row and "inputs" in document:
        raise ServingError("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if not row and "inputs" not in document:
        raise ServingError("Missing 'inputs' or 'instances' key")
    columns = _rows(document["instances"], list(inputs)) if row else _columns(document["inputs"], list(inputs))
    return PredictRequest(signature, {name: _tensor(columns[name], dtype) for name, dtype in inputs.items()}, row)


def render_predict(outputs: Mapping[str, NDArray[Any]], row: bool) -> bytes:
    """The response as JSON: a bare list for one output, objects for several.

    Raises:
        ServingError: in row form, an output without the batch as its first dimension.
    """
    if row and (not all(value.ndim for value in outputs.values()) or len({len(v) for v in outputs.values()}) > 1):
        sizes = {name: value.shape[:1] for name, value in outputs.items()}
        raise ServingError(f"Outputs of inconsistent batch size: {sizes}; send 'inputs' for them")
    values = {name: _plain(value, name.endswith("_bytes")) for name, value in outputs.items()}
    content: Any = values
    if len(values) == 1:
        (content,) = values.values()
    elif row:
        content = [dict(zip(values, items, strict=True)) for items in zip(*values.values(), strict=True)]
    text = json.dumps({"predictions" if row else "outputs": content}, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def message_json(message: Any) -> dict[str, Any]:
    """A protobuf message as the server writes it."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def _parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Text after it is ignored; NaN and Infinity are numbers."""
    text = body.removeprefix(_BOM).decode("utf-8", "surrogateescape").lstrip(" \t\r\n")  # strings may hold any bytes
    if not text:
        raise ServingError("JSON Parse error: The document is empty")
    try:
        value, _ = _DECODER.raw_decode(text)
    except ValueError as error:  # also numbers of more than 4,300 digits
        raise ServingError(f"JSON Parse error: {error}") from error
    except RecursionError as error:
        raise ServingError("JSON Parse error: The document is nested too deeply.") from error
    if not isinstance(value, dict):
        raise ServingError("JSON Value: Is not object")
    return value


def _float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise ValueError(f"Number too big to be stored in double: {literal[:100]}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in an object")
    return found


_DECODER = json.JSONDecoder(parse_float=_float, object_pairs_hook=_object)


def _rows(instances: Any, names: list[str]) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise ServingError("Expecting 'instances' to be an list/array with at least one value")
    if len(instances) > MAX_INSTANCES:
        raise ServingError(f"More than {MAX_INSTANCES} instances; send fewer at once", "RESOURCE_EXHAUSTED", 413)
    if not any(map(_is_named, instances)) and len(names) == 1:
        return {names[0]: instances}
    for position, instance in enumerate(instances):
        if not _is_named(instance) or instance.keys() != set(names):
            expected = f"Expecting an object whose keys must be equal to: {','.join(sorted(names))}"
            raise ServingError(f"Failed to process element: {position} of 'instances' list. {expected}")
    return {name: [instance[name] for instance in instances] for name in names}


def _columns(value: Any, names: list[str]) -> dict[str, Any]:
    if not _is_named(value) and len(names) == 1:
        return {names[0]: value}
    missing = [name for name in names if not _is_named(value) or name not in value]
    if missing:
        raise ServingError(f"Missing named input: {missing[0]} in 'inputs' object.")
    return dict(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _tensor(value: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    nested = np.array(value, object)
    values = nested.reshape(-1).tolist()
    kinds = set(map(type, values))
    if list in kinds:  # lists of unequal lengths stay lists, and those beyond NumPy's 64 dimensions
        raise ServingError("Lists of one level must have one length, and no more than 64 levels are supported")
    if dtype.kind == "O":
        values = [*map(_bytes, values)]
    elif wrong := kinds - _TYPES.get(dtype.kind, {int}):
        raise ServingError(f"JSON Value: {min(kind.__name__ for kind in wrong)} is not of expected type: {dtype}")
    try:
        with np.errstate(over="ignore"):  # 1e39 is infinite in float32
            return np.array(values, dtype).reshape(nested.shape)
    except OverflowError as error:
        raise ServingError(f"JSON Value: a number is out of range, expected type: {dtype}") from error


def _bytes(value: Any) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if not _is_base64(value):
            raise ServingError(f"JSON Value: {type(value).__name__} is not of expected type: string")
        text = value["b64"].translate(_BLANKS)
        digits = text.rstrip("=")
        padding = -len(digits) % 4
        if len(text) - len(digits) not in (0, padding):  # all of it or none
            raise ValueError("wrong padding")
        return base64.b64decode(digits + "=" * padding, validate=True)
    except ValueError as error:
        raise ServingError(f"JSON Value: not valid: {error}") from error


def _plain(value: NDArray[Any], as_bytes: bool) -> Any:
    """Nested lists; strings as text, or in base64 if `as_bytes`."""
    flat: Any = value.ravel()
    if value.dtype == np.float32:  # the shortest digits of the float32, not those of its double
        flat = np.array([float(str(number)) for number in flat], float)
    elif value.dtype == object:
        flat = np.array([_string(each, as_bytes) for each in flat], object)
    return flat.reshape(value.shape).tolist()


def _string(value: bytes, as_bytes: bool) -> Any:
    return {"b64": base64.b64encode(value).decode()} if as_bytes else value.decode("utf-8", "surrogateescape")
