"""Modules of all kinds: what is converted is right for images of any kind, and the rest is refused in one line."""

import importlib.machinery
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion_ai.errors import ConfigError, ExportError, ParityError
from emotion_ai_export.convert import ConvertOptions, convert
from emotion_ai_export.convert.command import CommandOptions, build_module, calibration_images
from emotion_ai_export.convert.frameworks import errors_in_one_line, tf
from emotion_ai_export.convert.interface import ImageFiles, ImageInput, Interface
from emotion_ai_export.convert.litert import run_litert
from emotion_ai_export.convert.module_parity import ModuleProof

NHWC, NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


def published(module: nn.Module, folder: Path, **options: Any) -> Any:
    made = convert(module, torch.rand(2, 3, 12, 10), ["images"], folder, ConvertOptions("m", **options))
    return made, tf.saved_model.load(str(made.path)).signatures["serving_default"]


def images_of_all_kinds() -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    normal = rng.standard_normal((17, 3, 12, 10)).astype(np.float32)
    flat = np.stack([np.full((3, 12, 10), value, np.float32) for value in (-1, 0, 1, 255)])
    return [normal, rng.random((3, 3, 12, 10)).astype(np.float32), 300 * normal[:1], flat]


class Biased(nn.Module):
    """Adds a constant that all channels share."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.conv, self.bias = nn.Conv2d(3, 4, 3, padding=1), nn.Parameter(torch.randn(shape))

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images) + self.bias


_TWICE = nn.Conv2d(3, 3, 3, padding=1)

RIGHT: dict[str, nn.Module] = {
    "floor_of_floats": Function(lambda x: (x * 9) // 4 + x),
    "floor_of_integers": Function(lambda x: (x * 7).long() // 2),
    "truncation": Function(lambda x: torch.div((x * 7).long(), 3, rounding_mode="trunc")),
    "log_sigmoid": Function(lambda x: F.logsigmoid(x * 3)),
    "in_place": Function(lambda x: x.sub_(0.5).div_(0.25).abs()),
    "same": nn.Conv2d(3, 2, 3, padding="same"),
    "same_dilated": nn.Conv2d(3, 2, (3, 5), padding="same", dilation=(3, 1), bias=False),
    "valid": nn.Conv2d(3, 3, 3, padding="valid", groups=3),
    "padded_maximum": nn.MaxPool2d(3, 2, 1),
    "ceiled_maximum": nn.MaxPool2d(3, 2, ceil_mode=True),
    "spatial_bias": Biased(1, 1, 12, 10),
    "bias_of_rows": Biased(12, 1),
    "one_bias": Biased(1),
    "a_part_used_twice": nn.Sequential(_TWICE, nn.BatchNorm2d(3), _TWICE).eval(),
    "compiled": torch.compile(nn.Conv2d(3, 2, 3)),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", RIGHT)
def test_it_answers_as_the_module(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    _, served = published(RIGHT[name], tmp_path)
    for images in images_of_all_kinds():
        with torch.inference_mode():
            expected = RIGHT[name](torch.from_numpy(images.copy())).numpy()
        found = served(images=tf.constant(images.transpose(NHWC)))["output"].numpy().transpose(NCHW)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_example_inputs_stay_as_they_are(tmp_path: Path) -> None:
    examples = torch.rand(2, 3, 12, 10)
    before = examples.clone()
    convert(RIGHT["in_place"], examples, ["images"], tmp_path)
    assert torch.equal(examples, before)


def shuffled(x: Tensor) -> Tensor:
    """Channels of two groups in turns, as in ShuffleNet."""
    return x.view(x.shape[0], 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize(
    "part",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 3, ceil_mode=True),
        nn.MaxPool2d(5, 3, 2),
        Function(shuffled),
        nn.GELU(),
        nn.GELU(approximate="tanh"),
    ],
)
def test_what_litert_has_in_another_form_is_converted_to_it(part: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 32, 3), part, nn.Conv2d(32, 32, 3, padding="same"), nn.Flatten(), nn.LazyLinear(4)]
    module = nn.Sequential(*parts)
    module(torch.rand(1, 3, 12, 10))
    made, _ = published(module, tmp_path, litert=("float32", "int8"))
    images = torch.rand(3, 3, 12, 10)
    with torch.inference_mode():
        expected = module(images).numpy()
    for kind, share in (("float32", 1e-5), ("int8", 0.1)):
        content = (made.path / f"assets.extra/litert/model_{kind}.tflite").read_bytes()
        (found,) = run_litert(content, [{"images": images.permute(NHWC).contiguous().numpy()}], kind)
        assert np.abs(found["output"] - expected).max() <= share * np.abs(expected).max()


def brighter(x: Tensor) -> Tensor:
    return x * 0.1 if x.max() > 2 else x


def until_small(x: Tensor) -> Tensor:
    while float(x.abs().max()) > 0.4:
        x = x * 0.7
    return x


@pytest.mark.parametrize(
    "function", [brighter, until_small, lambda x: x * x.mean().item(), lambda x: x * bool((x > 2).any())]
)
def test_choices_by_values_are_refused(function: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"chooses by the values of its images \(test_convert_modules.py, line \d+\)"):
        published(Function(function), tmp_path)
    assert not (tmp_path / "m").exists()


def test_errors_in_tensorflows_functions_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as refused:
        published(Function(lambda x: F.interpolate(x, size=(7, 5), mode="bicubic", antialias=True)), tmp_path)
    assert "\n" not in str(refused.value)
    with errors_in_one_line(tmp_path), pytest.raises(ZeroDivisionError):
        raise ZeroDivisionError
    with pytest.raises(ExportError, match=r"^conv: no such thing$"), errors_in_one_line(tmp_path):
        raise ExportError(
            'in user code:\n\n    File "a.py", line 3\n        x()\n\n    ExportError: conv: no such\n thing'
        )


def test_choices_by_sizes_and_weights_are_converted(tmp_path: Path) -> None:
    class Net(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            x = super().forward(x) if self.weight.abs().max() > 0 else x
            return x * 2 if x.shape[-1] > 4 else x

    torch.manual_seed(0)
    module = Net(3, 2, 3)
    _, served = published(module, tmp_path)
    images = torch.rand(3, 3, 12, 10)
    with torch.inference_mode():
        expected = module(images).numpy()
    found = served(images=tf.constant(images.permute(NHWC).contiguous().numpy()))["output"].numpy()
    np.testing.assert_allclose(found.transpose(NCHW), expected, atol=1e-5)


def planted(x: Tensor) -> Tensor:
    """Below 0.75 PyTorch answers 0.3, and the exported graph 0."""
    return x * 0 if torch.onnx.is_in_onnx_export() else torch.where(x < 0.75, 0.3, 0.0).to(x) + x * 0


def beside_large_values(x: Tensor) -> Tensor:
    """A column of values up to ten millions, and a small one that is wrong."""
    mean = x.mean((1, 2, 3))[:, None]
    return torch.cat([mean * 1e7, planted(mean)], 1)


def test_large_channels_hide_no_difference(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"differs from the module by 0.3"):
        published(Function(beside_large_values), tmp_path)


def test_large_examples_hide_no_difference_in_others(tmp_path: Path) -> None:
    examples = torch.rand(2, 3, 12, 10)
    examples[0, 0, 0, 0] = 2e6

    def rounded(x: Tensor) -> Tensor:
        return x if torch.onnx.is_in_onnx_export() else x + 0.1 * (x < 0.9)

    with pytest.raises(ParityError, match=r"differs from the module by 0.1"):
        convert(Function(rounded), examples, ["images"], tmp_path)


class Counts(nn.Module):
    """Remembers its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images * self.calls


