"""Every operator of common networks, translated and compared with PyTorch; what goes wrong is named by layer."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emotion_ai.errors import ExportError
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.module_parity import LEAST_ROUNDING
from emotion_ai_export.convert.onnx_export import export_onnx
from emotion_ai_export.convert.onnx_graph import layers, values
from emotion_ai_export.convert.onnx_graph.node import HANDLERS
from emotion_ai_export.convert.onnx_graph.translator import Translator
from emotion_ai_export.convert.onnx_graph.values import CHANNELS_LAST, Value, plain
from emotion_ai_export.convert.parity import ROUNDING_MULTIPLE
from tests.export.convert.segmenter import build


class Apply(nn.Module):
    """A convolution, then some function of its result, so that the function sees NHWC."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.first(images))


class Attention(nn.Module):
    """As in a vision transformer: patches, a class token, heads, layer normalisation, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Sequential(nn.Linear(16, 16), nn.GELU())

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).reshape(x.shape[0], -1, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        found = nn.functional.scaled_dot_product_attention(q, k, v)
        return (x + self.out(found.transpose(1, 2).reshape(x.shape)))[:, 0]


def shuffled(x: Tensor, groups: int) -> Tensor:
    count, channels, height, width = x.shape
    parts = x.view(count, groups, channels // groups, height, width)
    return parts.transpose(1, 2).reshape(count, channels, height, width)


def windows(x: Tensor) -> Tensor:
    """Swin's: rolled by one, cut into 4x4."""
    x = torch.roll(x, (-1, -1), (2, 3)).permute(0, 2, 3, 1)
    count, height, width, channels = x.shape
    return x.view(count, height // 4, 4, width // 4, 4, channels).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, channels)


class Rows(nn.Module):
    """A layer of one axis, given a row of the image."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, :, 5])


class Tokens(nn.Module):
    """A layer of tokens, given the image's pixels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        if not isinstance(self.layer, nn.MultiheadAttention):
            made = self.layer(x)
            return made if isinstance(made, Tensor) else made[0]
        x = x if self.layer.batch_first else x.transpose(0, 1)
        x = self.layer(x, x, x, need_weights=False)[0]
        return x if self.layer.batch_first else x.transpose(0, 1)


def functional(name: str, **settings: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: getattr(nn.functional, name)(x, **settings)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "grouped": lambda: nn.Conv2d(8, 8, 3, 2, 1, groups=4),
    "depthwise": lambda: nn.Conv2d(8, 16, 3, padding=1, groups=8),
    "depthwise, stride 2": lambda: nn.Conv2d(8, 8, 5, 2, 2, groups=8),
    "depthwise, dilated": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
    "dilated": lambda: nn.Conv2d(8, 4, 3, padding=3, dilation=3),
    "grouped, dilated": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4),
    "depthwise, uneven strides": lambda: nn.Conv2d(8, 8, 3, (1, 2), 1, groups=8),
    "uneven kernel": lambda: nn.Conv2d(8, 4, (1, 5), (2, 1), (0, 2)),
    "reflect": lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
    "replicate": lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="replicate"),
    "circular": lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"),
    "zeros before": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(8, 4, 3, 2)),
    "constant pad": lambda: nn.ConstantPad2d((1, 2, 0, 1), 0.7),
    "cropped": lambda: nn.ZeroPad2d((-1, -2, -1, 0)),
    "transposed": lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1),
    "transposed, grouped": lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2),
    "transposed, depthwise": lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8),
    "transposed, dilated": lambda: nn.ConvTranspose2d(8, 4, 3, 2, 2, dilation=2),
    "transposed, uneven": lambda: nn.ConvTranspose2d(8, 4, (2, 5), (2, 3), (0, 1), (0, 2), bias=False),
    "transposed rows": lambda: Rows(nn.ConvTranspose1d(8, 6, 3, 2, 1, output_padding=1, groups=2, dilation=2)),
    "rows": lambda: Rows(nn.Conv1d(8, 6, 3, 2, 1, dilation=2)),
    "max pool of rows": lambda: Rows(nn.MaxPool1d(3, 2, 1, ceil_mode=True)),
    "average pool of rows": lambda: Rows(nn.AvgPool1d(4, 3, 1)),
    "adaptive, rows": lambda: Rows(nn.AdaptiveAvgPool1d(7)),
    "adaptive, one row": lambda: Rows(nn.AdaptiveAvgPool1d(1)),
    "adaptive max, rows": lambda: Rows(nn.AdaptiveMaxPool1d(7)),
    "max pool": lambda: nn.MaxPool2d(3, 2, 1),
    "max pool, dilated": lambda: nn.MaxPool2d(3, 2, 1, dilation=2),
    "max pool, uneven": lambda: nn.MaxPool2d((3, 2), (1, 2), (1, 0), dilation=(1, 3), ceil_mode=True),
    "max pool, ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "average pool": lambda: nn.AvgPool2d(3, 2, 1),
    "average pool, without pads": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average pool, ceil": lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
    "adaptive": lambda: nn.AdaptiveAvgPool2d(5),
    "adaptive, uneven": lambda: nn.AdaptiveAvgPool2d((4, 7)),
    "adaptive, larger": lambda: nn.AdaptiveAvgPool2d(18),
    "average pool, ceil and pads": lambda: nn.AvgPool2d((3, 4), (2, 3), (1, 2), ceil_mode=True),
    "adaptive max": lambda: nn.AdaptiveMaxPool2d(4),
    "adaptive max, uneven": lambda: nn.AdaptiveMaxPool2d((5, 7)),
    "local response norm": lambda: nn.LocalResponseNorm(5, 0.1, 0.6, 2.0),
    "local response norm, even": lambda: nn.LocalResponseNorm(4, 0.1),
    "reflected": lambda: nn.ReflectionPad2d((1, 3, 2, 0)),
    "replicated": lambda: nn.ReplicationPad2d((1, 3, 2, 0)),
    "wrapped": lambda: nn.CircularPad2d((1, 3, 2, 0)),
    "gated": lambda: nn.GLU(1),
    "attention layer": lambda: Tokens(nn.MultiheadAttention(8, 2, batch_first=True)),
    "attention layer, batch second": lambda: Tokens(nn.MultiheadAttention(8, 2)),
    "transformer layer": lambda: Tokens(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
    "transformer layer, norm first": lambda: Tokens(
        nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", norm_first=True, batch_first=True)
    ),
    "layer norm": lambda: nn.LayerNorm([8, 12, 12]),
    "group norm": lambda: nn.GroupNorm(4, 8),
    "group norm, one group": lambda: nn.GroupNorm(1, 8),
    "group norm, size not known": lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.GroupNorm(1, 8)),
    "instance norm": lambda: nn.InstanceNorm2d(8, affine=True),
    "instance norm, plain": lambda: nn.InstanceNorm2d(8),
    "instance norm, tracked": lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
    "batch norm first": lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)),
    "PReLU": lambda: nn.PReLU(8, 0.3),
    "pixel shuffle": lambda: nn.PixelShuffle(2),
    "pixel unshuffle": lambda: nn.PixelUnshuffle(2),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear, corners": lambda: nn.Upsample(size=(17, 9), mode="bilinear", align_corners=True),
    "bilinear, smaller": lambda: nn.Upsample(size=(5, 7), mode="bilinear"),
    "bicubic": lambda: nn.Upsample(scale_factor=1.5, mode="bicubic"),
    "bicubic, corners": lambda: nn.Upsample(size=(17, 9), mode="bicubic", align_corners=True),
    "nearest": lambda: nn.Upsample(scale_factor=3),
    "nearest, exact": lambda: nn.Upsample(scale_factor=(1.5, 0.7), mode="nearest-exact"),
    "nearest, exact, of a size": lambda: nn.Upsample(size=(7, 19), mode="nearest-exact"),
    "nearest, smaller": lambda: nn.Upsample(size=(7, 5)),
    "flattened": lambda: nn.Sequential(nn.Flatten(), nn.Linear(8 * 144, 5)),
    **{
        name: getattr(nn, name)
        for name in ("Hardswish", "Hardsigmoid", "SiLU", "GELU", "ReLU6", "ELU", "SELU", "CELU", "LeakyReLU", "Mish",
                     "Softplus", "Softsign", "Tanh", "Sigmoid", "LogSigmoid", "Hardtanh", "Identity", "Dropout")
    },
}  # fmt: skip

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax of channels": functional("softmax", dim=1),
    "softmax of columns": functional("softmax", dim=3),
    "log softmax": functional("log_softmax", dim=1),
    "GELU, tanh": functional("gelu", approximate="tanh"),
    "shuffled channels": lambda x: shuffled(x, 2),
    "shuffled channels of 4 groups": lambda x: shuffled(x, 4),
    "shuffled at random": lambda x: x.view(-1, 2, 2, 2, 12, 12).permute(0, 3, 1, 2, 4, 5).reshape(x.shape),
    "windows": windows,
    "slices": lambda x: torch.cat([x[:, ::2, 1:-1], x[:, 1::2, 2:]], 1),
    "flipped": lambda x: x.flip(3),
    "layer norm of flat rows": lambda x: (
        x[:, :1].movedim(1, 3) + nn.functional.layer_norm(x[:, :1].repeat(1, 100, 1, 1).movedim(1, 3), (100,), eps=1e-6)
    ),
    "mean of a large image": lambda x: x.repeat(1, 1, 8, 8).mean((2, 3)),
    "sum of a large image": lambda x: x.repeat(1, 1, 8, 8).sum((2, 3), keepdim=True),
    "global pooling of a large image": lambda x: nn.functional.adaptive_avg_pool2d(x.repeat(1, 1, 8, 8), 1),
    "squeeze and excite": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "norm": lambda x: x / x.norm(dim=1, keepdim=True),
    "sums": lambda x: x.sum((1, 3)) + x.amax((1, 3)) - x.amin((1, 3)),
    "largest": lambda x: x.argmax(1).float(),
    "chosen": lambda x: x[:, [3, 0, 5]] + x[:, 2:3],
    "where": lambda x: torch.where(x > 0.1, x, 0.5 * x) + (x < 0).float(),
    "powers": lambda x: x.abs().pow(1.5).sqrt() + torch.exp(-x.square()),
    "einsum": lambda x: torch.einsum("nchw,ncij->nhwij", x, x[:, :, :2, :2]),
    "einsum of weights": lambda x: torch.einsum("bchw,co->bohw", x, torch.arange(24).view(8, 3).to(x.dtype)),
    "dot-product attention": lambda x: nn.functional.scaled_dot_product_attention(x, x.flip(1), x.flip(2), scale=0.3),
    "rolled": lambda x: x.roll((2, -3), (1, 3)) + x.roll(1, 2),
    "product": lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2)).softmax(-1),
    "split": lambda x: torch.cat(x.chunk(4, 1)[::-1], 1),
    "repeated": lambda x: x.repeat(1, 2, 1, 2),
}


