"""TensorFlow Serving's REST bodies: predict requests parsed, responses rendered.

The rules are in tensorflow/serving's api_rest.md and in the recorded responses in tests/contract/reference.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.json_tensors import is_named, to_json, to_tensor

MAX_INSTANCES = 10_000
"""In a request: each is checked on its own, which takes minutes for millions of them."""

_BOM = b"\xef\xbb\xbf"


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
    if not inputs:
        raise ServingError(f"Failed to get input map for signature: {signature}")
    row = "instances" in document
    if row == ("inputs" in document):
        raise ServingError(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
            if row
            else "Missing 'inputs' or 'instances' key"
        )
    columns = _rows(document["instances"], list(inputs)) if row else _columns(document["inputs"], list(inputs))
    return PredictRequest(signature, {name: to_tensor(columns[name], dtype) for name, dtype in inputs.items()}, row)


def render_predict(outputs: Mapping[str, NDArray[Any]], row: bool) -> bytes:
    """The response as JSON: a bare list for one output, objects for several.

    Raises:
        ServingError: in row form, an output without the batch as its first dimension.
    """
    sizes = {name: value.shape[0] if value.ndim else None for name, value in outputs.items()}
    if row and (None in sizes.values() or len(set(sizes.values())) > 1):
        raise ServingError(f"Outputs of inconsistent batch size: {sizes}; send 'inputs' for them")
    values = {name: to_json(value, name.endswith("_bytes")) for name, value in outputs.items()}
    if len(values) == 1:
        (content,) = values.values()
    elif row:
        content = [dict(zip(values, items, strict=True)) for items in zip(*values.values(), strict=True)]
    else:
        content = values
    text = json.dumps({"predictions" if row else "outputs": content}, ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def _parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Text after it is ignored; NaN and Infinity are numbers."""
    text = body.removeprefix(_BOM).decode("utf-8", "surrogateescape").lstrip(" \t\r\n")  # strings may hold any bytes
    if not text:
        raise ServingError("JSON Parse error: The document is empty")
    try:
        value, _ = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise ServingError(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except RecursionError as error:
        raise ServingError("JSON Parse error: The document is nested too deeply.") from error
    if not isinstance(value, dict):
        raise ServingError("JSON Value: Is not object")
    return value


def _float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise ServingError(f"JSON Parse error: Number too big to be stored in double: {literal[:100]}")
    return value


def _int(literal: str) -> int | float:
    return int(literal) if len(literal) <= 20 else _float(literal)  # as RapidJSON: beyond 64 bits it is a double


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ServingError("JSON Value: a key occurs twice in an object")
    return found


_DECODER = json.JSONDecoder(parse_float=_float, parse_int=_int, object_pairs_hook=_object)


def _rows(instances: Any, names: list[str]) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not instances:
        raise ServingError("Expecting 'instances' to be an list/array with at least one value")
    if len(instances) > MAX_INSTANCES:
        raise ServingError(f"More than {MAX_INSTANCES} instances; send fewer at once", "RESOURCE_EXHAUSTED", 413)
    if not any(map(is_named, instances)) and len(names) == 1:
        return {names[0]: instances}
    for position, instance in enumerate(instances):
        if not is_named(instance) or instance.keys() != set(names):
            raise ServingError(
                f"Failed to process element: {position} of 'instances' list. Expecting an object whose keys must be "
                f"equal to: {','.join(sorted(names))}"
            )
    return {name: [instance[name] for instance in instances] for name in names}


def _columns(value: Any, names: list[str]) -> dict[str, Any]:
    if not is_named(value) and len(names) == 1:
        return {names[0]: value}
    missing = [name for name in names if not is_named(value) or name not in value]
    if missing:
        raise ServingError(f"Missing named input: {missing[0]} in 'inputs' object.")
    return dict(value)
