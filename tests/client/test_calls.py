"""Each call of a client is observed once, whatever becomes of it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from emotion_ai import FaceClient
from emotion_ai.client.calls import FinishedCall
from emotion_ai.client.transport import Prediction
from emotion_ai.contract import EMOTIONS, MEAN_FACE
from emotion_ai.errors import ImageError, NoFaceError, RequestRejectedError, ServerFailureError
from emotion_ai.vision.photo import PORTRAITS, encode_png

CROPS = np.full((40, 96, 96), 77, np.uint8)


@dataclass
class Transport:
    """Answers as version 3 without "serving_full", and fails on pictures of one pixel."""

    closed: int = 0

    def predict(self, signature: str, inputs: Any, outputs: tuple[str, ...]) -> Prediction:
        if signature == "serving_full":
            raise RequestRejectedError(f'400, Serving signature name: "{signature}" not found')
        if inputs and inputs[0] == encode_png(np.zeros((1, 1), np.uint8)):
            raise ServerFailureError("500, broken")
        rows: dict[str, Any] = {
            "keypoints": MEAN_FACE,
            "deviations": np.ones((15, 2)),
            "probabilities": np.full(5, 1 / len(EMOTIONS)),
        }
        return Prediction({name: np.stack([rows[name]] * len(inputs)) for name in outputs}, 3)

    def close(self) -> None:
        self.closed += 1

    metadata = status = close


@dataclass
class Log:
    calls: list[FinishedCall] = field(default_factory=list)
    closed: int = 0

    def __call__(self, call: FinishedCall) -> None:
        self.calls.append(call)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def client(log: Log) -> FaceClient:
    client = FaceClient(label="stable", concurrency=1)
    client._transport = Transport()  # type: ignore[assignment]
    client._observers = (log,)
    return client


def test_a_call_is_observed_with_its_requests_and_result(client: FaceClient, log: Log) -> None:
    readings = client.read_crops(CROPS)
    (call,) = log.calls
    assert (call.method, call.error, call.connection.label) == ("read_crops", None, "stable")
    assert call.result is readings
    assert call.source is CROPS
    assert [(r.signature, r.faces, r.version, type(r.error)) for r in call.requests] == [
        ("serving_full", 32, None, RequestRejectedError),
        ("serving_uncertainty", 32, 3, type(None)),
        ("serving_uncertainty", 8, 3, type(None)),
    ]
    assert 0 < sum(request.seconds for request in call.requests) <= call.seconds


def test_reading_a_photo_is_one_call(client: FaceClient, log: Log) -> None:
    faces = client.read(PORTRAITS[0])
    (call,) = log.calls
    assert (call.method, call.result, call.error) == ("read", faces, None)
    assert [request.faces for request in call.requests if request.error is None] in ([1, 1], [1, 1, 1])


def test_predict_is_observed(client: FaceClient, log: Log) -> None:
    found = client.predict([encode_png(CROPS[0])], "serving_bytes")
    assert [call.method for call in log.calls] == ["predict"]
    assert log.calls[0].result is found


@pytest.mark.parametrize(
    ("method", "source", "error"),
    [
        ("read_crops", np.zeros((1, 1, 1), np.uint8), ServerFailureError),
        ("read_crops", np.zeros((1, 9, 9), np.float32), ImageError),
        ("read", np.zeros((99, 99), np.uint8), NoFaceError),
        ("predict", b"", ImageError),
    ],
)
def test_a_failed_call_is_observed_with_its_error(
    method: str, source: Any, error: type[Exception], client: FaceClient, log: Log
) -> None:
    with pytest.raises(error) as caught:
        getattr(client, method)(source)
    (call,) = log.calls
    assert (call.method, call.result, call.error) == (method, None, caught.value)
    assert call.source is source


def test_observers_are_closed_with_the_client(client: FaceClient, log: Log) -> None:
    with client:
        pass
    assert log.closed == 1
