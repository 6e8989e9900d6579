"""Encoders of torchvision and timm, and their weights from files."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.models import resnet18

from emotion_ai.errors import CheckpointError, ConfigError, MissingExtraError
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.models.pretrained import load_encoder_weights
from emotion_ai.provenance import RunRecord

IMAGES = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(0)) * 255
MODELS = [
    "resnet18",
    "mobilenetv4_conv_small",
    "convnext_atto",
    "efficientnet_b0",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mobilevit_xxs",
    "ghostnet_100",
]


def timm_encoder(name: str, size: int | None = 96) -> dict[str, Any]:
    return {"library": "timm", "name": name, "size": size}


@pytest.mark.parametrize("name", MODELS)
def test_a_timm_model_is_an_encoder_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    network = FaceNetwork("keypoints", timm_encoder(name)).eval()
    encoder: Any = network.encoder
    features = network.features(IMAGES)
    assert features.shape == (1, encoder.num_features, encoder.map_size, encoder.map_size)
    features.sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.grad is None]
    torch.nn.init.normal_(network.head.conv.weight, std=0.01)  # type: ignore[union-attr, arg-type]
    save_network(network, tmp_path / "a.safetensors", RunRecord())
    loaded = load_network(tmp_path / "a.safetensors", "keypoints").network
    assert torch.equal(loaded(IMAGES), network(IMAGES))


def test_timms_own_initialisation_is_kept() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = FaceNetwork("emotion", timm_encoder("resnet18"))
    torch.manual_seed(0)
    own = timm.create_model("resnet18", in_chans=1).state_dict()
    encoder: Any = network.encoder
    found = encoder.library_tensors()
    assert all(torch.equal(found[name], own[name]) for name in found)


def test_crops_are_enlarged_to_the_models_own_size_which_the_checkpoint_names() -> None:
    pytest.importorskip("timm")
    network = FaceNetwork("emotion", timm_encoder("vit_tiny_patch16_224", None)).eval()
    assert network.spec.encoder["size"] == 224
    encoder: Any = network.encoder
    large = F.interpolate(IMAGES, (224, 224), mode="bilinear", align_corners=False)
    tokens = encoder.net.forward_features(large)[:, 1:]
    torch.testing.assert_close(encoder(IMAGES), tokens.transpose(1, 2).reshape(1, 192, 14, 14), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (timm_encoder("resnet81"), "no such model; did you mean .*resnet18"),
        (timm_encoder("hf-hub:timm/resnet18"), "no such model"),
        (timm_encoder("resnet18.foo"), "no such weights; give resnet18"),
        (timm_encoder("pit_ti_224"), "no square map"),
        (timm_encoder("crossvit_tiny_240", None), "no square map"),
        (timm_encoder("efficientformer_l1"), "does not take images of 96x96 .*give model.encoder.size=null"),
        (timm_encoder("resnet18", 64), "size must be null or an integer from 96"),
        ({**timm_encoder("resnet18"), "colour": 1}, "colour"),
    ],
)
def test_impossible_timm_encoders(encoder: dict[str, Any], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match=message):
        FaceNetwork("emotion", encoder)


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"emotion-ai\[timm\]"):
        FaceNetwork("emotion", timm_encoder("resnet18"))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_weights_of_a_color_network_answer_for_gray_as_in_three_channels(library: str, tmp_path: Path) -> None:
    other: Any
    if library == "timm":
        other, encoder = pytest.importorskip("timm").create_model("resnet18").eval(), timm_encoder("resnet18")
    else:
        other, encoder = resnet18().eval(), {"name": "resnet18"}
    path = tmp_path / "model.safetensors"
    save_file(other.state_dict(), path)
    network = FaceNetwork("emotion", encoder).eval()
    load_encoder_weights(network.encoder, path)
    other.fc = torch.nn.Identity()
    x = (IMAGES - 128) / 64
    torch.testing.assert_close(network.encoder(x).mean((2, 3)), other(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_position_embeddings_of_another_size_are_resampled(tmp_path: Path) -> None:
    other = pytest.importorskip("timm").create_model("vit_tiny_patch16_224")
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    network = FaceNetwork("emotion", timm_encoder("vit_tiny_patch16_224"))
    load_encoder_weights(network.encoder, tmp_path / "model.safetensors")
    encoder: Any = network.encoder
    assert torch.equal(encoder.net.norm.weight, other.norm.weight)


def test_files_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path) -> None:
    network = FaceNetwork("emotion", {"name": "resnet18"})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    good, path = resnet18().state_dict(), tmp_path / "model.safetensors"
    bn = "layer1.0.bn1.weight"
    damages: list[tuple[dict[str, torch.Tensor], str]] = [
        ({k: v for k, v in good.items() if k != bn}, f"missing {bn}"),
        ({**good, "colour": torch.ones(1)}, "unexpected colour"),
        ({**good, bn: torch.ones(3)}, rf"other shapes: {bn} \[3\] and not \[64\]"),
        ({**good, bn: torch.full((64,), torch.nan)}, f"{bn} is not finite"),
        ({**good, bn: torch.ones(64, dtype=torch.int8)}, f"other types: {bn}"),
    ]
    for tensors, message in damages:
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match=message):
            load_encoder_weights(network.encoder, path)
    torch.save(good, path)
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_encoder_weights(network.encoder, path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_encoder_weights(network.encoder, tmp_path / "none")
    save_network(network, path, RunRecord())
    with pytest.raises(CheckpointError, match="init_from="):
        load_encoder_weights(network.encoder, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    small = FaceNetwork("emotion", {"name": "residual", "widths": [8], "depths": [1]})
    with pytest.raises(ConfigError, match="init_from="):
        load_encoder_weights(small.encoder, path)
