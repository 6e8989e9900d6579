"""The client against a small HTTP server that replays TensorFlow Serving's recorded responses."""

import base64
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from emotion_ai import errors
from emotion_ai.cli.photos import PredictOptions, predict_command
from emotion_ai.client import FaceClient
from emotion_ai.contract import EMOTIONS, outputs

RECORDED = {
    recorded["label"]: recorded
    for recorded in map(
        json.loads, (Path(__file__).parents[1] / "contract" / "reference" / "rest.jsonl").read_text().splitlines()
    )
}


@dataclass
class FakeServer:
    """A server's next responses, of which the last repeats, and the requests that it got."""

    url: str
    responses: list[tuple[int, bytes]] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    connections: int = 0
    handler: Callable[[Any], Any] | None = None
    delay: float = 0.0

    def respond(self, *responses: tuple[int, Any]) -> None:
        self.responses = [
            (status, body if isinstance(body, bytes) else json.dumps(body).encode()) for status, body in responses
        ]

    def replay(self, label: str) -> None:
        self.responses = [(RECORDED[label]["status"], RECORDED[label]["body"].encode())]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two writes: without it each response waits 40 ms

        def setup(self) -> None:
            super().setup()
            fake.connections += 1

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            fake.requests.append((self.command, self.path, body))
            time.sleep(fake.delay)
            if body and body.get("signature_name") == "serving_classes":
                fake.requests.pop()
                text = 'Serving signature name: "serving_classes" not found in signature def'
                status, content = 400, json.dumps({"error": text}).encode()
            elif fake.handler is not None:
                status, content = 200, json.dumps(fake.handler(body)).encode()
            else:
                status, content = fake.responses.pop(0) if len(fake.responses) > 1 else fake.responses[0]
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    fake = FakeServer(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    http.shutdown()
    thread.join()
    http.server_close()


def reading(mean: float) -> dict[str, Any]:
    probabilities = [0.1, 0.2, 0.3, 0.25, 0.15]
    return {
        "keypoints": [[mean, 2.0]] * 15,
        "deviations": [[1.0, 2.0]] * 15,
        "probabilities": probabilities,
        "expressions": probabilities,
        "uncertain_below": [0.4] * 5,
        "classes": list(EMOTIONS),
    }


def probable(first: Any, second: Any) -> dict[str, Any]:
    zero = type(first)(0)
    return {**reading(1.0), "probabilities": [first, second, zero, zero, zero]}


def decoded(body: Any) -> list[np.ndarray]:
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(instance["b64"], validate=True))))
        for instance in body["instances"]
    ]


def by_mean(body: Any) -> Any:
    """Responses that tell which crop they belong to."""
    return {"predictions": [reading(float(image.mean())) for image in decoded(body)]}


def test_a_submission_for_kaggle_by_a_server(server: FakeServer, tmp_path: Path) -> None:
    faces = "".join(f"{i},{' '.join([str(10 * i)] * 9216)}\n" for i in (1, 2, 3))
    (tmp_path / "test.csv").write_text("ImageId,Image\n" + faces)
    (tmp_path / "lookup.csv").write_text("RowId,ImageId,FeatureName\n5,3,nose_tip_x\n6,1,nose_tip_y\n")
    server.handler = by_mean
    files = (tmp_path / "test.csv", tmp_path / "lookup.csv")
    options = PredictOptions(files, server=server.url, version=3, kaggle=True, csv=tmp_path / "s.csv")
    assert predict_command(options) == 0
    assert (tmp_path / "s.csv").read_text() == "RowId,Location\n5,30.0000\n6,2.0000\n"
    assert [path for _, path, _ in server.requests] == ["/v1/models/face/versions/3:predict"]


def test_crops_are_sent_without_loss_and_results_keep_their_order(server: FakeServer) -> None:
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (h, w), np.uint8) for h, w in rng.integers(1, 60, (70, 2))]
    server.handler = by_mean
    with FaceClient(server.url, concurrency=1) as client:
        readings = client.read_crops(crops)
    sent = [image for _, _, body in server.requests for image in decoded(body)]
    assert [len(body["instances"]) for _, _, body in server.requests] == [32, 32, 6]
    assert all(np.array_equal(a, b) for a, b in zip(sent, crops, strict=True))
    assert readings.keypoints.shape == (70, 15, 2)
    assert readings.keypoints.dtype == readings.probabilities.dtype == np.float32
    np.testing.assert_allclose(readings.keypoints[:, 0, 0], [c.mean() for c in crops], rtol=1e-6)
    np.testing.assert_array_equal(readings.probabilities[69], np.array([0.1, 0.2, 0.3, 0.25, 0.15], np.float32))
    assert server.requests[0][:2] == ("POST", "/v1/models/face:predict")
    assert server.requests[0][2]["signature_name"] == "serving_full"
    assert server.connections == 1


