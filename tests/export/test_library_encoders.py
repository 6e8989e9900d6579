"""A ResNet-50 and an encoder of timm go through every stage: train, export, verify, serve, predict."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from emotion_ai import FaceClient, FaceReader
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.vision.crops import crop
from emotion_ai.vision.photo import PORTRAITS, load_photo
from emotion_ai_export.serving.launch import running

SHORT = ("data.count=48", "epochs=1", "batch_size=16", "test=false", "optimizer.lr=1e-4")


def run(*arguments: str) -> str:
    """Runs a command in a process of its own, which gives its memory back."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "emotion_ai.cli", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(1200)
def test_networks_of_torchvision_and_timm_go_through_every_stage(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    keypoints, emotion, models = tmp_path / "keypoints", tmp_path / "emotion", tmp_path / "models"
    run("train", "experiment=demo_keypoints", "model=resnet50", *SHORT, f"out={keypoints}")
    encoder = ("model=timm", "model.encoder.name=mobilenetv4_conv_small")
    run("train", "experiment=demo_emotion", *encoder, *SHORT, f"out={emotion}")
    networks = [f"{folder.name}={folder / 'network.safetensors'}" for folder in (keypoints, emotion)]
    run("export", *networks, "server=null", f"out={models}")
    record = json.loads(run("verify", str(models), "--json"))
    assert record["passes"]
    assert {check["check"] for check in record["checks"]} >= {"checkpoint", "SavedModel", "warm-up", "REST", "gRPC"}

    crops = [crop(photo.gray, detect_faces(photo)[0].box) for photo in map(load_photo, PORTRAITS)]
    expected = FaceReader.load(
        keypoints / "network.safetensors", emotion / "network.safetensors", device="cpu"
    ).read_crops(crops)
    with running(models) as server:
        for address in (server.rest, server.grpc):
            with FaceClient(address) as client:
                found = client.read_crops(crops)
            np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=5e-3)
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
