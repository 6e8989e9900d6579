"""What clients of version 0.1 send, and what they accept, against a version of seven classes."""

import base64
import json
from typing import Any

import grpc
import numpy as np
import pytest
import requests

from emotion_ai.client import protos
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.serving.launch import Addresses

FACES = synthetic_faces(2, seed=3).images
FILES = [encode_png(face) for face in FACES]
SHAPES = {"keypoints": (2, 15, 2), "probabilities": (2, 5), "deviations": (2, 15, 2)}
ANSWERS = {
    ("keypoints", "serving_bytes"): ("keypoints",),
    ("emotion", "serving_bytes"): ("probabilities",),
    ("face", "serving_bytes"): ("keypoints", "probabilities"),
    ("face", "serving_default"): ("keypoints", "probabilities"),
    ("face", "serving_uncertainty"): ("keypoints", "probabilities", "deviations"),
}


def check(found: dict[str, Any], names: tuple[str, ...]) -> None:
    assert set(found) == set(names)
    for name, values in found.items():
        assert np.asarray(values, np.float32).shape == SHAPES[name]
    if "probabilities" in found:
        np.testing.assert_allclose(np.sum(found["probabilities"], 1), 1, atol=1e-5)


@pytest.mark.parametrize(("model", "signature"), ANSWERS)
def test_rest(model: str, signature: str, live: Addresses) -> None:
    files = [{"b64": base64.b64encode(file).decode()} for file in FILES]
    instances: Any = FACES[..., None].tolist() if signature == "serving_default" else files
    body = json.dumps({"signature_name": signature, "instances": instances})
    rows = requests.post(f"{live.rest}/v1/models/{model}:predict", data=body, timeout=30).json()["predictions"]
    names = ANSWERS[model, signature]
    check({name: [row[name] for row in rows] for name in rows[0]} if len(names) > 1 else {names[0]: rows}, names)


@pytest.mark.parametrize(("model", "signature"), ANSWERS)
def test_grpc(model: str, signature: str, live: Addresses) -> None:
    request = protos.PredictRequest(model_spec={"name": model, "signature_name": signature})
    if signature == "serving_default":
        request.inputs["images"].CopyFrom(protos.tensor(FACES[..., None].astype(np.float32)))
    else:
        request.inputs["image_bytes"].CopyFrom(protos.tensor(FILES))
    with grpc.insecure_channel(live.grpc.removeprefix("grpc://")) as channel:
        call = channel.unary_unary(
            protos.PREDICT, lambda message: message.SerializeToString(), protos.PredictResponse.FromString
        )
        response = call(request, timeout=30)
    check({name: protos.array(value) for name, value in response.outputs.items()}, ANSWERS[model, signature])


def test_the_classes_are_told_to_anybody(live: Addresses) -> None:
    body = {"signature_name": "serving_classes", "inputs": {"request": [7, 7]}}
    for model in ("emotion", "face"):
        answer = requests.post(f"{live.rest}/v1/models/{model}:predict", json=body, timeout=30).json()
        assert answer == {"outputs": [["Angry", "Disgust", "Sad", "Happy", "Surprise", "Fear", "Neutral"]] * 2}
    refused = requests.post(f"{live.rest}/v1/models/keypoints:predict", json=body, timeout=30)
    assert refused.status_code == 400
