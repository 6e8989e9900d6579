import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from emotion_ai.contract import FLIP, MEAN_FACE
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models import FaceNetwork, ModelSpec, load_network, save_network
from emotion_ai.models.network import EmotionHead, HeatmapHead
from emotion_ai.provenance import RunRecord
from emotion_ai.published import read_header

SMALL = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}
ENCODERS: list[dict[str, Any]] = [
    SMALL,
    {"name": "residual", "widths": [8, 8, 16, 16], "depths": [1, 2, 1, 1], "stem_stride": 2},
    {"name": "resnet18"},
    {"name": "resnet50"},
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: f"{e['name']}{len(e.get('widths', []))}")
@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_shapes_and_a_gradient_for_every_parameter(task: Any, encoder: dict[str, Any]) -> None:
    network = FaceNetwork(task, encoder)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 or name.endswith("bn2.weight"):  # away from the zeros that training starts from
            torch.nn.init.normal_(parameter, std=0.05)
    prediction = network(torch.randint(0, 256, (3, 1, 96, 96), dtype=torch.uint8))
    assert prediction.shape == ((3, 15, 2) if task == "keypoints" else (3, 5))
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()
    images = torch.rand(3, 1, 96, 96) * 255
    outputs = network.uncertainty(images) if task == "keypoints" else [network.scores(images)]
    torch.stack([part.square().sum() for part in outputs]).sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without


def test_an_untrained_keypoint_network_predicts_the_mean_face() -> None:
    prediction = FaceNetwork("keypoints", SMALL).eval()(torch.rand(2, 1, 96, 96) * 255)
    torch.testing.assert_close(prediction, torch.tensor(MEAN_FACE).expand(2, -1, -1), atol=1e-4, rtol=0)


def test_a_heatmaps_point_lies_at_the_mean_of_its_cells() -> None:
    head = HeatmapHead(15, 12)
    torch.nn.init.eye_(head.conv.weight[:, :, 0, 0].data)
    logits = torch.full((1, 15, 12, 12), -1e9)
    logits[0, :, 0, 0] = 0.0  # the first cell, beyond the crop's border
    logits[0, 1] = 0.0  # every cell
    logits[0, 2, 0, 0], logits[0, 2, 5, 6], logits[0, 2, 6, 6] = -1e9, 1e4, 1e4  # between two cells; large numbers
    points = head(logits)[0]
    assert points[0].tolist() == [-7.5, -7.5]
    torch.testing.assert_close(points[1:3], torch.tensor([[47.5, 47.5], [52.5, 47.5]]))


def test_deviations_are_positive_and_leave_points_and_encoder_alone() -> None:
    network = FaceNetwork("keypoints", SMALL, {"name": "heatmap"})
    images = torch.rand(2, 1, 96, 96) * 255
    points, deviations = network.uncertainty(images)
    assert points.shape == deviations.shape == (2, 15, 2)
    assert (deviations > 0).all()
    deviations.sum().backward()
    trained = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert trained == {"deviations.linear.weight", "deviations.linear.bias"}
    network.eval()
    before = network.uncertainty(images)[1]
    network.deviations.scale(1.5)
    torch.testing.assert_close(network.uncertainty(images)[1], 1.5 * before)


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_predictions_for_mirror_images_are_in_the_original_coordinates(task: Any) -> None:
    network = FaceNetwork(task, SMALL).eval()
    torch.nn.init.normal_(next(network.head.parameters()), std=0.05)
    images = torch.rand(2, 1, 96, 96) * 255
    symmetric = (images + images.flip(-1)) / 2
    torch.testing.assert_close(network.mirrored(images.flip(-1)), unflipped(network(images)), atol=1e-4, rtol=0)
    assert network.mirrored(symmetric).shape == network(symmetric).shape


def unflipped(predictions: torch.Tensor) -> torch.Tensor:
    if predictions.ndim == 2:
        return predictions
    flipped = predictions.clone()
    for index, other in enumerate(FLIP):
        flipped[:, index, 0], flipped[:, index, 1] = 95 - predictions[:, other, 0], predictions[:, other, 1]
    return flipped


def test_apply_temperature_divides_the_logits() -> None:
    network = FaceNetwork("emotion", SMALL).eval()
    assert isinstance(network.head, EmotionHead)
    torch.nn.init.normal_(network.head.linear.weight, std=0.5)
    images = torch.rand(4, 1, 96, 96) * 255
    before = network.scores(images)
    network.head.apply_temperature(2.0)
    torch.testing.assert_close(network.scores(images), before / 2)