@pytest.mark.parametrize(
    "module",
    [
        Counts(),
        Function(lambda x: x - x.mean(0)),
        Function(lambda x: x * 2 if x.shape[0] > 5 else x),
    ],
)
def test_images_that_are_not_answered_by_themselves_are_refused(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="depends on the others in its batch, or on earlier calls") as refused:
        published(module, tmp_path)
    assert "\n" not in str(refused.value)


class ByNumber(nn.Module):
    """Chooses by the number of its images."""

    def __init__(self, choose: Callable[[Any], Any], other: float) -> None:
        super().__init__()
        self.choose, self.other, self.token = choose, other, nn.Parameter(torch.ones(1, 3, 12, 10))

    def forward(self, images: Tensor) -> Tensor:
        images = images + self.token.expand(images.shape[0], -1, -1, -1)
        return images * (self.other if self.choose(images.shape[0]) else 2.0)


@pytest.mark.parametrize(
    ("choose", "batch"),
    [
        (lambda n: n > 8, 9),
        (lambda n: n >= 100, 100),
        (lambda n: not n <= 2 * 64, 129),
        (lambda n: n > 7 and n % 2, 9),
        (lambda n: n == 32, 32),
        (lambda n: int(n) > 8, 9),  # as len(images) does
    ],
)
def test_a_choice_by_the_number_of_images_is_refused_with_its_line(
    choose: Callable[[Any], Any], batch: int, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=rf"differs in a batch of {batch} \(test_convert_modules\.py, line \d+\)"):
        published(ByNumber(choose, other=3.0), tmp_path)
    published(ByNumber(choose, other=2.0), tmp_path)  # as one that computes large batches in parts


