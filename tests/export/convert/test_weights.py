"""Every single weight that is altered between the checkpoint and the SavedModel is found, and its layer named."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn
from torchvision.models import densenet121, mobilenet_v3_small

from emotion_ai.contract import Task
from emotion_ai.errors import ParityError
from emotion_ai.models import FaceNetwork
from emotion_ai_export.convert import weights
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.interface import ImageInput, Interface
from emotion_ai_export.convert.module_model import save_module
from emotion_ai_export.convert.onnx_export import export_onnx
from emotion_ai_export.convert.onnx_graph.node import HANDLERS, Node
from emotion_ai_export.convert.onnx_graph.translator import Translator
from emotion_ai_export.convert.onnx_graph.values import Value
from emotion_ai_export.convert.saved_model import save_servable
from emotion_ai_export.convert.weights import (
    compare_module_weights,
    compare_onnx_weights,
    compare_servable_weights,
)
from tests.conftest import random_network

FACTOR = np.float32(1.001)


def alter(values: np.ndarray[Any, Any], place: int) -> np.ndarray[Any, Any]:
    """One value more by a thousandth."""
    altered = values.copy()
    flat = altered.reshape(-1)
    flat[place % flat.size] = flat[place % flat.size] * FACTOR or np.float32(1e-6)
    return altered


def alter_onnx(model: onnx.ModelProto, tensor: int, place: int) -> tuple[onnx.ModelProto, str]:
    """A copy with one value of one initializer altered, and the initializer's name."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    floats = [each for each in copied.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    chosen = floats[tensor % len(floats)]
    chosen.CopyFrom(numpy_helper.from_array(alter(numpy_helper.to_array(chosen), place), chosen.name))
    return copied, chosen.name