def test_probabilities_add_up_to_one() -> None:
    prediction = FaceNetwork("emotion", SMALL).eval()(torch.rand(4, 1, 96, 96) * 255)
    torch.testing.assert_close(prediction.sum(1), torch.ones(4))


def test_a_batch_gives_what_single_images_give() -> None:
    network = FaceNetwork("emotion", SMALL).eval()
    images = torch.rand(5, 1, 96, 96) * 255
    singles = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), singles, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("task", "encoder", "message"),
    [
        ("age", SMALL, "unknown task 'age'"),
        ("emotion", {"name": "vgg"}, "unknown encoder 'vgg'"),
        ("emotion", {**SMALL, "depths": [1]}, "give one depth per width"),
        ("emotion", {**SMALL, "stem_stride": 3}, "stem_stride must be 2 or 4"),
        ("emotion", {**SMALL, "colour": 1}, "colour"),
        ("emotion", {**SMALL, "strides": [1]}, "give 1 or 2 for each of the 2 widths"),
    ],
)
def test_impossible_networks(task: Any, encoder: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FaceNetwork(task, encoder)


def test_an_unknown_head_is_an_error() -> None:
    with pytest.raises(ConfigError, match="choose regression or heatmap"):
        FaceNetwork("keypoints", SMALL, {"name": "simcc"})


def test_weights_and_record_survive_a_round_trip(tmp_path: Path) -> None:
    network = FaceNetwork("emotion", SMALL, dropout=0.3, mean=100.0, std=50.0).eval()
    save_network(network, tmp_path / "a.safetensors", RunRecord({"seed": 7}))
    loaded, record = load_network(tmp_path / "a.safetensors", "emotion")
    images = torch.rand(2, 1, 96, 96) * 255
    assert torch.equal(loaded(images), network(images))
    assert record == RunRecord({"seed": 7})
    assert not list(tmp_path.glob("*.partial"))


def test_the_spec_is_stored_as_it_always_was(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "task": "emotion",
        "encoder": SMALL,
        "head": {"name": "regression"},
        "dropout": 0.3,
        "mean": 1.0,
        "std": 2.0,
    }
    network = FaceNetwork(**config)  # as old files have it
    save_network(network, tmp_path / "a.safetensors", RunRecord())
    assert json.dumps(read_header(tmp_path / "a.safetensors")["network"]) == json.dumps(config)
    assert FaceNetwork.from_spec(network.spec).spec == network.spec == ModelSpec(**config)


def test_bad_checkpoints_are_one_line(tmp_path: Path) -> None:
    network = FaceNetwork("emotion", SMALL)
    path = tmp_path / "a.safetensors"
    save_network(network, path, RunRecord())
    whole = path.read_bytes()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_network(tmp_path / "none.ckpt", "emotion")
    with pytest.raises(CheckpointError, match="holds a network for 'emotion', expected 'keypoints'"):
        load_network(path, "keypoints")
    path.write_bytes(whole[:200])
    with pytest.raises(CheckpointError, match="not a readable checkpoint of emotion-ai"):
        load_network(path, "emotion")
    (tmp_path / "b.ckpt").write_bytes(b"garbage")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_network(tmp_path / "b.ckpt", "emotion")
    save_file({"a": torch.zeros(1)}, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="not a readable checkpoint of emotion-ai"):
        load_network(tmp_path / "c.safetensors", "emotion")
    config = json.dumps({**network.config, "encoder": {**SMALL, "widths": [8, 24]}})
    contract = json.dumps({"frame": 96, "keypoints": [], "emotions": []})
    metadata = {"network": config, "contract": contract, "record": "{}"}
    save_file(network.state_dict(), tmp_path / "d.safetensors", metadata)
    with pytest.raises(CheckpointError, match="another crop size"):
        load_network(tmp_path / "d.safetensors", "emotion")


def test_a_pickle_with_code_is_not_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("executed",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_network(tmp_path / "evil.ckpt", "emotion")


def test_a_network_of_other_classes_survives_a_round_trip(tmp_path: Path) -> None:
    network = FaceNetwork("emotion", SMALL, classes=("cat", "dog", "Happy")).eval()
    save_network(network, tmp_path / "a.safetensors", RunRecord())
    loaded = load_network(tmp_path / "a.safetensors", "emotion").network
    assert loaded.spec.classes == ("cat", "dog", "Happy")
    assert loaded(torch.rand(2, 1, 96, 96)).shape == (2, 3)
