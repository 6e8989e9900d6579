"""What the page computes and shows, without a browser and without TensorFlow."""

import csv
import io
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from emotion_ai.contract import EMOTIONS, KEYPOINTS, MEAN_FACE, TASKS
from emotion_ai.errors import (
    CheckpointError,
    ConfigError,
    ImageError,
    ModelNotFoundError,
    NoFaceError,
    ServerUnreachableError,
)
from emotion_ai.inference.answer_log import AnswerLog
from emotion_ai.models import bundled, load_network, save_network
from emotion_ai.provenance import RunRecord
from emotion_ai.published import checkpoint_file
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai.vision.photo import PORTRAITS
from emotion_ai.vision.pose import UNKNOWN_POSE, Pose
from emotion_ai.web import backend, render
from emotion_ai.web.backend import ModelSource
from emotion_ai.web.examples import examples
from emotion_ai.web.session import (
    MAX_SHOWN_PX,
    REFRESH_SECONDS,
    ModelSession,
    VersionReadings,
    activation_maps,
    detect,
    differences,
    in_shown_pixels,
    with_own_threshold,
    with_threshold,
)
from emotion_ai.web.store import Store
from emotion_ai.web.version_info import Parity, read_version_info
from tests.web.conftest import start, stop
from tests.web.load import Load

PASSES = 2
"""Requests for predictions per photo: faces are read, cropped again where their keypoints lie, and read again."""

PROBABILITIES = {1: [0.1, 0.1, 0.1, 0.6, 0.1], 2: [0.1, 0.1, 0.4, 0.3, 0.1], 3: [0.1, 0.1, 0.1, 0.6, 0.1]}


class StubServer(ThreadingHTTPServer):
    """Responds as TensorFlow Serving does: version 1 without deviations, version 2 with them and other keypoints,
    version 3, which is not served by default, with a threshold as well.

    Attributes:
        served: the versions, oldest first.
        labels: may be changed.
        requests: what was requested, such as "GET /v1/models/face/metadata".
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.served, self.labels, self.requests = [1, 2], {"stable": 1}, list[str]()


class _Handler(BaseHTTPRequestHandler):
    server: StubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append(f"GET {self.path}")
        if self.path == "/v1/models/face":
            states = [{"version": str(n), "state": "AVAILABLE", "status": {}} for n in reversed(self.server.served)]
            self._respond(200, {"model_version_status": states})
        elif (number := self._number()) is not None:
            names = ["serving_default", "serving_bytes"]
            names += ["serving_uncertainty"] * (number >= 2) + ["serving_full"] * (number == 3)
            signatures = {"signature_def": {name: dict[str, str]() for name in names}}
            spec = {"name": "face", "signature_name": "", "version": str(number)}
            self._respond(200, {"model_spec": spec, "metadata": {"signature_def": signatures}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["signature_name"] == "serving_classes":
            self._respond(400, {"error": 'Serving signature name: "serving_classes" not found in signature def'})
            return
        self.server.requests.append(f"POST {self.path}")
        if (number := self._number()) is None:
            return
        points = np.array(MEAN_FACE)
        points[10] += number
        row: dict[str, Any] = {"keypoints": points.tolist(), "probabilities": PROBABILITIES[number]}
        if body["signature_name"] in ("serving_uncertainty", "serving_full"):
            row["deviations"] = np.ones((15, 2)).tolist()
        if body["signature_name"] == "serving_full":
            row |= {"expressions": PROBABILITIES[number], "uncertain_below": [0.99] * 5, "classes": list(EMOTIONS)}
        self._respond(200, {"predictions": [row] * len(body["instances"])})

    def _number(self) -> int | None:
        """The requested version; None, with an error sent, if the server does not have it."""
        parts = self.path.partition(":")[0].split("/")[4:]
        if parts[:1] == ["labels"]:
            number = self.server.labels.get(parts[1])
            if number is None:
                self._respond(400, {"error": f"Unrecognized servable version label: {parts[1]}"})
            return number
        number = int(parts[1]) if parts[:1] == ["versions"] else self.server.served[-1]
        if number not in self.server.served:
            self._respond(404, {"error": f"Specific(face, {number}) not found"})
            return None
        return number

    def _respond(self, code: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def session(stub: StubServer) -> Iterator[ModelSession]:
    session = ModelSession(f"http://127.0.0.1:{stub.server_port}")
    yield session
    session.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The session's clock, in seconds; its one item may be changed."""
    now = [100.0]
    monkeypatch.setattr("emotion_ai.web.session.time.monotonic", lambda: now[0])
    return now


