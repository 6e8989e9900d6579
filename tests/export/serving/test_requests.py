"""Requests to the embedded server: good, malformed and too large ones."""

import base64
import gzip
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_ai.client import protos
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.limits import Limits
from emotion_ai_export.serving.embedded.store import ModelStore
from emotion_ai_export.serving.embedded.wire import parse_predict, render_predict
from tests.export.serving.small_models import ONES, asker, put, served


def test_images_are_accepted_and_other_bytes_rejected(built: Path, base: Path) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    ask = asker(store)

    def send(*contents: bytes) -> httpx.Response:
        instances = [{"b64": base64.b64encode(content).decode()} for content in contents]
        return ask("/v1/models/face:predict", {"signature_name": "serving_bytes", "instances": instances})

    png = encode_png(np.full((30, 40), 77, np.uint8))
    assert send(png, png).json() == {"predictions": [77.0, 77.0]}
    for bad in (
        b"",
        b"not a picture",
        png[:40],
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 50,
        b"\xff\xd8\xff\xe0" + b"\xff" * 99,
    ):
        answer = send(png, bad)
        assert answer.status_code == 400, bad
        assert answer.json()["error"]
    assert send(png).json() == {"predictions": [77.0]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe",
        b"[" * 100_000,
        b'{"instances":' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"instances":' + b"[" * 100 + b"1" + b"]" * 100 + b"}",
        b'{"instances": [1], }',
        b'{"instances": [' + b"9" * 5000 + b"]}",
        b'{"signature_name": "\\ud800", "instances": [1]}',
        b'{"signature_name": "serving_bytes", "instances": ["\\ud800"]}',
        b'{"instances": [{"images": {"b64": 5}}]}',
        b'{"instances": [{"b64": "a"}]}',
        b'{"instances": [[[[1e999]]]]}',
        b'{"instances": {"images": []}}',
        b'{"inputs": {"images": {"images": 1}}}',
        b'{"inputs": "text"}',
    ],
    ids=range(15),
)
def test_malformed_bodies_are_rejected(built: Path, base: Path, body: bytes) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    ask = asker(store)
    answer = ask("/v1/models/face:predict", body)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) < 2000
    assert served(ask) == [1.0]


def test_limits(built: Path, base: Path) -> None:
    put(built, base, 1)
    store = ModelStore(base)
    store.refresh()
    ask = asker(store, Limits(body=200_000))
    path = "/v1/models/face:predict"
    assert served(ask) == [1.0]
    assert ask(path, b" " * 200_001).status_code == 413
    packed = ask(path, gzip.compress(json.dumps(ONES).encode()), headers={"content-encoding": "gzip"})
    assert packed.status_code == 400
    assert "takes no compressed bodies" in packed.json()["error"]
    busy = asker(store, Limits(pending=0))("/v1/models/face")
    assert busy.status_code == 503
    assert "pending" in busy.json()["error"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
dtypes = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.int32, np.bool_, np.object_]).map(np.dtype)


@settings(max_examples=300)
@given(body=st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name"]), json_values), dtype=dtypes)
def test_any_json_is_parsed_or_rejected(body: dict[str, Any], dtype: np.dtype[Any]) -> None:
    try:
        request = parse_predict(json.dumps(body).encode(), lambda _: {"x": dtype})
    except ServingError:
        return
    assert request.tensors["x"].dtype == dtype


@settings(max_examples=100)
@given(
    value=st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=5),
    row=st.booleans(),
)
def test_float32_survives_the_wire(value: list[list[float]], row: bool) -> None:
    array = np.array(value, np.float32)
    answer = json.loads(render_predict({"y": array}, row))["predictions" if row else "outputs"]
    back = parse_predict(json.dumps({"inputs": answer}).encode(), lambda _: {"x": np.dtype(np.float32)}).tensors["x"]
    np.testing.assert_array_equal(back, array)


def test_a_small_body_does_not_become_a_huge_error() -> None:
    """Each member on a line of its own, indented by its depth, made gigabytes of a megabyte."""
    members = ",".join(f'"{number}":0' for number in range(2_000))
    body = '{"signature_name": 1, "x": ' + '{"a":' * 300 + "{" + members + "}" * 302
    tracemalloc.start()
    with pytest.raises(ServingError, match=r"'signature_name' key must be a string value") as caught:
        parse_predict(body.encode(), lambda _: {"x": np.dtype(np.float32)})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 1000
    assert peak < 2**20


def test_millions_of_instances_keep_no_worker() -> None:
    body = b'{"instances": [' + b"[]," * 1_000_000 + b"[]]}"
    started = time.thread_time()
    with pytest.raises(ServingError, match="More than 10000 instances") as caught:
        parse_predict(body, lambda _: {"x": np.dtype(np.float32)})
    assert caught.value.status == 413
    assert time.thread_time() - started < 1.5


def test_a_tensor_of_one_value_takes_the_memory_of_one() -> None:
    """Whatever its shape: a thousand inputs of 64 bytes each claimed 73 MB each."""
    request = protos.PredictRequest(model_spec={"name": "face"})
    for number in range(1000):
        tensor = request.inputs[f"input{number}"]
        tensor.dtype = 1
        tensor.float_val.append(7.0)
        for size in (2000, 96, 96, 1):
            tensor.tensor_shape.dim.add(size=size)
    tracemalloc.start()
    arrays = [protos.array(value) for value in request.inputs.values()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21
    assert all(array.shape == (2000, 96, 96, 1) for array in arrays)
    assert arrays[0][1999, 95, 95, 0] == 7.0