def after_another_operator(images: Tensor) -> Tensor:
    images = torch.addcmul(images, images, images)
    return images * 2 if images.shape[0] > 8 else images


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * (1 + x.shape[0] // 16),
        lambda x: x * max(x.shape[0], 8) / 8,
        lambda x: x + x.new_ones(12)[: 1 + x.shape[0] // 9].sum(),
        lambda x: x * torch.tensor(float(x.shape[0] > 8)) + x,
        after_another_operator,
    ],
)
def test_what_depends_on_the_number_of_images_is_refused(function: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"differs in a batch of (9|33)[ ;]"):
        published(Function(function), tmp_path)


@pytest.mark.parametrize(("given", "batches"), [(3, [1, 2, 7]), (20, [1, 2, 7, 7, 6]), (70, [1, 2, 7, *8 * [7], 1])])
def test_up_to_64_examples_are_compared(given: int, batches: list[int]) -> None:
    examples = torch.rand(given, 3, 12, 10)
    interface = Interface("m", (ImageInput("images", 3, 12, 10),), ("output",))
    proof = ModuleProof(nn.Conv2d(3, 2, 3), interface, [examples])
    compared = [case.images["images"] for case in proof.cases if case.kind == "example"]
    assert [len(images) for images in compared] == batches
    np.testing.assert_array_equal(np.unique(np.concatenate(compared), axis=0), np.unique(examples[:64].numpy(), axis=0))


class Locked(nn.Conv2d):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__(3, 2, 3)
        self.lock = open(os.devnull)  # noqa: SIM115


class Ends(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise SystemExit(7)


class Limited(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[0] <= 32, "at most 32"
        return images


class Extra(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(3, 2, 3)

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 1}


class Single(nn.Module):
    """Makes a kernel in float32, whatever its images are."""

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, torch.ones(1, 3, 3, 3))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (Function(lambda x: x.mean()), r"the output output has the shape \[\] for 2 images"),
        (Function(lambda x: x.mean((0, 2, 3))), r"has the shape \[3\] for 2 images; return .*, the batch first"),
        (Function(lambda x: x[:, :0]), r"has the shape \[2, 0, 12, 10\] for 2 images"),
        (Function(lambda x: x > 0.5), "the output output is bool; return one of float32"),
        (Function(lambda x: (x * 255).to(torch.uint8)), "the output output is uint8; return one of float32"),
        (Locked(), "the module cannot be copied to the CPU: "),
        (nn.Conv2d(3, 2, 3, device="meta"), "the module cannot be copied to the CPU: Cannot copy out of meta tensor"),
        (Ends(), "the module does not run in float32, batch 2: 7"),
        (Single(), "does not run in float64, .*; make its constants buffers, or convert them with"),
        (Function(lambda x: x.view(len(x), -1)), r"output has 2 parts for 3 images; take sizes as x\.shape\[0\]"),
        (Function(lambda x: torch.stack([image * 2 for image in x])), r"take sizes as .* do not loop over images"),
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "0: a batch norm without running statistics"),
        (Function(torch.special.bessel_j0), "the operator 'aten::special_bessel_j0' .* is not supported"),
        (Function(lambda x: x[torch.arange(x.shape[0])]), "its input 1 is missing, or depends on the number of images"),
        (Limited(), "batch 33: at most 32; a server joins the images of different requests"),
        (Extra(), "_extra_state: dict in the module's state; remove its get_extra_state"),
    ],
)
def test_other_modules_are_refused_in_one_line(
    module: nn.Module, text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=text) as refused:
        published(module, tmp_path)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().out == ""


