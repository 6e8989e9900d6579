"""Activation maps find the evidence of a hand-made network, and leave the network unchanged."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emotion_ai.contract import EMOTIONS
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.explain import activation_maps
from emotion_ai.models import FaceNetwork
from emotion_ai.models.network import EmotionHead

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


def head(network: FaceNetwork) -> EmotionHead:
    assert isinstance(network.head, EmotionHead)
    return network.head


class Quadrants(nn.Module):
    """Channel k is the brightness of the k-th quadrant, and 0 elsewhere: upper left, upper right, lower left."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(x * self.gain, 16)
        masks = torch.zeros(4, 6, 6)
        masks[0, :3, :3] = masks[1, :3, 3:] = masks[2, 3:, :3] = 1
        return x * masks


def quadrant_network() -> FaceNetwork:
    """The evidence is in the upper left for anger, upper right for disgust, lower left for sadness."""
    network = FaceNetwork("emotion", TINY, mean=0, std=255).eval()
    network.encoder = Quadrants()  # type: ignore[assignment]
    linear = nn.Linear(4, 5)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[:3, :3] = torch.eye(3)
        linear.bias.zero_()
    head(network).linear = linear
    return network


def test_maps_lie_on_the_evidence() -> None:
    face = np.random.default_rng(0).integers(100, 256, (96, 96), dtype=np.uint8)
    maps = activation_maps(quadrant_network(), [face] * 4, np.arange(4))
    assert maps.shape == (4, 96, 96)
    assert maps.dtype == np.float32
    assert maps.min() == 0
    assert maps.max() <= 1
    for found, (rows, columns) in zip(maps, ((0, 0), (0, 48), (48, 0)), strict=False):
        assert found.max() > 0.9
        assert found[rows : rows + 48, columns : columns + 48].sum() > 0.85 * found.sum()
    assert not maps[3].any(), "there is no evidence for happiness"
    bright = np.full((96, 96), 90, np.uint8)
    bright[48:, :48] = 250
    np.testing.assert_array_equal(
        activation_maps(quadrant_network(), [bright]), activation_maps(quadrant_network(), [bright], np.array([2]))
    )


@pytest.mark.parametrize("kind", ["residual", "resnet18"])
def test_any_encoder_and_size_leaves_the_network_unchanged(kind: str) -> None:
    torch.manual_seed(0)
    network = FaceNetwork("emotion", TINY if kind == "residual" else {"name": kind}).train()
    network.encoder.requires_grad_(False)
    head(network).linear.bias.grad = torch.ones(5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    faces = [synthetic_faces(1, 0).images[0], np.zeros((48, 48), np.uint8), np.full((30, 70), 200.0, np.float32)]
    maps = activation_maps(network, faces)
    assert maps.shape == (3, 96, 96)
    assert np.isfinite(maps).all()
    assert (maps >= 0).all()
    assert (maps <= 1).all()
    assert network.training
    assert network.encoder.training
    assert not any(parameter.requires_grad for parameter in network.encoder.parameters())
    assert all(parameter.requires_grad for parameter in network.head.parameters())
    gradient = head(network).linear.bias.grad
    assert gradient is not None
    assert torch.equal(gradient, torch.ones(5))
    assert head(network).linear.weight.grad is None
    assert not any(module._forward_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_each_class_has_its_own_map() -> None:
    torch.manual_seed(0)
    face = synthetic_faces(1, 0).images
    maps = activation_maps(FaceNetwork("emotion", TINY), np.repeat(face, 5, 0), np.arange(len(EMOTIONS)))
    distinct = [np.abs(a - b).max() > 0.05 for i, a in enumerate(maps) for b in maps[:i]]
    assert all(distinct)


def test_batches_equal_single_faces() -> None:
    torch.manual_seed(0)
    network, faces = FaceNetwork("emotion", TINY), synthetic_faces(70, 0).images
    maps = activation_maps(network, faces)
    for i in (0, 63, 64, 69):
        np.testing.assert_allclose(activation_maps(network, faces[i : i + 1])[0], maps[i], atol=1e-4)
    assert activation_maps(network, []).shape == (0, 96, 96)


@pytest.mark.parametrize("classes", [[0], [0, 5], [-1, 0], [0.5, 1]])
def test_classes_that_do_not_exist(classes: Any) -> None:
    with pytest.raises(ConfigError, match="must be from 0 to 4, one for each face"):
        activation_maps(FaceNetwork("emotion", TINY), np.zeros((2, 96, 96), np.uint8), np.array(classes))


def test_keypoint_networks_have_no_maps() -> None:
    with pytest.raises(ConfigError, match="need an emotion network, got one for keypoints"):
        activation_maps(FaceNetwork("keypoints", TINY), np.zeros((2, 96, 96), np.uint8))
