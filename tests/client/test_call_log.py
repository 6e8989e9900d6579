"""`FaceClient(log=...)`: each call is a row per face, and no trouble of the log reaches it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from emotion_ai import AsyncFaceClient, FaceClient
from emotion_ai.client import call_log
from emotion_ai.client.call_log import CallLog
from emotion_ai.client.transport import Connection, Prediction
from emotion_ai.contract import EMOTIONS, MEAN_FACE
from emotion_ai.errors import ConfigError, NoFaceError, ServerFailureError
from emotion_ai.inference.answer_log import AnswerLog
from emotion_ai.vision.crops import crop
from emotion_ai.vision.photo import PORTRAITS, encode_png, load_photo

CROPS = np.full((3, 48, 60), 77, np.uint8)
ROW: dict[str, Any] = {
    "keypoints": MEAN_FACE,
    "deviations": np.ones((15, 2)),
    "probabilities": [0.1, 0, 0, 0.9, 0],
    "classes": EMOTIONS,
}


@dataclass
class Transport:
    """A server: `version` is in its responses as over gRPC, `newest` in its metadata."""

    version: int | None = 3
    newest: int = 4
    down: bool = False
    asked: list[Connection] = field(default_factory=list)

    def predict(self, signature: str, inputs: Any, outputs: tuple[str, ...]) -> Prediction:
        if self.down:
            raise ServerFailureError("500, broken")
        return Prediction({name: np.stack([ROW[name]] * len(inputs)) for name in outputs}, self.version)

    def metadata(self) -> dict[str, Any]:
        return {"model_spec": {"version": str(self.newest)}}

    def close(self) -> None: ...


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def client(tmp_path: Path, transport: Transport) -> Iterator[FaceClient]:
    with FaceClient(label="stable", signature="serving_uncertainty", log=tmp_path / "log") as client:
        client._transport = transport  # type: ignore[assignment]
        observer = client._observers[0]
        assert isinstance(observer, CallLog)

        def connect(connection: Connection) -> Any:
            transport.asked.append(connection)
            return transport

        observer._connect = connect
        yield client


def logged(client: FaceClient) -> list[dict[str, Any]]:
    client.close()
    observer = client._observers[0]
    assert isinstance(observer, CallLog)
    return [row for file in sorted(observer.log.folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_crops_are_logged(client: FaceClient) -> None:
    readings = client.read_crops(CROPS)
    rows = logged(client)
    assert [row["face"] for row in rows] == [1, 2, 3]
    row = rows[0]
    assert (row["model"], row["version"], row["label"], row["source"]) == ("face", 3, "stable", None)
    assert (row["emotion"], row["size"], row["brightness"], row["left"]) == ("Happy", 48, 77, None)
    assert row["probabilities"] == readings.probabilities[0].tolist()
    assert row["deviations"] == [1] * 30
    assert 0 < row["requests_ms"] <= row["latency_ms"]


def test_a_photo_is_logged_once_with_its_name_and_boxes(client: FaceClient) -> None:
    (face,) = client.read(PORTRAITS[0])
    (row,) = logged(client)
    assert row["source"] == str(PORTRAITS[0])
    assert (row["left"], row["top"], row["size"]) == (face.box.left, face.box.top, face.box.size)
    assert (row["roll"], row["yaw"]) == pytest.approx((face.box.roll, face.yaw))
    assert row["deviations"] == pytest.approx([1] * 30, rel=1e-3)  # pixels of the crop
    assert face.quality
    assert (row["brightness"], row["sharpness"]) == pytest.approx((face.quality.brightness, face.quality.sharpness))


def test_an_asyncio_client_logs_as_well(tmp_path: Path, transport: Transport) -> None:
    async def read() -> None:
        async with AsyncFaceClient(signature="serving_uncertainty", log=tmp_path) as client:
            client._client._transport = transport  # type: ignore[assignment]
            await asyncio.gather(*(client.read_crops(CROPS) for _ in range(5)))

    asyncio.run(read())
    assert [row["face"] for file in tmp_path.iterdir() for row in pq.read_table(file).to_pylist()].count(3) == 5


def test_predict_is_logged(client: FaceClient) -> None:
    client.predict([encode_png(image) for image in CROPS])
    client.predict(np.full((2, 96, 96, 1), 12.0, np.float32), "serving_default")
    assert [(row["emotion"], row["size"], row["brightness"]) for row in logged(client)] == [
        *[("Happy", None, None)] * 3,
        *[("Happy", 96, 12)] * 2,
    ]


def test_failures_and_photos_without_a_face_are_logged(client: FaceClient, transport: Transport) -> None:
    with pytest.raises(NoFaceError):
        client.read(np.zeros((99, 99), np.uint8))
    transport.down = True
    with pytest.raises(ServerFailureError):
        client.read_crops(CROPS)
    assert [(row["face"], row["error"]) for row in logged(client)] == [(None, None), (None, "500, broken")]


def test_the_version_behind_a_label_is_asked_for_over_rest(client: FaceClient, transport: Transport) -> None:
    transport.version = None
    client.read_crops(CROPS)
    assert [row["version"] for row in logged(client)] == [4, 4, 4]
    assert transport.asked[0].timeout == (call_log.LOOKUP_SECONDS, call_log.LOOKUP_SECONDS)
    assert transport.asked[0].label == "stable"


def test_an_answer_that_names_its_version_needs_no_question(client: FaceClient, transport: Transport) -> None:
    client.read_crops(CROPS)
    client.close()
    assert not transport.asked


def test_nothing_that_goes_wrong_with_the_log_reaches_a_call(
    client: FaceClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(call_log, "Answer", None)
    for _ in range(3):
        client.read_crops(CROPS)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_folder_that_cannot_be_used_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="answers cannot be logged there"):
        FaceClient(log=tmp_path / "file")


def test_pixels_are_kept_when_asked_for(tmp_path: Path, transport: Transport) -> None:
    with AnswerLog(tmp_path, crops=True) as log:
        for _ in range(2):  # closing a client leaves a log that it was given open
            with FaceClient(signature="serving_uncertainty", log=log) as client:
                client._transport = transport  # type: ignore[assignment]
                client.read_crops(CROPS[:1])
                (face,) = client.read(PORTRAITS[0])
    rows = [row for file in tmp_path.iterdir() for row in pq.read_table(file).to_pylist()]
    photo = crop(load_photo(PORTRAITS[0]).gray, face.box)
    assert sorted(row["crop"] for row in rows) == sorted([encode_png(CROPS[0]), encode_png(photo)] * 2)