def translated(module: nn.Module, images: Tensor) -> tuple[Translator, dict[str, Value]]:
    translator = Translator(export_onnx(module.eval(), [images[:2]], ["images"], ["output"]))
    given = tf.constant(images.permute(0, 2, 3, 1).numpy())
    return translator, translator({"images": given}, {"images": CHANNELS_LAST})


@pytest.mark.parametrize("name", [*LAYERS, *FUNCTIONS, "attention"])
def test_an_operator_is_translated_as_pytorch_computes_it(name: str) -> None:
    torch.manual_seed(0)
    if name == "attention":
        module: nn.Module = Attention()
    else:
        module = Apply(LAYERS[name]() if name in LAYERS else FUNCTIONS[name])
    module.eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    noise = torch.rand(5, 3, 12, 12)
    translator = Translator(export_onnx(module, [noise[:2]], ["images"], ["output"]))
    rank = len(translator.shape("output"))
    for images in (noise, torch.stack([torch.zeros(3, 12, 12), torch.ones(3, 12, 12)])):
        with torch.inference_mode():
            rounded, exact = module(images).numpy(), copy.deepcopy(module).double()(images.double()).numpy()
        found = translator({"images": tf.constant(images.permute(0, 2, 3, 1).numpy())}, {"images": CHANNELS_LAST})
        got = translator.outputs_in(found, {"output": plain(rank)})["output"].numpy()
        rounding = max(np.abs(rounded - exact).max(), LEAST_ROUNDING * np.abs(exact).max())
        np.testing.assert_allclose(got, exact, rtol=0, atol=(1 + ROUNDING_MULTIPLE) * rounding)
    assert translator.first_difference() is None


