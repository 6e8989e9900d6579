"""FaceMesh's trunk as an encoder; its weights are compared where `FACEMESH_TFLITE` names the file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import emotion_ai
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models import FaceNetwork
from emotion_ai.models.facemesh import FaceMeshEncoder

BLAZEFACE = next((Path(emotion_ai.__file__).parent / "assets").rglob("*.tflite"))
FACEMESH = os.environ.get("FACEMESH_TFLITE")


def test_the_encoder_takes_gray_crops_and_has_the_published_size() -> None:
    network = FaceNetwork("keypoints", {"name": "facemesh"}).eval()
    assert isinstance(network.encoder, FaceMeshEncoder)
    assert network(torch.rand(2, 1, 96, 96) * 255).shape == (2, 15, 2)
    assert sum(parameter.numel() for parameter in network.encoder.parameters()) == 174_864


def test_every_layer_learns() -> None:
    encoder = FaceMeshEncoder()
    encoder(torch.rand(2, 1, 96, 96)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("content", [b"", b"no flatbuffer", BLAZEFACE.read_bytes(), BLAZEFACE.read_bytes()[:1000]])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(content)
    encoder = FaceMeshEncoder()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"other\.tflite: is not FaceMesh's face_landmark\.tflite"):
        encoder.load_tflite(path)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.tflite"):
        FaceMeshEncoder().load_tflite(tmp_path / "gone.tflite")


def test_settings_that_it_does_not_know_are_refused() -> None:
    with pytest.raises(ConfigError, match="model.encoder facemesh"):
        FaceNetwork("keypoints", {"name": "facemesh", "depth": 3})


@pytest.mark.skipif(not FACEMESH, reason="FACEMESH_TFLITE does not name face_landmark.tflite")
def test_published_weights_give_the_interpreters_features() -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(FACEMESH, experimental_preserve_all_tensors=True, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    encoder = FaceMeshEncoder().eval()
    encoder.load_tflite(str(FACEMESH))
    crops = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    seen = torch.nn.functional.pad(crops, (16, 16, 16, 16), mode="replicate")
    seen = torch.nn.functional.interpolate(seen, (192, 192), mode="bilinear", align_corners=False)
    pixels = seen.repeat(1, 3, 1, 1).permute(0, 2, 3, 1).numpy()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    points = next(d["index"] for d in interpreter.get_output_details() if d["shape"][-1] == 3 * 468)
    last = next(op for op in interpreter._get_ops_details() if points in op["outputs"])
    features = interpreter.get_tensor(last["inputs"][0])
    with torch.inference_mode():
        mine = encoder(crops).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(mine, features, atol=2e-5)
