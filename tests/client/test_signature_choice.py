"""Which signature the client requests, whose threshold applies, and how requests are limited."""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emotion_ai.class_set import FIVE, SEVEN, ClassSet
from emotion_ai.client import FaceClient, face_client, request_limits, signatures
from emotion_ai.client.transport import Prediction
from emotion_ai.contract import EMOTIONS, MAX_CROP_PIXELS, MAX_CROP_SIDE, MAX_FACES, Servable, outputs
from emotion_ai.errors import ImageError, RequestRejectedError, ServerFailureError
from emotion_ai.inference import pipeline
from emotion_ai.inference.pipeline import DetectedFace, read_faces
from emotion_ai.vision.crops import Box, shrink
from emotion_ai.vision.photo import encode_png

OLD = ("serving_default", "serving_bytes", "serving_uncertainty")
OLDEST = OLD[:2]
NEW = (*OLD, "serving_full", "serving_classes")
CATS = ("Cat", "Dog", "Über")
CROPS = np.full((3, 96, 96), 77, np.uint8)
REST_TEXT, GRPC_TEXT = (
    'Serving signature name: "{}" not found in signature def',
    'Serving signature key "{}" not found.',
)


@dataclass
class Server:
    """A transport to a server whose version has some signatures and a threshold."""

    signatures: Sequence[str] = NEW
    threshold: float = 0.4
    text: str = REST_TEXT
    classes: tuple[str, ...] = EMOTIONS
    later: list[tuple[str, ...]] = field(default_factory=list)
    requested: list[tuple[str, int]] = field(default_factory=list)

    def predict(self, signature: str, inputs: Any, names: tuple[str, ...]) -> Prediction:
        self.requested.append((signature, len(inputs)))
        if signature not in self.signatures:
            raise RequestRejectedError(f"http://server: 400, {self.text.format(signature)}")
        known = ClassSet.of(self.classes)
        sizes = {"keypoints": (15, 2), "deviations": (15, 2), "probabilities": (known.emotions,)}
        found: dict[str, Any] = {}
        for name in names:
            shape = (len(inputs), *sizes.get(name, (len(known),)))
            found[name] = np.full(shape, 1 / shape[-1], np.float32)
        if "uncertain_below" in found:
            found["uncertain_below"][:] = self.threshold
        if "classes" in found:
            encoded = [name.encode() for name in self.classes]
            found["classes"] = np.array([encoded] * len(inputs), object).reshape(len(inputs), len(known))
        if self.later:  # the label moves
            self.classes = self.later.pop(0)
        if "keypoints" in found and isinstance(inputs, list):
            found["keypoints"][:, 0, 0] = [min(len(file), 280) for file in inputs]
        return Prediction(found)

    def close(self) -> None: ...

    metadata = status = close