def test_no_crops_send_nothing(server: FakeServer) -> None:
    readings = FaceClient(server.url).read_crops([])
    assert readings.keypoints.shape == (0, 15, 2)
    assert readings.probabilities.shape == (0, 5)
    assert server.requests == []


def test_an_array_of_crops_is_read_like_a_list(server: FakeServer) -> None:
    server.handler = by_mean
    crops = np.random.default_rng(1).integers(0, 256, (3, 48, 48), np.uint8)
    np.testing.assert_array_equal(
        FaceClient(server.url).read_crops(crops).keypoints, FaceClient(server.url).read_crops(list(crops)).keypoints
    )


def test_the_default_signature_sends_96x96_pixels(server: FakeServer) -> None:
    server.respond((200, {"predictions": [reading(1.0)]}))
    crop = np.full((20, 30), 77, np.uint8)
    FaceClient(server.url, signature="serving_default").read_crops([crop])
    (_, _, body) = server.requests[0]
    assert body["signature_name"] == "serving_default"
    assert np.array_equal(np.array(body["instances"]), np.full((1, 96, 96, 1), 77.0))


@pytest.mark.parametrize(("model", "missing"), [("keypoints", "probabilities"), ("emotion", "keypoints")])
def test_a_model_of_one_output_leaves_the_other_nan(server: FakeServer, model: Any, missing: str) -> None:
    row = reading(1.0)["keypoints" if model == "keypoints" else "probabilities"]
    full = {name: value for name, value in reading(1.0).items() if name in outputs(model, "serving_full")}
    for signature, answer in (("serving_bytes", row), (None, full)):
        server.respond((200, {"predictions": [answer]}))
        client = FaceClient(server.url, model=model, signature=signature)
        readings = client.read_crops(np.zeros((1, 96, 96), np.uint8))
        assert np.isnan(getattr(readings, missing)).all()
        assert np.isfinite(readings.keypoints).all() != np.isfinite(readings.probabilities).all()


@pytest.mark.parametrize(
    ("choice", "path"), [({"version": 3}, "versions/3"), ({"label": "stable"}, "labels/stable")], ids=str
)
def test_versions_and_labels_are_in_the_path(server: FakeServer, choice: Any, path: str) -> None:
    server.respond((200, {"predictions": [reading(1.0)]}))
    FaceClient(server.url, **choice).read_crops(np.zeros((1, 9, 9), np.uint8))
    assert server.requests[0][1] == f"/v1/models/face/{path}:predict"


def test_status_is_parsed_not_taken_from_the_status_code(server: FakeServer) -> None:
    server.replay("status m")
    client = FaceClient(server.url)
    assert client.versions() == {2: "AVAILABLE", 1: "AVAILABLE"}
    assert client.ready()
    assert not FaceClient(server.url, version=7).ready()
    server.respond((200, {"model_version_status": [{"version": "1", "state": "LOADING", "status": {}}]}))
    assert not client.ready()
    server.replay("status unknown model")
    assert not client.ready()
    with pytest.raises(errors.ModelNotFoundError, match="Could not find any versions of model nope"):
        client.status()


def test_metadata_and_single_requests(server: FakeServer) -> None:
    server.replay("metadata m")
    client = FaceClient(server.url)
    assert "serving_default" in client.metadata()["metadata"]["signature_def"]["signature_def"]
    server.respond((200, {"predictions": [reading(1.0), reading(2.0)]}))
    found = client.predict([b"first", b"second"], "serving_bytes")
    assert {name: value.shape for name, value in found.items()} == {"keypoints": (2, 15, 2), "probabilities": (2, 5)}
    assert all(value.dtype == np.float32 for value in found.values())
    found = client.predict([b"first", b"second"])
    assert found["expressions"].shape == (2, 5)
    assert found["uncertain_below"].shape == (2, 5)
    assert server.requests[-1][2]["instances"] == [{"b64": "Zmlyc3Q="}, {"b64": "c2Vjb25k"}]
    client.predict(np.full((2, 96, 96, 1), 7.5), "serving_default")
    assert np.array(server.requests[-1][2]["instances"]).shape == (2, 96, 96, 1)
    with pytest.raises(errors.ConfigError, match="must be one of serving_default, serving_bytes, serving_unc"):
        client.predict([b""], "serving")