def test_every_example_shows_faces_and_is_small_enough() -> None:
    counts = {name: len(detect(content).faces) for name, content in examples().items()}
    assert counts == {"Eileen Collins": 1, "Grace Hopper": 1, "Synthetic face": 1, "A group": 4}
    detected = detect(examples()["A group"])
    assert max(detected.rgb.shape) == MAX_SHOWN_PX
    assert detected.scale < 1


def test_a_picture_without_a_face_or_a_damaged_one_is_refused() -> None:
    with pytest.raises(NoFaceError):
        detect(_png(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)))
    for content in (b"", b"no picture", examples()["A group"][:2000]):
        with pytest.raises(ImageError):
            detect(content)


def test_versions_and_labels_can_be_chosen(session: ModelSession) -> None:
    choices = session.choices()
    assert choices == [("newest", "newest"), ("stable (version 1)", "stable"), ("version 2", "2"), ("version 1", "1")]
    detected = detect(examples()["Grace Hopper"])
    assert [session.read(detected, choice).version for _, choice in choices] == [2, 1, 2, 1]
    assert session.read(detected, "1").faces[0].deviations is None, "its version has no such signature"
    deviations = session.read(detected, "2").faces[0].deviations
    assert deviations is not None
    with pytest.raises(ModelNotFoundError):
        session.read(detected, "canary")
    with pytest.raises(ModelNotFoundError):
        session.read(detected, "7")


def test_live_frames_request_predictions_only(session: ModelSession, stub: StubServer, clock: list[float]) -> None:
    detected = detect(examples()["Grace Hopper"])
    for choice in ("newest", "stable", "2"):
        session.read(detected, choice)
        stub.requests.clear()
        for _ in range(3):
            session.read(detected, choice)
        assert {path.partition(":")[2] for path in stub.requests} == {"predict"}
        assert len(stub.requests) == 3 * PASSES


def test_labels_and_the_newest_version_are_followed(
    session: ModelSession, stub: StubServer, clock: list[float]
) -> None:
    detected = detect(examples()["Grace Hopper"])
    stub.served = [1]
    assert [session.read(detected, choice).version for choice in ("newest", "stable")] == [1, 1]
    stub.served, stub.labels = [1, 2], {"stable": 2}
    clock[0] += REFRESH_SECONDS + 0.01
    assert [session.read(detected, choice).version for choice in ("newest", "stable")] == [2, 2]


def test_a_version_that_was_unloaded_is_replaced_at_once(
    session: ModelSession, stub: StubServer, clock: list[float]
) -> None:
    detected = detect(examples()["Grace Hopper"])
    assert session.read(detected, "stable").version == 1
    assert session.read(detected, "1").version == 1
    stub.served, stub.labels = [2], {"stable": 2}
    assert session.read(detected, "stable").version == 2
    with pytest.raises(ModelNotFoundError):
        session.read(detected, "1")


def test_an_unreachable_server_and_a_wrong_address_are_errors() -> None:
    with pytest.raises(ServerUnreachableError) as caught:
        ModelSession("http://127.0.0.1:9").choices()
    assert "The server cannot be reached" in render.error_notice(caught.value)
    with pytest.raises(ConfigError):
        ModelSession("nowhere")


