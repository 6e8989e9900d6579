"""What the page computes and says, without a browser and without TensorFlow."""

import csv
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from emotion_ai.contract import EMOTIONS, KEYPOINTS, MEAN_FACE
from emotion_ai.errors import (
    CheckpointError,
    ConfigError,
    ExportError,
    ImageError,
    ModelNotFoundError,
    NoFaceError,
    ServerUnreachableError,
)
from emotion_ai.models import bundled
from emotion_ai.web import command, show
from emotion_ai.web.examples import examples
from emotion_ai.web.session import (
    SHOWN,
    Answer,
    ModelSession,
    differences,
    in_shown_pixels,
    judged,
    look,
    maps_of,
    published,
    published_versions,
)

LABELS = {"stable": 1}
PROBABILITIES = {1: [0.1, 0.1, 0.1, 0.6, 0.1], 2: [0.1, 0.1, 0.4, 0.3, 0.1]}


class Serving(BaseHTTPRequestHandler):
    """As TensorFlow Serving answers: version 1 without deviations, version 2 with them and other points."""

    def do_GET(self) -> None:
        if self.path == "/v1/models/face":
            states = [{"version": str(n), "state": "AVAILABLE", "status": {}} for n in (2, 1)]
            self._say(200, {"model_version_status": states})
        elif (number := self._number()) is None:
            self._say(400, {"error": "Unrecognized servable version label: canary"})
        elif number not in PROBABILITIES:
            self._say(404, {"error": f"Specific(face, {number}) not found"})
        else:
            names = ["serving_default", "serving_bytes", *["serving_uncertainty"] * (number == 2)]
            signatures = {"signature_def": {name: {} for name in names}}
            spec = {"name": "face", "signature_name": "", "version": str(number)}
            self._say(200, {"model_spec": spec, "metadata": {"signature_def": signatures}})

    def do_POST(self) -> None:
        number = self._number() or 0
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        points = np.array(MEAN_FACE)
        points[10] += number
        row = {"keypoints": points.tolist(), "probabilities": PROBABILITIES[number]}
        if body["signature_name"] == "serving_uncertainty":
            row["deviations"] = np.ones((15, 2)).tolist()
        self._say(200, {"predictions": [row] * len(body["instances"])})

    def _number(self) -> int | None:
        parts = self.path.partition(":")[0].split("/")[4:]
        if parts[:1] == ["labels"]:
            return LABELS.get(parts[1])
        return int(parts[1]) if parts[:1] == ["versions"] else 2

    def _say(self, code: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def asker() -> Iterator[ModelSession]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Serving) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asker = ModelSession(f"http://127.0.0.1:{server.server_port}")
        yield asker
        asker.close()
        server.shutdown()


def test_every_example_shows_faces_and_is_small_enough() -> None:
    counts = {name: len(look(content).faces) for name, content in examples().items()}
    assert counts == {"Eileen Collins": 1, "Grace Hopper": 1, "A drawn face": 1, "A group": 4}
    sighting = look(examples()["A group"])
    assert max(sighting.rgb.shape) == SHOWN
    assert sighting.scale < 1


def test_what_shows_no_face_or_is_no_picture_is_refused() -> None:
    with pytest.raises(NoFaceError):
        look(_png(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)))
    for content in (b"", b"no picture", examples()["A group"][:2000]):
        with pytest.raises(ImageError):
            look(content)


def test_versions_and_labels_can_be_chosen(asker: ModelSession) -> None:
    choices = asker.choices()
    assert choices == [("newest", "newest"), ("stable (version 1)", "stable"), ("version 2", "2"), ("version 1", "1")]
    sighting = look(examples()["Grace Hopper"])
    assert [asker.ask(sighting, choice).version for _, choice in choices] == [2, 1, 2, 1]
    assert asker.ask(sighting, "1").faces[0].deviations is None, "its version has no such signature"
    deviations = asker.ask(sighting, "2").faces[0].deviations
    assert deviations is not None
    with pytest.raises(ModelNotFoundError):
        asker.ask(sighting, "canary")
    with pytest.raises(ModelNotFoundError):
        asker.ask(sighting, "7")


def test_nothing_there_is_said_so() -> None:
    with pytest.raises(ServerUnreachableError) as caught:
        ModelSession("http://127.0.0.1:9").choices()
    assert "The server is gone" in show.error(caught.value)
    with pytest.raises(ConfigError):
        ModelSession("nowhere")


def test_differences_are_of_the_photographs_pixels(asker: ModelSession) -> None:
    sighting = look(examples()["Grace Hopper"])
    first, second = asker.ask(sighting, "1"), asker.ask(sighting, "2")
    moved = first.faces[0].points.copy()
    moved[KEYPOINTS.index("nose_tip")] += (3, 4)
    (found,) = differences(first, replace(second, faces=[replace(second.faces[0], points=moved)]))
    assert found.farthest == "nose_tip"
    assert found.distance == pytest.approx(5, rel=1e-4)
    assert found.mean == pytest.approx(5 / 15, rel=1e-4)
    assert (found.emotion, found.agree) == ("Sad", False) or (found.emotion, found.agree) == ("Happy", False)
    assert abs(found.probability) == pytest.approx(0.3, abs=1e-6)
    shown = show.comparison(sighting, first, second, [found])
    assert "nose tip" in shown
    assert "another emotion" in shown
    assert "nothing differs" in show.comparison(sighting, first, first, differences(first, first))