def client_of(server: Server, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> FaceClient:
    monkeypatch.setattr(face_client, "open_transport", lambda *_: server)
    return FaceClient(**settings)


def threshold(client: FaceClient) -> float:
    (face,) = read_faces(CROPS[0], [DetectedFace(Box(0, 0, 96), 1.0)], client)
    return face.uncertain_below


@pytest.mark.parametrize("text", [REST_TEXT, GRPC_TEXT])
@pytest.mark.parametrize("settings", [{}, {"version": 1}, {"label": "stable"}], ids=str)
def test_an_old_version_costs_one_request_for_each_connection(
    settings: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(OLDEST, text=text)
    with client_of(server, monkeypatch, **settings) as client:
        for _ in range(5):
            readings = client.read_crops(CROPS)
    assert [name for name, _ in server.requested] == ["serving_full", "serving_uncertainty", *["serving_bytes"] * 5]
    assert readings.deviations is None
    assert readings.expressions is None
    assert readings.uncertain_below is not None
    assert np.isnan(readings.uncertain_below).all()
    assert threshold(client) == 0


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("face", ["serving_full", "serving_uncertainty"]),
        ("keypoints", ["serving_full", "serving_uncertainty"]),
        ("emotion", ["serving_full", "serving_bytes"]),
    ],
)
def test_every_model_falls_back_to_its_fullest_older_signature(
    model: Servable, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(OLD)
    found = client_of(server, monkeypatch, model=model).predict([encode_png(CROPS[0])])
    assert [name for name, _ in server.requested] == names
    assert tuple(found) == outputs(model, names[-1])


def test_a_reload_to_a_newer_version_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("emotion_ai.client.signatures.time.monotonic", lambda: now[0])
    server = Server(OLD)
    client = client_of(server, monkeypatch, label="stable")
    assert threshold(client) == 0
    server.signatures = NEW
    assert threshold(client) == 0, "what a version lacks is remembered for some seconds"
    now[0] += signatures.RECHECK_SECONDS
    assert threshold(client) == 0.4
    server.threshold = 0.7
    assert threshold(client) == 0.7, "a threshold is never remembered"
    server.signatures = OLD
    assert threshold(client) == 0
    server.signatures = OLDEST
    assert client.read_crops(CROPS).deviations is None
    server.signatures = ("serving_full",)
    assert threshold(client) == 0.7, "nothing but the newest is left"


def test_a_given_version_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("emotion_ai.client.signatures.time.monotonic", lambda: now[0])
    server = Server(OLD)
    client = client_of(server, monkeypatch, version=1)
    for _ in range(3):
        client.read_crops(CROPS)
        now[0] += 1000
    assert [name for name, _ in server.requested].count("serving_full") == 1


def test_a_version_that_changes_between_two_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(NEW)
    client = client_of(server, monkeypatch, concurrency=1)
    predict = server.predict

    def reloaded(signature: str, inputs: Any, names: tuple[str, ...]) -> Prediction:
        found = predict(signature, inputs, names)
        server.signatures = OLDEST
        return found

    monkeypatch.setattr(server, "predict", reloaded)
    readings = client.read_crops(np.full((face_client.BATCH + 1, 9, 9), 3, np.uint8))
    assert len(readings.keypoints) == len(readings.probabilities) == face_client.BATCH + 1
    assert readings.deviations is None, "known for one part only"
    assert readings.threshold(0) == 0.4
    assert readings.threshold(face_client.BATCH) == 0, "each answer has the threshold of the version that gave it"


@pytest.mark.parametrize(("given", "applied"), [(None, 0.4), (0.0, 0.0), (0.9, 0.9)])
def test_the_callers_threshold_wins(given: float | None, applied: float, monkeypatch: pytest.MonkeyPatch) -> None:
    assert threshold(client_of(Server(NEW), monkeypatch, uncertain_below=given)) == applied
    assert threshold(client_of(Server(OLD), monkeypatch, uncertain_below=given)) == (given or 0)


def test_other_rejections_are_not_taken_for_an_old_version(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server((), text='Serving signature name: "other" not found in signature def ({})')
    with pytest.raises(RequestRejectedError, match='"other" not found'):
        client_of(server, monkeypatch).read_crops(CROPS)
    assert len(server.requested) == 1
    server = Server(())
    with pytest.raises(RequestRejectedError, match='"serving_bytes" not found'):
        client_of(server, monkeypatch).read_crops(CROPS)


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_threshold_that_is_no_probability_is_a_server_failure(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerFailureError, match="uncertain_below"):
        client_of(Server(threshold=wrong), monkeypatch).read_crops(CROPS)


def test_a_large_batch_is_split_and_joined_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    client = client_of(server, monkeypatch)
    files = [b"x" * size for size in range(1, 2 * MAX_FACES + 2)]
    found = client.predict(files)
    assert [count for _, count in server.requested] == [MAX_FACES, MAX_FACES, 1]
    np.testing.assert_array_equal(found["keypoints"][:, 0, 0], [len(file) for file in files])
    server.requested.clear()
    pixels = client.predict(np.zeros((300, 96, 96, 1), np.float32), "serving_default")
    assert len(pixels["probabilities"]) == sum(count for _, count in server.requested) == 300
    assert max(count for _, count in server.requested) <= MAX_FACES
    server.requested.clear()
    assert client.predict([])["uncertain_below"].shape[0] == 0
    assert len(server.requested) == 1


def test_large_files_are_sent_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "MAX_BYTES", 100)
    server = Server()
    client_of(server, monkeypatch).predict([b"x" * size for size in (60, 40, 1, 500, 99)])
    assert [count for _, count in server.requested] == [2, 1, 1, 1]


def test_a_crop_above_the_limit_is_shrunk_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    server = Server()
    predict = server.predict

    def keep(signature: str, files: Any, names: tuple[str, ...]) -> Prediction:
        sent.extend(files)
        return predict(signature, files, names)

    monkeypatch.setattr(server, "predict", keep)
    large = np.tile(np.arange(240, dtype=np.uint8).repeat(10), (2400, 1))
    client_of(server, monkeypatch).read_crops([large, CROPS[0]])
    first, second = (np.asarray(Image.open(io.BytesIO(file))) for file in sent)
    assert first.size <= MAX_CROP_PIXELS < large.size
    assert abs(first.astype(float).mean() - large.mean()) < 0.5
    np.testing.assert_array_equal(second, CROPS[0])


@pytest.mark.parametrize("size", [(3000, 3000), (1, 5_000_000), (5_000_000, 1), (2048, 2049), (70_000, 3)])
def test_shrunk_pictures_keep_their_shape_below_the_limit(size: tuple[int, int]) -> None:
    found = shrink(np.zeros(size, np.uint8), MAX_CROP_PIXELS, MAX_CROP_SIDE)
    assert 0.95 * MAX_CROP_PIXELS < found.size <= MAX_CROP_PIXELS or max(found.shape) == MAX_CROP_SIDE
    assert found.size <= MAX_CROP_PIXELS
    assert (found.shape[0] > found.shape[1]) == (size[0] > size[1])


def test_a_file_that_claims_more_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    client = client_of(server, monkeypatch)
    for side in (2049, 20_000):
        bomb = bytearray(encode_png(CROPS[0]))
        bomb[16:24] = side.to_bytes(4, "big") * 2
        bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
        with pytest.raises(ImageError, match="file 1: .* at most 4 megapixels, so shrink it"):
            client.predict([encode_png(CROPS[0]), bytes(bomb)])
    assert server.requested == []
    client.predict([b"not a picture"])
    assert len(server.requested) == 1, "the server's own error is kept"


@pytest.mark.parametrize(("classes", "emotions"), [(FIVE.names, 5), (SEVEN.names, 5), (CATS, 3)])
def test_the_classes_come_with_the_answer(
    classes: tuple[str, ...], emotions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(classes=classes)
    client = client_of(server, monkeypatch, label="stable")
    readings = client.read_crops(CROPS)
    assert readings.classes == client.class_names() == classes
    assert readings.expressions is not None
    assert readings.probabilities.shape == (3, emotions)
    assert readings.expressions.shape == (3, len(classes))
    assert readings.uncertain_below is not None
    assert readings.uncertain_below.shape == (3, len(classes))
    (face,) = read_faces(CROPS[0], [DetectedFace(Box(0, 0, 96), 1.0)], client)
    assert list(face.as_dict()["expressions"]) == list(classes)
    assert list(face.as_dict()["probabilities"]) == list(classes[:emotions])
    assert face.emotion == classes[0]
    assert {name for name, _ in server.requested} == {"serving_full", "serving_classes"}


@pytest.mark.parametrize("signature", ["serving_bytes", "serving_uncertainty", "serving_default"])
def test_a_chosen_older_signature_asks_for_the_classes(signature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(classes=CATS)
    readings = client_of(server, monkeypatch, signature=signature).read_crops(CROPS)
    assert (readings.classes, readings.probabilities.shape) == (CATS, (3, 3))
    old = client_of(Server(OLD), monkeypatch, signature=signature).read_crops(CROPS)
    assert (old.classes, old.probabilities.shape) == (EMOTIONS, (3, 5))
    assert client_of(Server(OLD), monkeypatch).class_names() == EMOTIONS


def test_names_belong_to_the_version_that_answered_while_a_label_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = np.full((2 * face_client.BATCH, 96, 96), 77, np.uint8)  # two requests
    moving = Server(classes=SEVEN.names, later=[CATS])
    readings = client_of(moving, monkeypatch, label="stable", concurrency=1).read_crops(crops)
    assert (readings.classes, len(readings.keypoints), readings.probabilities.shape[1]) == (CATS, 64, 3)
    # a signature without names: classes before and after differ, so the answer between them is requested again
    moving = Server(classes=("a", "b", "c"), later=[("a", "b", "c"), CATS])
    readings = client_of(moving, monkeypatch, label="stable", signature="serving_bytes").read_crops(CROPS)
    assert readings.classes == CATS
    restless = Server(classes=CATS, later=[SEVEN.names, CATS] * 9)
    with pytest.raises(ServerFailureError, match="versions of face with different classes answered in turn"):
        client_of(restless, monkeypatch, label="stable", concurrency=1).read_crops(crops)


def test_a_label_that_moves_between_two_passes_over_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(classes=SEVEN.names, later=[SEVEN.names, CATS])
    faces = [DetectedFace(Box(0, 0, 96), 1.0)]
    monkeypatch.setattr(pipeline, "REREAD_TOLERANCE", -1.0)  # always a third pass
    (face,) = read_faces(CROPS[0], faces, client_of(server, monkeypatch, label="stable"))
    assert (face.classes, face.over_classes.shape) == (CATS, (3,))


@pytest.mark.parametrize(
    "classes",
    [
        [["a", "b"], ["b", "a"], ["a", "b"]],
        [["a", "b"]] * 2,
        [["a", "a"]] * 3,
        [["a"]] * 3,
        [["a", 7]] * 3,
        [["a", ""]] * 3,
        [["a", "uncertain"]] * 3,
        [[b"\xff", b"b"]] * 3,
        ["ab"] * 3,
        "ab",
        None,
        7,
    ],
    ids=repr,
)
def test_unusable_classes_are_one_clear_error(classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(classes=("a", "b"))
    plain = server.predict

    def predict(signature: str, inputs: Any, names: tuple[str, ...]) -> Prediction:
        found = plain(signature, inputs, names)
        return Prediction(found.outputs | {"classes": classes})

    server.predict = predict  # type: ignore[method-assign]
    with pytest.raises(ServerFailureError, match="the response of face has no usable classes"):
        client_of(server, monkeypatch).read_crops(CROPS)


def test_as_many_probabilities_as_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(classes=CATS, later=[SEVEN.names, CATS, SEVEN.names, CATS, SEVEN.names, CATS])
    with pytest.raises(ServerFailureError, match="5 probabilities of a face for 3 classes"):
        client_of(server, monkeypatch, signature="serving_bytes").read_crops(CROPS)