def test_differences_are_of_the_photographs_pixels(session: ModelSession) -> None:
    detected = detect(examples()["Grace Hopper"])
    first, second = session.read(detected, "1"), session.read(detected, "2")
    moved = first.faces[0].points.copy()
    moved[KEYPOINTS.index("nose_tip")] += (3, 4)
    (found,) = differences(first, replace(second, faces=[replace(second.faces[0], points=moved)]))
    assert found.keypoint == "nose_tip"
    assert found.distance == pytest.approx(5, rel=1e-4)
    assert found.mean_distance == pytest.approx(5 / 15, rel=1e-4)
    assert found.emotion in ("Sad", "Happy")
    assert not found.same_emotion
    assert abs(found.probability_change) == pytest.approx(0.3, abs=1e-6)
    shown = render.comparison(detected, first, second, [found])
    assert "nose tip" in shown
    assert "(differs)" in shown
    assert "A and B are both version 1" in render.comparison(detected, first, first, differences(first, first))


def test_a_reading_is_drawn_where_it_is_shown(session: ModelSession) -> None:
    detected = detect(examples()["A group"])
    faces = session.read(detected).faces
    for face, shown in zip(faces, in_shown_pixels(faces, detected.scale), strict=True):
        np.testing.assert_allclose(shown.box.to_photo(face.keypoints), shown.points, atol=1e-3)
        assert shown.deviations is not None
        assert face.deviations is not None
        np.testing.assert_allclose(shown.deviations, face.deviations * detected.scale, rtol=1e-6)


