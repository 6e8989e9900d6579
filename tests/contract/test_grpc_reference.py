"""Over gRPC, the embedded server responds as TensorFlow Serving did, message by message."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format

from emotion_ai.client import protos
from emotion_ai_export.serving.embedded import NAME
from emotion_ai_export.serving.embedded.rpc import start_rpc
from emotion_ai_export.serving.embedded.store import ModelStore
from tests.contract.reference.build_models import build
from tests.contract.reference.real import real_server

RECORDED = {
    label.strip(): answer.strip()
    for label, _, answer in (
        part.partition("\n") for part in (Path(__file__).parent / "reference" / "grpc.txt").read_text().split("## ")[1:]
    )
}
SAME_TEXT = re.compile("Servable not found|Could not find|Serving signature key")
"""Errors that callers tell apart by their text. Of the others, they show the text and act on the code."""
X = [[1.0, 2.0], [3.0, 4.0]]


def predict(
    x: Any = None, key: str = "x", dtype: Any = np.float32, outputs: tuple[str, ...] = (), **spec: Any
) -> tuple[str, Any]:
    request = protos.PredictRequest(model_spec={"name": "m", **spec}, output_filter=outputs)
    request.inputs[key].CopyFrom(protos.tensor(np.array([[1.0, 2.0]] if x is None else x, dtype)))
    return protos.PREDICT, request


def status(name: str, version: int | None = None) -> tuple[str, Any]:
    spec = {"name": name, **({} if version is None else {"version": {"value": version}})}
    return protos.GET_MODEL_STATUS, protos.GetModelStatusRequest(model_spec=spec)


def metadata(name: str, *fields: str) -> tuple[str, Any]:
    return protos.GET_MODEL_METADATA, protos.GetModelMetadataRequest(model_spec={"name": name}, metadata_field=fields)


ASKED = {
    "predict latest": predict(X),
    "predict version 1": predict(version={"value": 1}),
    "predict sig other filter z": predict(signature_name="other", outputs=("z",)),
    "unknown model": predict(name="nope"),
    "unknown version": predict(version={"value": 99}),
    "unknown signature": predict(signature_name="nosig"),
    "wrong input key": predict(key="bogus"),
    "wrong shape": predict([[1.0, 2.0, 3.0]]),
    "wrong dtype": predict([[1, 2]], dtype=np.int32),
    "bad filter": predict(outputs=("qq",)),
    "status m": status("m"),
    "status m v1": status("m", 1),
    "status m v99": status("m", 99),
    "status nope": status("nope"),
    "metadata m": metadata("m", "signature_def"),
    "metadata bad field": metadata("m", "xx"),
    "metadata no field": metadata("m"),
    "metadata nope": metadata("nope", "signature_def"),
}
RESPONSES = {
    protos.PREDICT: protos.PredictResponse,
    protos.GET_MODEL_STATUS: protos.GetModelStatusResponse,
    protos.GET_MODEL_METADATA: protos.GetModelMetadataResponse,
}


@pytest.fixture(scope="module", params=["embedded", "real"])
def channel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    if request.param == "real" and not os.environ.get("TFS_BIN"):
        pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
    models = tmp_path_factory.mktemp("reference")
    build(models)
    if request.param == "real":
        with real_server(models) as (_, port), grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
            yield opened
        return
    store = ModelStore(models)
    store.refresh()
    server, port = start_rpc(store, "127.0.0.1:0")
    with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    server.stop(None).wait()


def ask(channel: grpc.Channel, path: str, request: Any) -> Any:
    method = channel.unary_unary(path, lambda message: message.SerializeToString(), RESPONSES[path].FromString)
    return method.with_call(request, timeout=30)


def test_every_recorded_request_is_tested() -> None:
    assert ASKED.keys() == RECORDED.keys()


@pytest.mark.parametrize("label", ASKED)
def test_grpc_responses_are_as_recorded(label: str, channel: grpc.Channel, request: pytest.FixtureRequest) -> None:
    path, message = ASKED[label]
    recorded = RECORDED[label]
    if recorded.startswith("ERR "):
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, path, message)
        code, text = f"ERR {caught.value.code()}", repr(caught.value.details())
        if "embedded" in request.node.name and not SAME_TEXT.search(recorded):
            assert recorded.startswith(f"{code} ")
            assert len(text) > 10
        else:
            assert f"{code} {text}" == recorded
        return
    answer, _ = ask(channel, path, message)
    wanted = text_format.Parse(recorded, RESPONSES[path]())
    if label == "metadata m":  # names of tensors inside differ from build to build, and the order of a map is free
        got, theirs = (
            protos.SignatureDefMap.FromString(message.metadata["signature_def"].value) for message in (answer, wanted)
        )
        assert answer.metadata["signature_def"].type_url == wanted.metadata["signature_def"].type_url
        assert described(got) == described(theirs)
        answer.ClearField("metadata")
        wanted.ClearField("metadata")
    assert answer == wanted


def described(signatures: Any) -> Any:
    return {
        name: [
            {alias: (info.dtype, [dim.size for dim in info.tensor_shape.dim]) for alias, info in part.items()}
            for part in (signature.inputs, signature.outputs)
        ]
        for name, signature in signatures.signature_def.items()
    }


def test_a_label_and_its_absence(channel: grpc.Channel) -> None:
    answer, _ = ask(channel, *predict(version_label="stable"))
    assert answer.model_spec.version.value == 1
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: nope"):
        ask(channel, *predict(version_label="nope"))


def test_the_embedded_server_names_itself(channel: grpc.Channel, request: pytest.FixtureRequest) -> None:
    if "real" in request.node.name:
        pytest.skip("the real one does not")
    _, call = ask(channel, *status("m"))
    assert dict(call.initial_metadata())["server"] == NAME