@pytest.mark.parametrize(
    ("label", "error", "text"),
    [
        ("unknown model", errors.ModelNotFoundError, "404, Servable not found for request: Latest(nope)"),
        ("unknown version", errors.ModelNotFoundError, "Servable not found for request: Specific(m, 99)"),
        ("unknown label", errors.ModelNotFoundError, "400, Unrecognized servable version label: zzz"),
        ("bad signature", errors.RequestRejectedError, '400, Serving signature name: "nosig" not found'),
        ("bytes bad base64", errors.RequestRejectedError, "Unable to base64 decode"),
        ("huge version", errors.ServerFailureError, "400 without JSON"),
        ("root", errors.ServerFailureError, "404 without JSON"),
        ("types overflow", errors.ServerFailureError, "the response of face lacks keypoints and probabilities"),
    ],
)
def test_errors_keep_the_servers_text(server: FakeServer, label: str, error: type[Exception], text: str) -> None:
    server.replay(label)
    with pytest.raises(error) as caught:
        FaceClient(server.url).read_crops(np.zeros((1, 9, 9), np.uint8))
    assert text in str(caught.value)
    assert "\n" not in text
    assert len(server.requests) == 1  # a rejected request is not repeated


def test_a_busy_server_is_retried(server: FakeServer) -> None:
    server.respond((503, {"error": "busy"}), (503, {"error": "busy"}), (200, {"predictions": [reading(1.0)]}))
    assert len(FaceClient(server.url).read_crops(np.zeros((1, 9, 9), np.uint8)).keypoints) == 1
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_fails_with_its_text(server: FakeServer) -> None:
    server.respond((503, {"error": "too many requests are pending"}))
    with pytest.raises(errors.ServerFailureError, match="503, too many requests are pending"):
        FaceClient(server.url, retries=1).read_crops(np.zeros((1, 9, 9), np.uint8))
    assert len(server.requests) == 2


def test_a_slow_server_is_a_timeout_and_is_not_retried(server: FakeServer) -> None:
    server.delay = 1.0
    server.respond((200, {}))
    with pytest.raises(errors.ServerTimeoutError, match=r"no answer within 0\.2 s"):
        FaceClient(server.url, timeout=(1.0, 0.2)).metadata()
    assert len(server.requests) == 1


def test_one_timeout_is_for_connecting_and_reading() -> None:
    assert FaceClient(timeout=5).connection.timeout == (5, 5)
    assert FaceClient(timeout=(1, 2)).connection.timeout == (1, 2)


def test_no_server_is_one_line(server: FakeServer) -> None:
    with pytest.raises(errors.ServerUnreachableError, match="no server answers; start one with: emotion-ai serve"):
        FaceClient("http://127.0.0.1:1", retries=0).metadata()
    assert not FaceClient("http://127.0.0.1:1", retries=0).ready()
    with pytest.raises(errors.ServerUnreachableError):
        FaceClient("http://no-such-host.invalid:8501", retries=0).metadata()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>hello</html>", "without JSON"),
        (b"\xff\xfe\x00", "without JSON"),
        (b"", "without JSON"),
        ([1, 2], "200"),
        ({"outputs": []}, "no predictions for 1 instances"),
        ({"predictions": "x"}, "no predictions for 1 instances"),
        ({"predictions": []}, "0 predictions for 1 instances"),
        ({"predictions": [reading(1.0), reading(1.0)]}, "2 predictions for 1 instances"),
        ({"predictions": [None]}, "the response of face lacks"),
        ({"predictions": [{"keypoints": [[1.0, 2.0]] * 15}]}, "the response of face lacks"),
        (
            {"predictions": [{**reading(1.0), "keypoints": [[1.0, 2.0]] * 14}]},
            r"\(1, 15, 2\), got \(1, 14, 2\)",
        ),
        ({"predictions": [{**reading(1.0), "keypoints": [[1.0, 2.0], [1.0]]}]}, "the response of face lacks"),
        ({"predictions": [{**reading(1.0), "probabilities": ["a"] * 5}]}, "the response of face lacks"),
        ({"predictions": [{**reading(1.0), "probabilities": [None] * 5}]}, "NaN or infinite"),
        ({"predictions": [reading(float("nan"))]}, "keypoints contains NaN or infinite values"),
        ({"predictions": [reading(1e39)]}, "keypoints contains NaN or infinite values"),
        ({"predictions": [reading(10**400)]}, "the response of face lacks keypoints"),
        (
            {"predictions": [reading(-193.0)]},
            "keypoints lie from -193 to 2 in pixels of the 96x96 crop, outside -192",
        ),
        ({"predictions": [reading(289.0)]}, "to 289 in pixels of the 96x96 crop, outside -192 to 288; the model is"),
        ({"predictions": [probable(1.2, -0.2)]}, r"probabilities must be between 0 and 1, got -0\.2 to 1\.2"),
        ({"predictions": [probable(0.5, 0.2)]}, r"probabilities of a face must sum to 1, got 0\.7"),
        ({"predictions": [probable(0.0, 0.0)]}, "probabilities of a face must sum to 1, got 0;"),
        ({"predictions": [probable("0.5", "0.5")]}, "the response of face lacks probabilities"),
        ({"predictions": [probable(True, False)]}, "the response of face lacks probabilities"),
    ],
)
def test_a_response_that_breaks_the_contract_is_a_server_failure(server: FakeServer, body: Any, text: str) -> None:
    server.respond((200, body))
    with pytest.raises(errors.ServerFailureError, match=text):
        FaceClient(server.url).read_crops(np.zeros((1, 9, 9), np.uint8))