def alter_saved(folder: Path, size: int, place: int) -> None:
    """Alters one value of the largest constant of a SavedModel with at most `size` values."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    from emotion_ai_export.convert.frameworks import tf

    saved = SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    tensors = [
        node.attr["value"].tensor
        for function in functions
        for node in function.node_def
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum
    ]
    sized = [(tf.make_ndarray(tensor), tensor) for tensor in tensors]
    values, tensor = max((each for each in sized if each[0].size <= size), key=lambda each: each[0].size)
    tensor.CopyFrom(tf.make_tensor_proto(alter(values, place)))
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_all_weights_are_compared_and_found(
    task: Task, networks: dict[Task, FaceNetwork], onnx_models: dict[Task, Any], folders: dict[Any, Path]
) -> None:
    network, model = networks[task], onnx_models[task]
    proof = compare_onnx_weights(network, model, to_onnx)
    floats = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    assert proof.checkpoint == sum(tensor.numel() for tensor in floats)
    assert proof.only_float32 == 0
    folded = sum(tensor.numel() for name, tensor in network.state_dict().items() if "conv" in name)
    assert proof.unchanged + folded > 0.9 * proof.checkpoint
    unchanged = compare_servable_weights(task, folders[task], [to_graph(model)])
    assert unchanged >= 0.99 * sum(
        np.prod(each.dims, dtype=int) for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT
    )


@settings(max_examples=25)
@given(tensor=st.integers(0, 1000), place=st.integers(0, 10**6))
def test_any_altered_weight_of_an_onnx_model_is_found(
    tensor: int, place: int, networks: dict[Task, FaceNetwork], onnx_models: dict[Task, Any]
) -> None:
    model = onnx_models["keypoints"]
    altered, _ = alter_onnx(model, tensor, place)
    with pytest.raises(ParityError, match=r"the ONNX model differs .* of the layer [a-z].*: 1 of \d+ values"):
        compare_onnx_weights(networks["keypoints"], altered, lambda _: model)


def test_an_export_that_alters_a_weight_itself_is_found(networks: dict[Task, FaceNetwork]) -> None:
    """The same error in float32 every time."""

    def export(network: FaceNetwork) -> onnx.ModelProto:
        model = to_onnx(network)
        return model if next(network.parameters()).dtype == torch.float64 else alter_onnx(model, 1, 5)[0]

    network = networks["keypoints"]
    with pytest.raises(ParityError, match="the ONNX model differs"):
        compare_onnx_weights(network, export(network), export)


@pytest.mark.parametrize("size", [10**6, 500, 31])
def test_an_altered_constant_of_a_saved_model_is_found(
    size: int, onnx_models: dict[Task, Any], folders: dict[Any, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["face"], tmp_path / "face"))
    graphs = [to_graph(model) for model in onnx_models.values()]
    compare_servable_weights("face", folder, graphs)
    alter_saved(folder, size, 7)
    with pytest.raises(ParityError, match=r"face: the SavedModel .* of the layer [a-z]\S+: 1 of \d+ values"):
        compare_servable_weights("face", folder, graphs)


def planted(operator: str) -> Callable[[Node], Value | list[Value]]:
    """A handler that alters one weight of large kernels."""
    right = HANDLERS[operator]

    def wrong(node: Node) -> Value | list[Value]:
        kernel = node.constant(1)
        if kernel.size < 500:
            return right(node)
        inputs = [node.inputs[0], Value(alter(kernel, 11), node.given(1).order, node.given(1).shape), *node.inputs[2:]]
        return right(Node(node.op, node.attributes, inputs, node.shapes, node.users, node.batch))

    return wrong


def test_a_handler_that_alters_one_weight_is_found(
    onnx_models: dict[Task, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HANDLERS, "Conv", planted("Conv"))
    graph = to_graph(onnx_models["keypoints"])
    save_servable({"keypoints": graph}, "keypoints", tmp_path / "keypoints")
    with pytest.raises(ParityError, match=r"the SavedModel differs .* 1 of \d+ values"):
        compare_servable_weights("keypoints", tmp_path / "keypoints", [graph])


@pytest.mark.parametrize("build", [mobilenet_v3_small, densenet121])
def test_a_library_network_has_no_false_alarm_and_one_altered_constant_is_found(
    build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    """Squeeze and excitation; batch norms that are not folded, of which the translation makes new constants."""
    torch.manual_seed(0)
    module = build().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, std=0.2)
    images = [torch.rand(2, 3, 64, 64)]
    interface = Interface("net", (ImageInput("images", 3, 64, 64),), ("output",))
    translator = Translator(export_onnx(module, images, ["images"], interface.outputs))
    save_module(translator, interface, tmp_path / "net")
    arguments = (module, images, interface, translator, tmp_path / "net")
    proof = compare_module_weights(*arguments)
    assert proof["ONNX"]["only_float32"] == 0
    assert proof["SavedModel"]["unchanged"] > 0.95 * (proof["ONNX"]["checkpoint"])
    for size in (10**7, 300):
        alter_saved(tmp_path / "net", size, 3)
        with pytest.raises(ParityError, match="net: the SavedModel differs from its checkpoint"):
            compare_module_weights(*arguments)


def test_one_of_the_25_million_weights_of_a_resnet_50_is_found() -> None:
    network = random_network("keypoints", {"name": "resnet50"}, head="regression")
    model = to_onnx(network)
    altered = copy.deepcopy(network)
    with torch.no_grad():
        altered.get_parameter("encoder.layers.4.0.conv2.weight").view(-1)[100] *= 1.001
    compare_onnx_weights(network, model, to_onnx)
    with pytest.raises(ParityError, match=r"of the layer encoder\.layers\.4\.0\.conv2: 1 of 36864 values"):
        compare_onnx_weights(altered, model, to_onnx)


def test_rounding_of_another_processor_is_no_alteration() -> None:
    kernel = np.random.default_rng(0).normal(size=(8, 4, 3, 3)).astype(np.float32)
    rounded = np.nextafter(kernel, np.float32(np.inf)).transpose(2, 3, 1, 0)
    assert weights._is_rounded(kernel, rounded)
    assert not weights._is_rounded(kernel, alter(rounded, 17))
