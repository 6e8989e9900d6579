"""TensorFlow Serving's REST bodies: predict requests parsed, responses rendered, errors with its texts.

Format and texts follow the recorded responses in tests/contract/reference; the rules are in tensorflow/serving's
api_rest.md.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.json_tensors import (
    check_same_shape,
    echo,
    flatten,
    is_named,
    to_array,
    to_json,
)

_SYNTAX = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Expecting ',' delimiter": "Missing a comma or a closing bracket.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Illegal trailing comma before end of array": "Invalid value.",
}


MAX_INSTANCES = 10_000
"""In a request: each is checked on its own, which takes minutes for millions of them."""


@dataclass(frozen=True)
class PredictRequest:
    """A parsed request: its input tensors by name, and whether it was in row form (`instances`)."""

    signature: str
    tensors: dict[str, NDArray[Any]]
    row: bool


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Text after it is ignored; NaN and Infinity are numbers.

    Raises:
        ServingError: not JSON, or not an object.
    """
    text = body.decode("utf-8", "surrogateescape").lstrip(" \t\r\n")  # strings may hold any bytes
    if not text:
        raise ServingError("JSON Parse error: The document is empty")
    offset = len(body) - len(text.encode("utf-8", "surrogateescape"))
    try:
        value, _ = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        position = error.pos
        if error.msg.startswith("Illegal trailing comma"):  # from Python 3.13 on, and placed at the comma
            position = len(text) - len(text[position + 1 :].lstrip())
        where = f"at offset: {offset + position}"
        raise ServingError(f"JSON Parse error: {_SYNTAX.get(error.msg, error.msg + '.')} {where}") from error
    except _TooBig as error:
        where = f"at offset: {offset + text.find(str(error))}"
        raise ServingError(f"JSON Parse error: Number too big to be stored in double. {where}") from error
    except RecursionError as error:
        raise ServingError("JSON Parse error: The document is nested too deeply.") from error
    if not isinstance(value, dict):
        raise ServingError(f"JSON Value: {echo(value)} Is not object")
    return value


def parse_predict(body: bytes, dtypes: Callable[[str], Mapping[str, np.dtype[Any]]]) -> PredictRequest:
    """Parses a predict request.

    Args:
        body: JSON, in row form (`instances`) or columnar (`inputs`).
        dtypes: returns the inputs of a signature; object stands for strings.

    Raises:
        ServingError: the body does not fit the signature.
    """
    document = parse_body(body)
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise ServingError(
            f"JSON Value: {echo(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    signature = signature or "serving_default"
    inputs = dtypes(signature)
    if not inputs:
        raise ServingError(f"Failed to get input map for signature: {signature}")
    if "instances" in document and "inputs" in document:
        raise ServingError(
            f"JSON Value: {echo(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise ServingError(f"JSON Value: {echo(document)} Expecting 'instances' to be an list/array")
        if not instances:
            raise ServingError(f"JSON Value: {echo(document)} No values in 'instances' array")
        if len(instances) > MAX_INSTANCES:
            raise ServingError(f"More than {MAX_INSTANCES} instances; send fewer at once", "RESOURCE_EXHAUSTED", 413)
        return PredictRequest(signature, _rows(instances, inputs), row=True)
    if "inputs" in document:
        return PredictRequest(signature, _columns(document["inputs"], inputs), row=False)
    raise ServingError("Missing 'inputs' or 'instances' key")


def render_predict(outputs: Mapping[str, NDArray[Any]], row: bool) -> bytes:
    """The response as JSON: a bare list for one output, objects for several.

    Raises:
        ServingError: in row form, an output without the batch as its first dimension.
    """
    if row:
        sizes = {name: value.shape[0] if value.ndim else None for name, value in outputs.items()}
        expected = next(iter(sizes.values()))
        for name, size in sizes.items():
            if size is None:
                raise ServingError(f"Tensor name: {name} has no shape information ")
            if size != expected:
                raise ServingError(f"Tensor name: {name} has inconsistent batch size: {size} expecting: {expected}")
    values = {name: to_json(value, name.endswith("_bytes")) for name, value in outputs.items()}
    if len(values) == 1:
        (content,) = values.values()
    elif row:
        content = [dict(zip(values, items, strict=True)) for items in zip(*values.values(), strict=True)]
    else:
        content = values
    text = json.dumps({"predictions" if row else "outputs": content}, ensure_ascii=False)
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
    named = is_named(instances[0])
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise ServingError(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    leaves: dict[str, list[Any]] = {name: [] for name in inputs}
    shapes: dict[str, tuple[int, ...]] = {}
    for position, instance in enumerate(instances):
        if named != is_named(instance):
            expected, got = ("object", "list") if named else ("value/list", "object")
            raise ServingError(f"Expecting {expected} but got {got} at item {position} of input list")
        for name, value in instance.items() if named else [(next(iter(inputs)), instance)]:
            try:
                if name not in inputs:
                    raise ServingError(f"JSON object: does not have named input: {name}")
                found, shape = flatten(value, inputs[name])
                check_same_shape(shapes.setdefault(name, shape), shape)
                leaves[name] += found
            except ServingError as error:
                key = f" key: {name}" if named else ""
                raise ServingError(
                    f"Failed to process element: {position}{key} of 'instances' list. Error: INVALID_ARGUMENT: {error}"
                ) from error
        if named and instance.keys() != inputs.keys():
            raise ServingError(
                f"Failed to process element: {position} of 'instances' list. JSON object: {echo(instance)} "
                f"keys must be equal to: {','.join(sorted(inputs))}"
            )
    return {name: to_array(leaves[name], (len(instances), *shapes[name]), inputs[name]) for name in inputs}


def _columns(value: Any, inputs: Mapping[str, np.dtype[Any]]) -> dict[str, NDArray[Any]]:
    if not is_named(value):
        if len(inputs) > 1:
            raise ServingError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        value = {next(iter(inputs)): value}
    missing = [name for name in inputs if name not in value]
    if missing:
        raise ServingError(f"Missing named input: {missing[0]} in 'inputs' object.")
    return {name: to_array(*flatten(value[name], dtype), dtype) for name, dtype in inputs.items()}
