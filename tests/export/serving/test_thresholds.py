"""The same faces with PyTorch, REST and gRPC have the same thresholds and verdicts, whatever version a label names."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_ai.class_set import SEVEN
from emotion_ai.client import FaceClient, signatures
from emotion_ai.contract import CLASSES_SIGNATURE, EMOTIONS, FULL_SIGNATURE, SERVABLES, Task
from emotion_ai.inference.pipeline import DetectedFace, read_faces
from emotion_ai.inference.reader import FaceReader
from emotion_ai.inference.results import FaceReading, PhotoReader
from emotion_ai.models import FaceNetwork, save_network
from emotion_ai.provenance import RunRecord
from emotion_ai.vision.crops import Box
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.registry.publish import write_config
from emotion_ai_export.registry.versions import promote
from emotion_ai_export.registry.watched_server import WatchedServer
from emotion_ai_export.serving.launch import Addresses, running
from tests.conftest import LEAD, STRICTER, THRESHOLD

NEW = (FULL_SIGNATURE, CLASSES_SIGNATURE)  # signatures that version 0.1 lacked
PHOTO = np.tile(np.arange(256, dtype=np.uint8).repeat(4), (60, 1))  # the brighter, the surer are random networks
FACES = [DetectedFace(Box(left, 0, 60), 0.9) for left in range(0, 964, 40)]


@pytest.fixture(scope="module")
def base(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 as from before `serving_full`, and 2 and 3 with it, with a threshold each; "stable" is 1."""
    base = tmp_path_factory.mktemp("thresholds")
    face = tf.saved_model.load(str(folders["face"]))
    older = {name: function for name, function in face.signatures.items() if name not in NEW}
    tf.saved_model.save(face, str(base / "face" / "1"), older)
    for name in ("keypoints", "emotion"):
        shutil.copytree(folders[name], base / name / "1")
    write_config(base, "host")
    for version in (2, 3):
        for name in SERVABLES:
            shutil.copytree(folders[name], base / name / str(version))
    shutil.rmtree(base / "face" / "3")
    shutil.copytree(folders["face"].parent / "stricter", base / "face" / "3")
    return base


@pytest.fixture(scope="module")
def server(base: Path) -> Iterator[Addresses]:
    with running(base, engine="embedded") as addresses:
        yield addresses


def reader(networks: dict[Task, FaceNetwork], folder: Path, threshold: float) -> FaceReader:
    for task, network in networks.items():
        record = RunRecord(calibration={"uncertain_below": threshold, "neutral_lead": LEAD})
        save_network(network, folder / f"{task}.safetensors", record)
    return FaceReader.load(folder / "keypoints.safetensors", folder / "emotion.safetensors", device="cpu")


def verdicts(reader: PhotoReader) -> list[tuple[str | None, float]]:
    faces: list[FaceReading] = read_faces(PHOTO, FACES, reader)
    return [(face.verdict, face.uncertain_below) for face in faces]


def test_reader_rest_and_grpc_agree_after_every_promotion(
    base: Path, server: Addresses, networks: dict[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "RECHECK_SECONDS", 0.0)
    watched = WatchedServer(server.rest)
    with FaceClient(server.rest, label="stable") as rest, FaceClient(server.grpc, label="stable") as grpc:
        assert rest.ready()
        assert grpc.ready()
        assert verdicts(rest) == verdicts(grpc)
        assert {threshold for _, threshold in verdicts(rest)} == {0.0}, "version 1 names none"
        for version, threshold in ((2, THRESHOLD), (3, STRICTER)):
            promote(base, version, "stable", watched)
            wanted = verdicts(reader(networks, tmp_path, threshold))
            assert verdicts(rest) == verdicts(grpc) == wanted
            names = {verdict for verdict, _ in wanted}
            assert "uncertain" in names
            assert len(names) > 1
        promote(base, 1, "stable", watched)
        assert {threshold for _, threshold in verdicts(rest) + verdicts(grpc)} == {0.0}


def test_crops_carry_the_threshold_and_all_classes(server: Addresses, networks: dict[Any, Any], tmp_path: Path) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (3, 96, 96), np.uint8)
    wanted = reader(networks, tmp_path, STRICTER).read_crops(crops)
    for address in (server.rest, server.grpc):
        with FaceClient(address, version=3) as client:
            found = client.read_crops(crops)
        for name in ("uncertain_below", "expressions"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-5)
        assert found.classes == wanted.classes == SEVEN.names
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)


@pytest.mark.parametrize("signature", [None, "serving_uncertainty", "serving_bytes", "serving_default"])
def test_a_version_without_classes_has_the_five_emotions(signature: str | None, server: Addresses) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (3, 96, 96), np.uint8)
    for address in (server.rest, server.grpc):
        with FaceClient(address, version=1, signature=signature) as client:
            found = client.read_crops(crops)
            assert client.class_names() == found.classes == EMOTIONS
            assert found.probabilities.shape == (3, 5)
        with FaceClient(address, version=3, signature=signature) as client:
            newer = client.read_crops(crops)
            assert client.class_names() == SEVEN.names
            assert newer.classes == (SEVEN.names if signature is None else EMOTIONS)
        np.testing.assert_allclose(newer.probabilities, found.probabilities, atol=1e-5)  # as old clients know them
