"""A user's own class folders, from training to a served answer with their names."""

import json
from pathlib import Path

import numpy as np
import pytest
import requests
from hydra import compose, initialize_config_module
from PIL import Image

from emotion_ai.client import FaceClient
from emotion_ai.contract import Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.inference.reader import FaceReader
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.provenance import RunRecord
from emotion_ai.training.train import train
from emotion_ai_export.convert.stage import export
from emotion_ai_export.serving.launch import running

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

NAMES = ("calm 2", "calm 10", "Überrascht")
QUICK = ["model.encoder.widths=[8,16]", "model.encoder.depths=[1,1]", "batch_size=16", "ema_decay=0.5", "epochs=2"]


@pytest.fixture(scope="module")
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    faces = synthetic_faces(90, seed=5)
    for i, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        path = folder / NAMES[label % 3] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def test_three_classes_from_train_to_a_served_answer(
    own_folders: Path, networks: dict[Task, FaceNetwork], tmp_path: Path
) -> None:
    run, base, keypoints = tmp_path / "run", tmp_path / "models", tmp_path / "keypoints.safetensors"
    colors = 'classes.colors={calm 2:"#010203"}'
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        overrides = ["task=emotion", "classes=folders", colors, f"data.train={own_folders}", *QUICK, f"out={run}"]
        train(compose("train", overrides))
        save_network(networks["keypoints"], keypoints, RunRecord())
        emotion = run / "network.safetensors"
        export(compose("export", [f"out={base}", f"keypoints={keypoints}", f"emotion={emotion}"]))
    assert load_network(emotion, "emotion").network.spec.class_set.color("calm 2") == "#010203"
    reader = FaceReader.load(keypoints, emotion, device="cpu")
    crops = synthetic_faces(6, seed=9).images
    wanted = reader.read_crops(crops)
    assert (wanted.classes, wanted.probabilities.shape) == (NAMES, (6, 3))
    assert json.loads((base / "emotion/1/assets.extra/contract.json").read_text())["classes"] == list(NAMES)
    with running(base, engine="embedded") as served:
        for address in (served.rest, served.grpc):
            for signature in (None, "serving_bytes"):
                with FaceClient(address, signature=signature) as client:
                    found = client.read_crops(crops)
                    assert client.class_names() == found.classes == NAMES
                    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)
        body = {"signature_name": "serving_classes", "instances": [0, 0]}
        answer = requests.post(f"{served.rest}/v1/models/face:predict", json=body, timeout=30).json()
        assert answer == {"predictions": [list(NAMES)] * 2}