def test_negative_standard_deviations_are_a_server_failure(server: FakeServer) -> None:
    spread = np.full((15, 2), 3.0)
    client = FaceClient(server.url, signature="serving_uncertainty")
    server.respond((200, {"predictions": [{**reading(1.0), "deviations": spread.tolist()}]}))
    assert client.read_crops(np.zeros((1, 9, 9), np.uint8)).deviations is not None
    spread[7, 1] = -0.25
    server.respond((200, {"predictions": [{**reading(1.0), "deviations": spread.tolist()}]}))
    with pytest.raises(errors.ServerFailureError, match=r"deviations must not be negative, got -0\.25"):
        client.read_crops(np.zeros((1, 9, 9), np.uint8))


@pytest.mark.parametrize(
    "crop",
    [
        np.zeros((9, 9), np.float32),
        np.zeros((9, 9, 3), np.uint8),
        np.zeros((0, 9), np.uint8),
        np.zeros(9, np.uint8),
        "face.png",
        None,
    ],
    ids=str,
)
def test_a_crop_that_is_not_gray_is_an_error_before_anything_is_sent(server: FakeServer, crop: Any) -> None:
    with pytest.raises(errors.ImageError, match=r"crop 1 must be gray, uint8 \(H, W\), got"):
        FaceClient(server.url).read_crops([np.zeros((9, 9), np.uint8), crop])
    assert server.requests == []


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "127.0.0.1:8501"},
        {"url": "localhost"},
        {"url": "http://"},
        {"url": "http://host:port"},
        {"url": "file:///etc"},
        {"model": "faces"},
        {"version": 1, "label": "stable"},
        {"label": "a/b"},
        {"signature": "nosig"},
        {"timeout": 0},
        {"timeout": (3.0, -1.0)},
        {"timeout": (1.0, float("inf"))},
        {"retries": -1},
        {"uncertain_below": 1.5},
    ],
    ids=str,
)
def test_invalid_settings_are_errors(settings: Any) -> None:
    with pytest.raises(errors.ConfigError):
        FaceClient(**settings)


def test_a_given_session_is_used_unchanged_and_left_open(server: FakeServer) -> None:
    server.respond((200, {"predictions": [reading(1.0)]}))
    with requests.Session() as session:
        session.headers["x-who"] = "me"
        adapters = dict(session.adapters)
        with FaceClient(server.url, session=session) as client:
            client.read_crops(np.zeros((1, 9, 9), np.uint8))
        assert session.adapters == adapters
        assert session.get(server.url).status_code == 200


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectionError("x"),
        requests.Timeout("x"),
        requests.TooManyRedirects("x"),
        requests.exceptions.ChunkedEncodingError("x"),
        requests.exceptions.ContentDecodingError("x"),
        requests.exceptions.SSLError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_requests_become_ours(error: Exception) -> None:
    class Failing(requests.Session):
        def request(self, *_: Any, **__: Any) -> Any:
            raise error

    with pytest.raises(errors.ClientError):
        FaceClient(session=Failing()).metadata()


def test_the_client_needs_neither_torch_nor_tensorflow_nor_pandas() -> None:
    code = "import sys, emotion_ai.client; print({'torch', 'tensorflow', 'pandas'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
