"""Both clients against a running server, the load benchmark, and fuzzing."""

import base64
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
import requests
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emotion_ai.client import FaceClient, protos
from emotion_ai.errors import (
    ModelNotFoundError,
    RequestRejectedError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.bench import load
from emotion_ai_export.convert.parity_cases import picture_files
from emotion_ai_export.serving.launch import Addresses

CROPS = np.random.default_rng(0).integers(0, 256, (35, 96, 96), np.uint8)
PATHS = ["rest", "grpc"]


@pytest.fixture(params=PATHS)
def address(request: pytest.FixtureRequest, live: Addresses) -> str:
    return str(getattr(live, request.param))


@pytest.mark.parametrize("signature", ["serving_bytes", "serving_default", "serving_uncertainty", None])
def test_predictions_equal_the_networks(address: str, signature: str | None, networks: dict[Any, Any]) -> None:
    with torch.inference_mode():
        images = torch.from_numpy(CROPS)[:, None]
        keypoints, deviations = (part.numpy() for part in networks["keypoints"].uncertainty(images))
        probabilities, expressions = (part.numpy() for part in networks["emotion"].classified(images))
    with FaceClient(address, version=1, signature=signature) as client:
        readings = client.read_crops(CROPS)
    np.testing.assert_allclose(readings.keypoints, keypoints, atol=1e-4)
    np.testing.assert_allclose(readings.probabilities, probabilities, atol=1e-5)
    if signature is None:
        assert readings.expressions is not None
        np.testing.assert_allclose(readings.expressions, expressions, atol=1e-5)
    if signature in ("serving_uncertainty", None):
        assert readings.deviations is not None
        np.testing.assert_allclose(readings.deviations, deviations, atol=1e-4)
    else:
        assert readings.deviations is None


def test_crops_of_any_size_are_accepted(address: str) -> None:
    odd = [CROPS[0][:, :50], CROPS[1][:30]]
    assert np.isnan(FaceClient(address, model="emotion").read_crops(odd).keypoints).all()
    alone, together = (FaceClient(address, model=model).read_crops(odd) for model in ("keypoints", "face"))
    np.testing.assert_allclose(alone.keypoints, together.keypoints, atol=1e-4)


def test_errors_are_the_same_over_rest_and_grpc(address: str) -> None:
    with pytest.raises(ModelNotFoundError, match="Specific\\(face, 2\\)"):
        FaceClient(address, version=2).read_crops(CROPS[:1])
    with pytest.raises(ModelNotFoundError, match="Unrecognized servable version label: stable"):
        FaceClient(address, label="stable").read_crops(CROPS[:1])
    with pytest.raises(RequestRejectedError, match="neither a PNG nor a JPEG"):
        FaceClient(address).predict([b"not a picture"])
    with pytest.raises(ServerTimeoutError, match="no answer within 0.001 s"):
        FaceClient(address, timeout=(3.0, 0.001), retries=0).predict(
            np.zeros((64, 96, 96, 1), np.float32), "serving_default"
        )


@pytest.mark.parametrize(
    "shape",
    [(), (3,), (3, 1), (96, 96), (1, 96, 96), (1, 48, 48, 1), (1, 96, 96, 3), (1, 1, 96, 96), (1, 1, 96, 96, 1)],
)
def test_pixels_of_another_shape_are_rejected(live: Addresses, shape: tuple[int, ...]) -> None:
    images = np.zeros(shape, np.float32)
    for model in ("keypoints", "emotion", "face"):
        body = {"inputs": images.tolist()}
        answer = requests.post(f"{live.rest}/v1/models/{model}:predict", json=body, timeout=30)
        assert answer.status_code == 400, answer.text
        request = protos.PredictRequest(model_spec={"name": model})
        request.inputs["images"].CopyFrom(protos.tensor(images))
        with (
            grpc.insecure_channel(live.grpc.removeprefix("grpc://")) as channel,
            pytest.raises(grpc.RpcError) as caught,
        ):
            channel.unary_unary(protos.PREDICT)(request.SerializeToString(), timeout=30)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert FaceClient(live.rest).ready()


def test_a_small_message_that_claims_many_faces_is_rejected(live: Addresses) -> None:
    request = protos.PredictRequest(model_spec={"name": "face"})
    request.inputs["images"].dtype = 1
    request.inputs["images"].float_val.append(7)  # repeated for the whole shape
    with grpc.insecure_channel(live.grpc.removeprefix("grpc://")) as channel:
        for shape in ((2000, 96, 96, 1), (0, 96, 96, 1), (2**40, 96, 96, 1), (-1, 96, 96, 1), (1,) * 300):
            del request.inputs["images"].tensor_shape.dim[:]
            for size in shape:
                request.inputs["images"].tensor_shape.dim.add(size=size)
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(protos.PREDICT)(request.SerializeToString(), timeout=30)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, shape
            if shape[0] in (2000, 0):
                assert "a request must hold 1 to" in str(caught.value.details())
    assert FaceClient(live.rest).ready()


def test_an_empty_batch_is_accepted_or_rejected(live: Addresses) -> None:
    with FaceClient(live.grpc) as client:
        try:
            assert client.predict(np.zeros((0, 96, 96, 1), np.float32), "serving_default")["keypoints"].shape == (
                0,
                15,
                2,
            )
        except RequestRejectedError:
            assert client.ready()


def test_status_and_metadata_are_the_same_over_rest_and_grpc(live: Addresses) -> None:
    rest, rpc = (FaceClient(address) for address in live)
    assert rest.ready()
    assert rpc.ready()
    assert not any(FaceClient(address, label="nobody_moved_me").ready() for address in live)
    assert rest.status() == rpc.status()
    theirs, ours = (client.metadata()["metadata"]["signature_def"]["signature_def"] for client in (rest, rpc))
    assert theirs.keys() == ours.keys() >= {"serving_default", "serving_bytes"}
    for name in ("serving_default", "serving_bytes"):
        for part in ("inputs", "outputs"):
            assert theirs[name][part] == ours[name][part]
    assert rest.metadata()["model_spec"]["version"] == rpc.metadata()["model_spec"]["version"] == "1"


def test_large_responses_over_grpc(live: Addresses) -> None:
    """gRPC limits a client to 4 MB by default. 64 faces stay far below, so this sends many."""
    with FaceClient(live.grpc, model="keypoints") as client:
        frames = np.zeros((400, 96, 96, 1), np.float32)
        assert client.predict(frames, "serving_default")["keypoints"].shape == (400, 15, 2)


def test_no_server_is_a_clear_error() -> None:
    with pytest.raises(ServerUnreachableError, match="no server answers"):
        FaceClient("grpc://127.0.0.1:9", retries=0).status()


def test_the_load_is_measured_for_every_encoding(
    live: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--server", live.rest, "--grpc", live.grpc, "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["load", *places, "--clients", "1", "3", "--seconds", "0.15", "--rounds", "2"])
    load.main()
    loads = json.loads((tmp_path / "load.json").read_text())["loads"]
    assert [(row["encoding"], row["clients"]) for row in loads] == [
        (encoding, clients)
        for clients in (1, 3)
        for encoding in ("REST, JSON integers", "REST, base64 PNG", "REST, base64 JPEG", "gRPC, pixels", "gRPC, JPEG")
    ]
    assert all(row["requests"] > 0 and row["failed"] == 0 and row["p50"] <= row["p99"] for row in loads)
    size = {row["encoding"]: row["bytes"] for row in loads}
    assert size["REST, base64 JPEG"] * 10 <= size["REST, JSON integers"]
    assert (tmp_path / "load.png").read_bytes()[:4] == b"\x89PNG"
    assert "base64 JPEG" in capsys.readouterr().out


FUZZED = 2000
FILES = list(picture_files().values())[:8] + [encode_png(CROPS[0])]
GOOD = [
    {"signature_name": "serving_bytes", "instances": [{"b64": base64.b64encode(FILES[-1]).decode()}]},
    {"instances": CROPS[:1, ..., None].tolist()},
    {"inputs": {"images": CROPS[:1, ..., None].tolist()}},
]
DOCUMENTED = {200, 400, 404, 405, 413, 429, 431, 501, 503}


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Cut, with a flipped byte, or with bytes inserted."""
    place = st.integers(0, max(len(content) - 1, 0))
    flip = st.tuples(place, st.integers(0, 255)).map(lambda t: content[: t[0]] + bytes([t[1]]) + content[t[0] + 1 :])
    cut = place.map(lambda i: content[:i])
    added = st.tuples(place, st.binary(max_size=20)).map(lambda t: content[: t[0]] + t[1] + content[t[0] :])
    return st.one_of(flip, cut, added)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["b64", "images", "x"]), inner),
)
bodies = st.one_of(
    st.sampled_from(GOOD).map(json.dumps).map(str.encode).flatmap(damaged),
    st.sampled_from(FILES).flatmap(damaged).map(
        lambda file: json.dumps(
            {"signature_name": "serving_bytes", "instances": [{"b64": base64.b64encode(file).decode()}]}
        ).encode()
    ),
    st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name"]), json_values).map(json.dumps).map(
        str.encode
    ),
    st.binary(max_size=60),
)  # fmt: skip
paths = st.one_of(
    st.sampled_from(["face", "emotion", "keypoints"]).map(lambda model: f"/v1/models/{model}:predict"),
    st.sampled_from(["/v1/models/face", "/v1/models/face/metadata", "/v1/models/face/versions/1:predict", "/"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map(lambda text: "/v1/models/" + text),
)
requests_ = st.tuples(st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "HEAD"]), paths, bodies)
raw = st.one_of(
    st.binary(max_size=200),
    st.just(b"POST /v1/models/face:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{}").flatmap(damaged),
    st.just(
        b"POST /v1/models/face:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    ).flatmap(damaged),
)
messages = st.sampled_from(FILES).flatmap(lambda file: damaged(rpc_request(file)))


def rpc_request(file: bytes) -> bytes:
    request = protos.PredictRequest(model_spec={"name": "face", "signature_name": "serving_bytes"})
    request.inputs["image_bytes"].CopyFrom(protos.tensor([file]))
    return bytes(request.SerializeToString())


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def embedded_process(rest: str) -> int:
    port = f"--rest-port={urlsplit(rest).port}"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and port in (entry / "cmdline").read_text(errors="replace").split("\0"):
            return int(entry.name)
    raise AssertionError("the server's process is not there")


def test_fuzzing_neither_crashes_nor_grows_the_server(live: Addresses, request: pytest.FixtureRequest) -> None:
    if "embedded" not in request.node.name:
        pytest.skip("TensorFlow Serving's own makers fuzz it")
    pid, place = embedded_process(live.rest), urlsplit(live.rest)
    session = requests.Session()
    channel = grpc.insecure_channel(live.grpc.removeprefix("grpc://"))
    predict = channel.unary_unary(protos.PREDICT)
    seen: dict[str, int] = {}
    everything: list[Any] = []

    def over_http(method: str, path: str, body: bytes) -> None:
        answer = session.request(method, live.rest + path, data=body, timeout=30)
        assert answer.status_code in DOCUMENTED, (method, path, body, answer.text)
        seen[str(answer.status_code)] = seen.get(str(answer.status_code), 0) + 1

    def over_a_socket(content: bytes) -> None:
        with socket.create_connection((str(place.hostname), int(place.port or 0)), timeout=30) as connection:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(100)
        assert not answer or int(answer.split()[1]) in DOCUMENTED, (content, answer)
        seen["raw"] = seen.get("raw", 0) + 1

    def over_grpc(content: bytes) -> None:
        answer = predict.future(content, timeout=30)
        code = answer.code().name
        # what is no message at all is INTERNAL to gRPC itself
        assert code in {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL"}, (content, code)
        seen[code] = seen.get(code, 0) + 1

    def ask(asked: Any) -> None:
        if isinstance(asked, bytes):
            over_a_socket(asked)
        elif len(asked) == 1:
            over_grpc(*asked)
        else:
            over_http(*asked)

    @settings(max_examples=FUZZED, database=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(requests_, requests_, raw, messages.map(lambda message: (message,))))
    def fuzz(asked: Any) -> None:
        everything.append(asked)
        ask(asked)

    with session, channel:
        fuzz()
        size = resident(pid)
        for asked in everything:  # the same again: what a first large request takes is there by now, a leak goes on
            ask(asked)
    assert sum(seen.values()) >= 2 * FUZZED
    assert {"200", "400", "404", "raw", "OK", "INVALID_ARGUMENT"} <= seen.keys(), seen
    assert resident(pid) - size < 32 * 2**20, "the server has grown"
    assert embedded_process(live.rest) == pid
    with FaceClient(live.rest) as client:
        assert client.read_crops(CROPS[:2]).keypoints.shape == (2, 15, 2)