def test_a_threshold_at_values_of_the_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="so does the module in float32 .* a threshold at values"):
        published(Function(lambda x: (x > 51 / 255).float()), tmp_path)


def test_int8_without_a_layer_for_it_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match="no layer lies before the last one with weights") as refused:
        published(Function(lambda x: x.mean((2, 3))), tmp_path, litert=("int8",))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_int8_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    published(nn.Sequential(*layers), tmp_path, litert=("int8",))
    assert capfd.readouterr() == ("", "")


def test_an_input_that_the_module_does_not_use_is_refused(tmp_path: Path) -> None:
    class First(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a * 2

    with pytest.raises(ExportError, match="input b: the module does not use it; leave it out"):
        convert(First(), [torch.rand(2, 3, 8, 8)] * 2, ["a", "b"], tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"model": None}, {"outputs": "output"}, {"outputs": (1,)}, {"files": "yes"}, {"outputs": ("Images",)}]
)
def test_options_of_other_types_are_refused_in_one_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        convert(nn.ReLU(), torch.rand(2, 3, 8, 8), ["images"], tmp_path, ConvertOptions(**{"model": "m", **wrong}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["my.net", "a-b"])
def test_names_with_points_and_hyphens_are_published(name: str, tmp_path: Path) -> None:
    made = convert(nn.Conv2d(3, 2, 3), torch.rand(2, 3, 8, 8), ["images"], tmp_path, ConvertOptions(name))
    assert made.path == tmp_path / name / "1"


def test_what_is_no_module_or_no_image_is_refused(tmp_path: Path) -> None:
    images: Any
    with pytest.raises(ConfigError, match=r"function is not a torch.nn.Module"):
        convert(brighter, torch.rand(1, 3, 8, 8), ["images"], tmp_path)  # type: ignore[arg-type]
    for images, text in ((["a"], "must be tensors or arrays"), (torch.rand(1, 3, 8, 8) * 1j, "are complex")):
        with pytest.raises(ConfigError, match=text):
            convert(nn.Identity(), images, ["images"], tmp_path)


@pytest.mark.parametrize("name", ["self", "class", "N"])
def test_names_that_python_or_onnx_take_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"name '{name}': is taken"):
        ImageInput(name, 3, 8, 8)


def test_sizes_have_limits() -> None:
    with pytest.raises(ConfigError, match="is too large; the limits are 4096 channels and 8192 pixels a side"):
        ImageInput.parse("x:3x9999999x9999999")


@pytest.mark.parametrize("numbers", [{"std": (float("inf"),)}, {"std": (float("nan"),)}, {"mean": (1e30,)}])
def test_normalisation_has_limits(numbers: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError, match=r"every value must be from"):
        ImageFiles(**numbers)


def options(**given: Any) -> CommandOptions:
    plain: dict[str, Any] = {"model": "m", "outputs": ("y",), "layout": "NHWC", "dtype": "float32", "files": False}
    return CommandOptions(**(plain | {"mean_std": ("0", "1"), "target": "host"} | given))


def test_a_normalisation_without_files_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--mean and --std are for files; add --files"):
        options(mean_std=("0.5", "1")).parsed()
    assert options(litert="float32, float16").parsed().litert == ("float32", "float16")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_no_calibration(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"neither a folder of images nor a \.npz file"):
        calibration_images(tmp_path / "pipe", [ImageInput("x", 3, 8, 8)], options().parsed())


def test_files_may_hold_dataclasses_and_import_neighbours_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "beside_it.py").write_text("from torch import nn\nnet = nn.Identity()\n")
    (tmp_path / "json.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Size:\n"
        "    n: int = 1\n\ndef build():\n    from beside_it import net\n    return net\n"
        "\ndef ends():\n    raise SystemExit(3)\n"
    )
    assert isinstance(build_module(f"{tmp_path}/json.py:build"), nn.Identity)
    with pytest.raises(ConfigError, match=r"SystemExit: 3; check the file and the function"):
        build_module(f"{tmp_path}/json.py:ends")
    found = importlib.machinery.PathFinder.find_spec("json")  # as a process started from here would
    assert found is not None
    assert found.origin == json.__file__