def test_a_reading_is_drawn_where_it_is_shown(asker: ModelSession) -> None:
    sighting = look(examples()["A group"])
    faces = asker.ask(sighting).faces
    for face, shown in zip(faces, in_shown_pixels(faces, sighting.scale), strict=True):
        np.testing.assert_allclose(shown.box.to_photo(face.keypoints), shown.points, atol=1e-3)
        np.testing.assert_allclose(shown.deviations, face.deviations * sighting.scale, rtol=1e-6)


def test_the_table_holds_what_was_answered(asker: ModelSession) -> None:
    answer = asker.ask(look(examples()["A group"]))
    rows = list(csv.DictReader(io.StringIO(show.table(answer.faces))))
    assert [row["face"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[2]["nose_tip_x"]) == pytest.approx(answer.faces[2].points[KEYPOINTS.index("nose_tip"), 0])
    assert float(rows[0]["nose_tip_y_deviation"]) == pytest.approx(answer.faces[0].deviations[10, 1])
    assert show.table([]).startswith("face,emotion")


def test_what_is_uncertain_is_called_so(asker: ModelSession) -> None:
    sighting = look(examples()["Grace Hopper"])
    answer = asker.ask(sighting, "1")
    sure, unsure = (Answer(judged(answer.faces, threshold), 1, 0.1) for threshold in (0.5, 0.7))
    assert "Face 1: Happy 60%" in show.result(sighting, sure)
    said = show.result(sighting, unsure, names=True, ellipses=True)
    assert "Face 1: uncertain" in said
    assert "60% for Happy is below the threshold" in said
    points_only = replace(answer.faces[0], probabilities=np.full(len(EMOTIONS), np.nan, np.float32))
    assert "Face 1: points" in show.result(sighting, Answer([points_only], 1, 0.1))


def test_where_a_version_looked_is_told_by_its_own_checkpoint(asker: ModelSession, tmp_path: Path) -> None:
    sighting = look(examples()["A group"])
    answer = asker.ask(sighting, "2")
    extra = tmp_path / "face" / "2" / "assets.extra"
    with pytest.raises(CheckpointError, match=r"emotion\.safetensors"):
        maps_of(tmp_path, sighting, answer)
    extra.mkdir(parents=True)
    shutil.copy(bundled("emotion"), extra / "emotion.safetensors")
    maps = maps_of(tmp_path, sighting, answer)
    assert maps.shape == (4, 96, 96)
    assert (maps.max((1, 2)) > 0.9).all()
    assert show.result(sighting, answer, maps=maps).count("where the network looked for Sad") == 4
    assert "looked" not in show.result(sighting, answer)


def test_words_of_others_are_not_taken_for_html() -> None:
    assert "<script>" not in show.error(ConfigError("<script>alert(1)</script>"))


def test_a_published_version_is_described_and_damage_is_not_shown(tmp_path: Path) -> None:
    extra = tmp_path / "face" / "3" / "assets.extra"
    extra.mkdir(parents=True)
    (tmp_path / "face" / ".staging").mkdir()
    assert published_versions(tmp_path) == [3]
    assert published_versions(tmp_path / "none") == []
    empty = published(tmp_path, 3)
    assert (empty.card, empty.parity, empty.metrics, empty.uncertain_below) == ("", [], {}, 0.0)
    assert "No parity proof" in show.proof(empty, 3)
    row = {"path": "SavedModel", "servable": "face", "output": "keypoints", "difference": 2e-5, "tolerance": 1e-4}
    (extra / "parity.json").write_text(json.dumps({"rows": [row, {**row, "difference": 3e-5}]}))
    (extra / "MODEL_CARD.md").write_text("# A card")
    entry = published(tmp_path, 3)
    assert entry.parity == [("SavedModel", "face", "keypoints", 3e-5, 1e-4)]
    assert entry.card == "# A card"
    assert "✓ Proven: 2 comparisons" in show.proof(entry, 3)
    (extra / "parity.json").write_text(json.dumps({"rows": [{**row, "difference": 1.0}]}))
    assert "✗ Not proven" in show.proof(published(tmp_path, 3), 3)
    for content in ("[]", "{", '{"rows": 3}', '{"rows": [{"path": "x"}]}'):
        (extra / "parity.json").write_text(content)
        assert published(tmp_path, 3).parity == []


def test_the_folder_for_uploads_is_private_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with command.private_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "left").write_text("behind")
    assert not folder.exists()
    assert command.os.environ["GRADIO_TEMP_DIR"] == "before"


def test_the_bundled_weights_are_published_once(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    calls = []

    def export(arguments: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        calls.append(arguments)
        if len(calls) == 1:
            return subprocess.CompletedProcess(arguments, 2, "", "a warning\nerror: no space\n")
        folder = Path(next(a for a in arguments if a.startswith("out=")).removeprefix("out='").removesuffix("'"))
        (folder / "face" / "1").mkdir(parents=True)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(command.subprocess, "run", export)
    console = Console(file=io.StringIO())
    with pytest.raises(ExportError, match="no space"):
        command.bundled_models(console)
    folder = command.bundled_models(console)
    assert command.bundled_models(console) == folder
    assert folder.parent == own_cache
    assert len(calls) == 2


def test_a_folder_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="holds no published versions"),
        command.serving(tmp_path, None, Console(file=io.StringIO())),
    ):
        pass


def _png(rgb: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()