def test_the_table_has_one_row_per_face(session: ModelSession) -> None:
    readings = session.read(detect(examples()["A group"]))
    rows = list(csv.DictReader(io.StringIO(render.table(readings.faces))))
    assert [row["face"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[2]["nose_tip_x"]) == pytest.approx(readings.faces[2].points[KEYPOINTS.index("nose_tip"), 0])
    deviations = readings.faces[0].deviations
    assert deviations is not None
    assert float(rows[0]["nose_tip_y_deviation"]) == pytest.approx(deviations[10, 1])
    assert render.table([]).startswith("face,emotion")


def test_the_threshold_is_the_versions_own(session: ModelSession, stub: StubServer, tmp_path: Path) -> None:
    stub.served.append(3)
    detected = detect(examples()["Grace Hopper"])
    (old,), (new,) = (session.read(detected, number).faces for number in ("1", "3"))
    assert (old.verdict, old.uncertain_below) == ("Happy", 0.0)
    assert (new.verdict, new.uncertain_below) == ("uncertain", 0.99)
    for number in (1, 3):
        file = tmp_path / "face" / str(number) / checkpoint_file("emotion")
        save_network(load_network("bundled", "emotion")[0], file, RunRecord(calibration={"uncertain_below": 0.9}))
    for number, threshold in ((1, 0.9), (3, 0.99)):  # a version that serves none has its checkpoint's
        (face,) = with_own_threshold(session.read(detected, str(number)), tmp_path).faces
        assert face.uncertain_below == threshold
    served = replace(old, class_thresholds=np.array([0.5, 0.5, 0.5, 0, 0.5], np.float32))
    (face,) = with_own_threshold(VersionReadings([served], 1, 0.1), tmp_path).faces
    assert face is served, "a class without a threshold is no version without thresholds"


def test_an_emotion_below_the_threshold_is_uncertain(session: ModelSession) -> None:
    detected = detect(examples()["Grace Hopper"])
    readings = session.read(detected, "1")
    certain, uncertain = (with_threshold(readings, below) for below in (0.5, 0.7))
    assert "Face 1: Happy 60%" in render.result(detected, certain)
    shown = render.result(detected, uncertain, names=True, ellipses=True)
    assert "Face 1: uncertain" in shown
    assert "Happy 60% is below the threshold" in shown
    assert "<summary>pose and quality</summary>" in shown
    points_only = replace(readings.faces[0], probabilities=np.full(len(EMOTIONS), np.nan, np.float32))
    assert "Face 1: points" in render.result(detected, VersionReadings([points_only], 1, 0.1))


def test_a_card_shows_pose_quality_and_the_flags_that_forbid_a_verdict(session: ModelSession) -> None:
    detected = detect(examples()["Grace Hopper"])
    (face,) = with_threshold(session.read(detected, "1"), 0.5).faces
    assert face.quality is not None
    blurred = replace(face.quality, sharpness=0.031, size=27.4)
    doubtful = replace(face, quality=blurred, pose=Pose(-3.4, 51.2), cut=True)
    shown = render.result(detected, VersionReadings([doubtful], 1, 0.1))
    assert "Face 1: uncertain" in shown
    assert "Happy 60% is not reliable: the face is blurred and turned." in shown
    assert "pose and quality: small, blurred, turned, cut" in shown
    for cells in (("roll", "-3°"), ("yaw", "51°"), ("size", "27 px"), ("sharpness", "0.03")):
        assert '<td>{}</td><td class="ea-number">{}</td>'.format(*cells) in shown
    unknown = replace(face, pose=UNKNOWN_POSE, quality=None)
    assert '<td>yaw</td><td class="ea-number">–</td>' in render.result(detected, VersionReadings([unknown], 1, 0.1))


def test_a_turned_face_is_shown_upright_on_its_card(session: ModelSession) -> None:
    turned = io.BytesIO()
    Image.open(PORTRAITS[1]).convert("RGB").transpose(Image.Transpose.ROTATE_90).save(turned, "PNG")
    detected = detect(turned.getvalue())
    (face,) = session.read(detected, "1").faces
    assert face.box.roll == pytest.approx(-90, abs=10)
    upright = detect(PORTRAITS[1].read_bytes())
    (other,) = session.read(upright, "1").faces
    shown, expected = (resize_to_crop(one.crop(found)) for one, found in ((detected, face), (upright, other)))
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.8
    assert np.corrcoef(np.rot90(shown).ravel(), expected.ravel())[0, 1] < 0.5


def test_activation_maps_come_from_the_checkpoint_of_the_version(session: ModelSession, tmp_path: Path) -> None:
    detected = detect(examples()["A group"])
    readings = session.read(detected, "2")
    extra = tmp_path / "face" / "2" / "assets.extra"
    with pytest.raises(CheckpointError, match=r"emotion\.safetensors"):
        activation_maps(tmp_path, detected, readings)
    extra.mkdir(parents=True)
    shutil.copy(bundled("emotion"), extra / "emotion.safetensors")
    maps = activation_maps(tmp_path, detected, readings)
    assert maps.shape == (4, 96, 96)
    assert (maps.max((1, 2)) > 0.9).all()
    assert render.result(detected, readings, maps=maps).count("<figcaption>Activation map for Sad") == 4
    assert "Activation map" not in render.result(detected, readings)


def test_a_large_photo_is_kept_small(session: ModelSession, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = detect(examples()["A group"])
    monkeypatch.setattr("emotion_ai.web.session.MAX_KEPT_PX", whole.gray.size // 3)
    small = detect(examples()["A group"])
    assert small.gray.size <= whole.gray.size // 3
    assert small.nbytes <= small.gray.size * 4
    assert len(small.faces) == len(whole.faces)
    for one, other in zip(session.read(whole).faces, session.read(small).faces, strict=True):
        assert np.abs(one.points - other.points).mean() < 0.05 * one.box.size, "in pixels of the photo"
        assert small.crop(other).shape[0] == pytest.approx(one.box.size * small.gray_scale, rel=0.2)


def test_a_store_keeps_one_value_of_each_owner_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = Store[str](max_bytes=10, seconds=5), [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    store.put("a", "one", 4)
    store.put("a", "two", 4)
    store.put("b", "three", 4)
    assert (store.get("a"), store.get("b"), store.total) == ("two", "three", 8)
    store.put("c", "four", 4)
    assert (store.get("a"), store.get("b"), store.total) == (None, "three", 8), "the oldest gives way"
    store.put("d", "too large", 11)
    assert (store.get("d"), store.total) == (None, 0)
    store.put("e", "five", 4)
    now[0] += 5
    store.drop_expired()
    assert (store.get("e"), store.total) == (None, 0)


def test_memory_stays_flat_while_pictures_are_read(stub: StubServer) -> None:
    site = start("--server", f"http://127.0.0.1:{stub.server_port}")
    Load(site.url, users=4, pause=0.1).run(1.5, site.process.pid)  # threads and buffers reach their size
    load = Load(site.url, users=4, pause=0.1)
    memory = [megabytes for _, megabytes in load.run(2, site.process.pid)]
    assert load.errors == []
    assert load.pictures >= 4
    assert memory[-1] - memory[0] < 60
    stop(site)


def test_messages_are_escaped() -> None:
    assert "<script>" not in render.error_notice(ConfigError("<script>alert(1)</script>"))


def test_damaged_parts_of_a_published_version_are_not_shown(tmp_path: Path) -> None:
    extra = tmp_path / "face" / "3" / "assets.extra"
    extra.mkdir(parents=True)
    (tmp_path / "face" / ".staging").mkdir()
    assert ModelSource("", tmp_path).versions == [3]
    assert ModelSource("", tmp_path / "none").versions == []
    empty = read_version_info(tmp_path, 3)
    assert (empty.card, empty.parity, empty.metrics, empty.uncertain_below) == ("", [], {}, 0.0)
    assert "No parity report" in render.version_report(empty, 3)
    row = {"path": "SavedModel", "servable": "face", "output": "keypoints", "difference": 2e-5, "tolerance": 1e-4}
    (extra / "parity.json").write_text(json.dumps({"rows": [row, {**row, "difference": 3e-5}]}))
    (extra / "MODEL_CARD.md").write_text("# A card")
    info = read_version_info(tmp_path, 3)
    assert info.parity == [Parity("SavedModel", "face", "keypoints", 3e-5, 1e-4)]
    assert info.card == "# A card"
    assert "✓ Parity passed: 2 comparisons" in render.version_report(info, 3)
    (extra / "parity.json").write_text(json.dumps({"rows": [{**row, "difference": 1.0}]}))
    assert "✗ Parity failed" in render.version_report(read_version_info(tmp_path, 3), 3)
    for content in ("[]", "{", '{"rows": 3}', '{"rows": [{"path": "x"}]}'):
        (extra / "parity.json").write_text(content)
        assert read_version_info(tmp_path, 3).parity == []
    (extra / "emotion.safetensors").write_bytes(b"damaged")
    assert read_version_info(tmp_path, 3).metrics == {}


def test_metrics_and_threshold_come_from_the_checkpoints(tmp_path: Path) -> None:
    extra = tmp_path / "face" / "1" / "assets.extra"
    extra.mkdir(parents=True)
    for task in TASKS:
        shutil.copy(bundled(task), extra / f"{task}.safetensors")
    info = read_version_info(tmp_path, 1)
    assert 1 < info.metrics["keypoints rmse"] < 2
    assert 0.5 < info.metrics["emotion accuracy"] < 1
    assert info.uncertain_below == load_network("bundled", "emotion").record.uncertain_below


def test_the_upload_folder_is_private_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with backend.private_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "left").write_text("behind")
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "before"


def _png(rgb: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


def test_answers_are_logged_once_with_their_version(stub: StubServer, tmp_path: Path) -> None:
    detected = detect(examples()["A group"])
    with AnswerLog(tmp_path) as log:
        session = ModelSession(f"http://127.0.0.1:{stub.server_port}", log=log)
        for choice in ("newest", "stable", "1"):
            session.read(detected, choice)
        with pytest.raises(ModelNotFoundError):
            session.read(detected, "7")
        session.close()
    rows = [row for file in tmp_path.iterdir() for row in parquet.read_table(file).to_pylist()]
    assert [(row["version"], row["label"], row["face"]) for row in rows] == [
        (version, label, face) for version, label in ((2, None), (1, "stable"), (1, None)) for face in (1, 2, 3, 4)
    ]
    assert {(row["source"], row["crop"]) for row in rows} == {(None, None)}