@pytest.mark.parametrize(
    "name",
    ["grouped", "flattened", "max pool", "group norm", "adaptive, uneven", "PReLU", "shuffled channels",
     "shuffled channels of 4 groups", "shuffled at random"],
)  # fmt: skip
def test_images_stay_in_nhwc(name: str) -> None:
    module = Apply(LAYERS[name]() if name in LAYERS else FUNCTIONS[name]).eval()
    translator = Translator(export_onnx(module, [torch.rand(2, 3, 12, 12)], ["images"], ["output"]))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 12, 12, 3])])  # type: ignore[untyped-decorator]
    def graph(images: Any) -> Any:
        found = translator({"images": images}, {"images": CHANNELS_LAST})["output"]
        return found.tensor

    operations = {operation.type for operation in graph.get_concrete_function().graph.get_operations()}
    assert "Transpose" not in operations


class Residual(nn.Module):
    """A convolution, a sum and an activation, which TensorFlow fuses in a graph."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.activation = nn.LeakyReLU(slope)

    def forward(self, images: Tensor) -> Tensor:
        x = self.activation(self.first(images))
        return self.activation(self.second(x) + x)


@pytest.mark.parametrize("slope", [0.01, 1.5])
def test_a_leaky_relu_after_a_sum_keeps_its_slope_in_a_graph(slope: float) -> None:
    torch.manual_seed(0)
    module, images = Residual(slope).eval(), torch.randn(2, 3, 12, 12)
    translator = Translator(export_onnx(module, [images], ["images"], ["output"]))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 12, 12, 3])])  # type: ignore[untyped-decorator]
    def graph(images: Any) -> Any:
        found = translator({"images": images}, {"images": CHANNELS_LAST})
        return translator.outputs_in(found, {"output": plain(4)})["output"]

    with torch.inference_mode():
        expected = module(images).numpy()
    np.testing.assert_allclose(graph(images.permute(0, 2, 3, 1).numpy()).numpy(), expected, atol=1e-5)


class Named(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.body = nn.Sequential(nn.Identity(), part)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.stem(images))


class Sampled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.grid_sample(x, x.permute(0, 2, 3, 1)[..., :2], align_corners=False)


class Inverse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(x[..., :8, :8] + torch.eye(8))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (Sampled(), "GridSample is not supported"),
        (Inverse(), "not supported"),
        (Tokens(nn.LSTM(8, 4, batch_first=True)), r"recurrent layers \(LSTM\) are not supported; use convolutions or"),
        (Tokens(nn.GRU(8, 4, batch_first=True)), r"recurrent layers \(GRU\)"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_its_layer(part: nn.Module, reason: str) -> None:
    with pytest.raises(ExportError, match=rf"^body\.1(\.layer)?: .*{reason}"):
        translated(Named(part), torch.rand(2, 3, 12, 12))


class Baked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.zeros(len(x), 1, 1, 1)


def test_a_batch_that_is_baked_in_is_refused_by_its_layer() -> None:
    with pytest.raises(ExportError, match=r"^body\.1: fails for other numbers of images than two; take sizes"):
        translated(Named(Baked()), torch.rand(2, 3, 12, 12))


def test_unsupported_operators_are_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = export_onnx(Named(Sampled()).eval(), [torch.rand(2, 3, 12, 12)], ["images"], ["output"])
    monkeypatch.setattr("emotion_ai_export.convert.onnx_graph.translator.Trace", None)
    with pytest.raises(ExportError, match=r"body\.1"):
        Translator(model)


def segmenter() -> Translator:
    return Translator(export_onnx(build(), [torch.rand(2, 3, 16, 16)], ["images"], ["masks", "labels"]))


def test_a_right_translation_differs_nowhere() -> None:
    assert segmenter().first_difference() is None


def test_a_wrong_handler_is_named_by_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLERS, "HardSwish", lambda node: node.like(tf.nn.relu(node.x.tensor)))
    found = segmenter().first_difference()
    assert found is not None
    assert (found.layer, found.operator) == ("middle.2", "HardSwish")
    assert "first layer that differs is middle.2 (HardSwish)" in str(found)


def test_a_wrong_pad_is_named_by_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    right = layers.padding

    def wrong(pads: Any, size: Any, strides: Any, dilations: Any) -> Any:
        return right(
            [pair[::-1] if strides == [1, 1] else [pair[0] + 1, pair[1] - 1] for pair in pads], size, strides, dilations
        )

    monkeypatch.setattr(layers, "padding", wrong)
    found = segmenter().first_difference()
    assert found is not None
    assert (found.layer, found.operator) == ("down.0", "Conv")


def test_a_wrong_layout_is_named_by_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(node: Any) -> Value:
        value = values.reorder(node.x, (0, 3, 2, 1), node.batch)  # rows and columns exchanged
        return Value(value.tensor, CHANNELS_LAST, value.shape) if node.op == "ConvTranspose" else right(node)

    right = layers.channels_last
    monkeypatch.setattr(layers, "channels_last", wrong)
    found = segmenter().first_difference()
    assert found is not None
    assert found.layer == "up"
