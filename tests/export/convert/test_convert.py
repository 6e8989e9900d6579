"""Any module becomes a published version: through Python, through the command, over REST and gRPC."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import requests
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.client import protos
from emotion_ai.errors import ConfigError, ExportError, ParityError
from emotion_ai.published import list_versions
from emotion_ai_export.convert import Converted, ConvertOptions, ImageFiles, convert
from emotion_ai_export.convert.command import build_module
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.interface import ImageInput
from emotion_ai_export.convert.module_model import normalised
from emotion_ai_export.convert.onnx_graph.node import HANDLERS
from emotion_ai_export.registry.model_config import ModelConfig, parse
from emotion_ai_export.serving.launch import running
from tests.export.convert.segmenter import build

OPTIONS = ConvertOptions("segmenter", ("masks", "labels"), files=ImageFiles((0.5, 0.4, 0.3), (0.2, 0.2, 0.3)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(scope="module")
def converted(base: Path) -> Converted:
    return convert(build(), torch.rand(3, 3, 32, 24), ["images"], base, OPTIONS)


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((2, 3, 32, 24), np.float32)


@pytest.fixture(scope="module")
def expected(images: NDArray[np.float32]) -> list[NDArray[Any]]:
    with torch.inference_mode():
        masks, labels = build()(torch.from_numpy(images))
    return [masks.permute(0, 2, 3, 1).numpy(), labels.numpy()]


def test_a_version_holds_its_proof_weights_onnx_warm_up_and_checksums(converted: Converted, base: Path) -> None:
    assert converted.version == 1
    assert converted.path == base / "segmenter" / "1"
    extra = converted.path / "assets.extra"
    proof = json.loads((extra / "parity.json").read_text())
    assert proof["passes"]
    assert {row["path"] for row in proof["rows"]} == {
        "ONNX Runtime", "SavedModel", "SavedModel in float64", "SavedModel given files"
    }  # fmt: skip
    assert {(row["kind"], row["batch"]) for row in proof["rows"] if row["path"] == "SavedModel"} == {
        (kind, batch) for kind in ("noise", "black", "white", "standardised", "example") for batch in (1, 2, 7)
    }
    sums = [line.split("  ") for line in (extra / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in sums} >= {
        "saved_model.pb",
        "assets.extra/model.onnx",
        "assets.extra/weights.safetensors",
    }
    for digest, name in sums:
        assert hashlib.sha256((converted.path / name).read_bytes()).hexdigest() == digest
    contract = json.loads((extra / "contract.json").read_text())
    given = contract["signatures"]["serving_default"]
    assert given["inputs"] == {"images": {"dtype": "float32", "shape": [None, 32, 24, 3]}}
    assert given["outputs"] == ["masks", "labels"]
    assert contract["files"]["mean"] == [0.5, 0.4, 0.3]
    assert contract["files"]["resize"] == "half-pixel bilinear, antialiased"
    config = (base / "models.config").read_text()
    (entry,) = parse(config)
    assert replace(entry, rest=b"") == ModelConfig("segmenter", str(base / "segmenter"), (1,), {"stable": 1})
    assert not list(base.glob(".staging-*"))


def test_the_onnx_file_of_a_version_answers_alike(
    converted: Converted, images: NDArray[np.float32], expected: list[NDArray[Any]]
) -> None:
    file = str(converted.path / "assets.extra" / "model.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    masks, labels = session.run(["masks", "labels"], {"images": images})
    np.testing.assert_allclose(masks.transpose(0, 2, 3, 1), expected[0], atol=1e-5)
    np.testing.assert_allclose(labels, expected[1], atol=1e-5)


def test_files_are_normalised_bit_by_bit_as_examples_are() -> None:
    files, pixels = ImageFiles((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), np.arange(768.0, dtype=np.float32) % 256
    images = normalised(pixels.reshape(1, 16, 16, 3), files)
    graph = tf.function(lambda given: normalised(given, files), autograph=False)
    np.testing.assert_array_equal(graph(tf.constant(pixels.reshape(1, 16, 16, 3))), images)
    expected = (pixels.reshape(16, 16, 3) / 255.0 - np.array(files.mean)) / np.array(files.std)
    np.testing.assert_allclose(images[0], expected, atol=5e-7)


def test_both_signatures_share_one_copy_of_the_weights(converted: Converted) -> None:
    from tensorflow.core.protobuf import saved_model_pb2  # after `frameworks`

    model = saved_model_pb2.SavedModel.FromString((converted.path / "saved_model.pb").read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    operations = [node.op for function in functions for node in function.node_def]
    assert operations.count("Conv2DBackpropInput") == 1


def test_it_answers_over_rest_and_grpc(
    converted: Converted, base: Path, images: NDArray[np.float32], expected: list[NDArray[Any]]
) -> None:
    import grpc

    given = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    with running(base, engine="embedded") as server:
        url = f"{server.rest}/v1/models/segmenter:predict"
        found = requests.post(url, json={"instances": given.tolist()}, timeout=30).json()["predictions"]
        masks, labels = (np.array([row[name] for row in found]) for name in ("masks", "labels"))
        np.testing.assert_allclose(masks, expected[0], atol=1e-5)
        np.testing.assert_allclose(labels, expected[1], atol=1e-5)
        request = protos.PredictRequest()
        request.model_spec.name = "segmenter"
        request.inputs["images"].CopyFrom(protos.tensor(given))
        with grpc.insecure_channel(server.grpc.removeprefix("grpc://")) as channel:
            call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            response = protos.PredictResponse.FromString(call(request.SerializeToString(), timeout=30))
        np.testing.assert_allclose(protos.array(response.outputs["masks"]), expected[0], atol=1e-5)
        np.testing.assert_allclose(protos.array(response.outputs["labels"]), expected[1], atol=1e-5)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(3, 4, 5, padding=2)

    def forward(self, gray: Tensor, color: Tensor) -> Tensor:
        return self.first(gray / 255).relu() + self.second(color / 255).mean((2, 3), keepdim=True)


def test_the_command_publishes_uint8_images_in_nchw_as_the_next_version(base: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from tests.export.convert.test_convert import TwoInputs\nbuild = TwoInputs\n")
    arguments = [f"{tmp_path}/net.py:build", "--input", "gray:1x8x6", "--input", "color:3x8x6", "--output", "sums"]
    more = ["--out", str(base), "--model", "sums", "--layout", "NCHW", "--dtype", "uint8"]
    torch.manual_seed(3)
    result = CliRunner().invoke(app, ["convert", *arguments, *more])
    assert result.exit_code == 0, result.output
    assert list_versions(base / "sums") == [2]  # no number is used twice in a folder
    assert "sums" in [config.name for config in parse((base / "models.config").read_text())]
    torch.manual_seed(3)
    module = TwoInputs()
    model = tf.saved_model.load(str(base / "sums" / "2"))
    noise = np.random.default_rng(1)
    gray, color = (noise.integers(0, 256, (5, channels, 8, 6), np.uint8) for channels in (1, 3))
    found = model.signatures["serving_default"](gray=tf.constant(gray), color=tf.constant(color))["sums"]
    with torch.inference_mode():
        expected = module(torch.from_numpy(gray).float(), torch.from_numpy(color).float()).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_wrong_handler_is_named_and_nothing_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLERS, "HardSwish", lambda node: node.like(tf.nn.relu(node.x.tensor)))
    with pytest.raises(ParityError, match=r"the first layer that differs is middle\.2 \(HardSwish\).*nothing was pub"):
        convert(build(), torch.rand(1, 3, 16, 16), ["images"], tmp_path, OPTIONS)
    assert not list_versions(tmp_path / "segmenter")
    assert not list(tmp_path.glob(".staging-*"))
    assert not (tmp_path / "models.config").exists()


def test_a_layer_that_cannot_be_converted_is_refused_before_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emotion_ai_export.convert.module_export.ModuleProof", None)
    with pytest.raises(ExportError, match=r"recurrent: recurrent layers \(LSTM\) are not supported"):
        convert(Recurrent(), torch.rand(2, 3, 8, 8), ["images"], tmp_path)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 4, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.recurrent(images.mean(1))[0]
        return made


class Sums(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images * 0.3 + 0.1).flatten(2).sum(2)


def test_sums_over_flat_images_may_differ_between_libraries(tmp_path: Path) -> None:
    report = convert(Sums(), torch.rand(2, 3, 64, 64), ["images"], tmp_path).report
    own = [row.tolerance for row in report.rows if row.path == "SavedModel in float64"]
    others = [row.tolerance for row in report.rows if row.path != "SavedModel in float64"]
    assert max(own) < 0.02 * min(others)  # an error shows in float64


class Returns(nn.Module):
    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, images: Tensor) -> Any:
        return self.made(images)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda x: {"a": x}, "returns dict"),
        (lambda x: (x, x), "returns tuple of 2"),
        (lambda x: x / 0, "not finite"),
        (lambda x: x.mean((2, 3)) * 0 + 3, "the output .* is the same for all images"),
        (lambda x: x @ torch.ones(9, 9), "does not run in float32"),
        (lambda x: x @ torch.ones(8, 8), "does not run in float64"),
    ],
)
def test_what_a_module_returns_is_checked_first(made: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=reason):
        convert(Returns(made), torch.rand(1, 3, 8, 8), ["images"], tmp_path)


@pytest.mark.parametrize(
    ("shape", "names", "options", "reason"),
    [
        ((1, 3, 8), ["images"], {}, "are supported"),
        ((1, 3, 8, 8), ["a", "b"], {}, "1 example inputs but 2 names"),
        ((1, 3, 8, 8), ["images"], {"model": "face"}, "is a model of faces"),
        ((1, 3, 8, 8), ["images"], {"model": "../up"}, "must start with a letter"),
        ((1, 3, 8, 8), ["output"], {}, "give each input and output another name"),
        ((1, 3, 8, 8), ["two words"], {}, "must start with a letter"),
        ((1, 2, 8, 8), ["images"], {"files": ImageFiles()}, "1 or 3 channels"),
        ((1, 3, 8, 8), ["images"], {"layout": "HWC"}, "choose NHWC or NCHW"),
        ((1, 3, 8, 8), ["images"], {"dtype": "uint8"}, "whole numbers from 0 to 255"),
        ((1, 3, 8, 8), ["images"], {"target": "cloud"}, "target=cloud"),
    ],
)
def test_wrong_settings_are_refused_first(shape: Any, names: Any, options: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ExportError), match=reason):
        convert(nn.Conv2d(3, 3, 3), torch.full(shape, 0.5), names, tmp_path, ConvertOptions(**options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["images", "images:3x96", "images:3x96x96x1", ":3x9x9", "images:ax9x9", "i:0x9x9"])
def test_an_input_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        ImageInput.parse(text)


def test_a_source_that_builds_no_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("build = dict\ndef fails():\n    raise OSError('no weights')\n")
    for source, reason in (
        ("net.py", "write FILE.py:FUNCTION"),
        (f"{tmp_path}/other.py:build", "no such file"),
        (f"{tmp_path}/net.py:missing", "missing"),
        (f"{tmp_path}/net.py:build", "returns dict"),
        (f"{tmp_path}/net.py:fails", "no weights"),
        ("no_such_package:build", "no_such_package"),
    ):
        with pytest.raises(ConfigError, match=reason):
            build_module(source)
