"""Grad-CAM finds the place that a network was made to look at, and leaves the network as it was."""

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

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


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


def looking() -> FaceNetwork:
    """Anger is seen in the upper left, disgust in the upper right, sadness in the lower left, the others nowhere."""
    network = FaceNetwork("emotion", TINY, mean=0, std=255).eval()
    network.encoder = Quadrants()
    network.head.linear = nn.Linear(4, 5)
    with torch.no_grad():
        network.head.linear.weight.zero_()
        network.head.linear.weight[:3, :3] = torch.eye(3)
        network.head.linear.bias.zero_()
    return network


def test_the_map_lies_where_the_network_looks() -> None:
    face = np.random.default_rng(0).integers(100, 256, (96, 96), dtype=np.uint8)
    maps = activation_maps(looking(), [face] * 4, np.arange(4))
    assert maps.shape == (4, 96, 96)
    assert maps.dtype == np.float32
    assert maps.min() == 0
    assert maps.max() <= 1
    for found, (rows, columns) in zip(maps, ((0, 0), (0, 48), (48, 0)), strict=False):
        assert found.max() > 0.9
        assert found[rows : rows + 48, columns : columns + 48].sum() > 0.85 * found.sum()
    assert not maps[3].any(), "nothing speaks for happiness"
    bright = np.full((96, 96), 90, np.uint8)
    bright[48:, :48] = 250
    np.testing.assert_array_equal(
        activation_maps(looking(), [bright]), activation_maps(looking(), [bright], np.array([2]))
    )


@pytest.mark.parametrize("kind", ["residual", "resnet18"])
def test_any_encoder_any_size_and_no_network_is_changed(kind: str) -> None:
    torch.manual_seed(0)
    network = FaceNetwork("emotion", TINY if kind == "residual" else {"name": kind}).train()
    network.encoder.requires_grad_(False)
    network.head.linear.bias.grad = torch.ones(5)
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
    assert torch.equal(network.head.linear.bias.grad, torch.ones(5))
    assert network.head.linear.weight.grad is None
    assert not any(module._forward_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_classes_have_maps_of_their_own() -> None:
    torch.manual_seed(0)
    face = synthetic_faces(1, 0).images
    maps = activation_maps(FaceNetwork("emotion", TINY), np.repeat(face, 5, 0), np.arange(len(EMOTIONS)))
    distinct = [np.abs(a - b).max() > 0.05 for i, a in enumerate(maps) for b in maps[:i]]
    assert all(distinct)


def test_batches_give_what_single_faces_give() -> None:
    torch.manual_seed(0)
    network, faces = FaceNetwork("emotion", TINY), synthetic_faces(70, 0).images
    maps = activation_maps(network, faces)
    for i in (0, 63, 64, 69):
        np.testing.assert_allclose(activation_maps(network, faces[i : i + 1])[0], maps[i], atol=1e-4)
    assert activation_maps(network, []).shape == (0, 96, 96)


@pytest.mark.parametrize("classes", [[0], [0, 5], [-1, 0], [0.5, 1]])
def test_classes_that_do_not_exist(classes: Any) -> None:
    with pytest.raises(ConfigError, match="give 0 to 4 for each of the faces"):
        activation_maps(FaceNetwork("emotion", TINY), np.zeros((2, 96, 96), np.uint8), np.array(classes))


def test_points_have_no_classes() -> None:
    with pytest.raises(ConfigError, match="the network is for keypoints"):
        activation_maps(FaceNetwork("keypoints", TINY), np.zeros((2, 96, 96), np.uint8))
