import copy
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.graph import NetworkGraph, to_graph, to_onnx
from emotion_ai_export.convert.onnx_graph.node import HANDLERS
from emotion_ai_export.convert.onnx_graph.translator import layer_name
from emotion_ai_export.convert.onnx_tf_compat import load_onnx_tf
from emotion_ai_export.convert.saved_model import save_servable


def nodes(folder: Path) -> Iterator[Any]:
    """Every node of a SavedModel, including those inside functions."""
    from tensorflow.python.saved_model import loader_impl  # after `frameworks`

    saved = loader_impl.parse_saved_model(str(folder))
    graph = saved.meta_graphs[0].graph_def
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def test_onnx_tf_imports_and_its_stand_ins_do_not_outlive_the_import() -> None:
    assert callable(load_onnx_tf().prepare)
    assert not {"tensorflow_addons", "tensorflow_probability"} & set(sys.modules)


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_the_onnx_model_keeps_its_names_its_batch_and_its_contract(task: str, onnx_models: dict[str, Any]) -> None:
    model = onnx_models[task]
    (images,) = model.graph.input
    assert images.name == "images"
    names = [output.name for output in model.graph.output]
    assert names == {"keypoints": ["keypoints", "deviations"], "emotion": ["probabilities", "expressions"]}[task]
    batch, *rest = images.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [size.dim_value for size in rest] == [1, 96, 96]
    assert {entry.key for entry in model.metadata_props} >= {"contract", "task"}


@pytest.mark.parametrize("name", SERVABLES)
def test_the_graph_is_nhwc_without_transposes_pads_or_devices(name: str, folders: dict[str, Path]) -> None:
    found = list(nodes(folders[name]))
    kinds = {node.op for node in found}
    assert "Conv2D" in kinds
    assert "BiasAdd" in kinds
    assert not kinds & {"Transpose", "Pad", "PadV2", "FusedBatchNormV3", "SparseToDense", "VarHandleOp", "PyFunc"}
    laid_out = [node for node in found if node.op in ("Conv2D", "BiasAdd", "AvgPool", "MaxPool")]
    assert {node.attr["data_format"].s for node in laid_out} <= {b"", b"NHWC"}  # the default is left out when saved
    assert {node.device for node in laid_out} == {""}


def test_each_convolution_stands_there_once_with_one_bias(folders: dict[str, Path], networks: dict[str, Any]) -> None:
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in networks["keypoints"].modules())
    kinds = [node.op for node in nodes(folders["keypoints"])]
    assert kinds.count("Conv2D") == convolutions  # also says that the signatures share one copy of the network
    assert kinds.count("BiasAdd") == convolutions  # not of the heatmaps, but of the deviations' linear layer


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        (
            "keypoints",
            {"Conv2D": 16, "BiasAdd": 16, "Relu": 11, "AvgPool": 1, "Mean": 14, "Sigmoid": 3, "Mul": 5, "AddV2": 3}
            | {"Max": 1, "Exp": 2, "RealDiv": 3, "ConcatV2": 1, "MatMul": 1}
            | {"Sub": 2, "Reshape": 3, "Placeholder": 1, "Identity": 2, "Const": 56},
        ),
        (
            "emotion",
            {"Conv2D": 10, "BiasAdd": 11, "Relu": 7, "AvgPool": 1, "Mean": 6, "Sigmoid": 2, "Mul": 2, "AddV2": 2}
            | {"Sub": 1, "RealDiv": 2, "MatMul": 1, "StridedSlice": 1, "Softmax": 2}
            | {"Placeholder": 1, "Identity": 2, "Const": 34},
        ),
    ],
)
def test_the_graph_has_exactly_the_networks_operations(
    task: str, counts: dict[str, int], onnx_models: dict[str, Any]
) -> None:
    assert operations(to_graph(onnx_models[task])) == counts


def operations(graph: NetworkGraph) -> dict[str, int]:
    function = tf.function(graph).get_concrete_function(tf.TensorSpec([None, 96, 96, 1]))
    return dict(Counter(operation.type for operation in function.graph.get_operations()))


@pytest.mark.parametrize("head", ["heatmap", "regression"])
def test_an_encoder_of_depthwise_convolutions_and_resizes_converts(head: str, make_network: Callable[..., Any]) -> None:
    network = make_network("keypoints", {"name": "facemesh"}, head=head)
    graph = to_graph(to_onnx(network))
    counts = operations(graph)
    assert "Transpose" not in counts
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert sum(module.groups > 1 for module in convolutions) == 18
    assert counts["Conv2D"] == len(convolutions)  # a depthwise one is a single node with its pads
    assert counts["Pad"] == 9  # of new channels, and below and on the right
    images = np.random.default_rng(0).uniform(0, 255, (3, 96, 96, 1)).astype(np.float32)
    got = tf.function(graph)(tf.constant(images))["keypoints"].numpy()
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(got - wanted).max() < 1e-3


def test_points_that_are_regressed_convert_without_transposes_too(make_network: Callable[..., Any]) -> None:
    encoder = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}
    network = make_network("keypoints", encoder, head="regression")
    images = np.random.default_rng(0).uniform(0, 255, (3, 96, 96, 1)).astype(np.float32)
    graph = to_graph(to_onnx(network))
    got = tf.function(lambda images: graph(images))(tf.constant(images))
    with torch.inference_mode():
        wanted = network.uncertainty(torch.from_numpy(images).permute(0, 3, 1, 2))
    for name, values in zip(("keypoints", "deviations"), wanted, strict=True):
        assert np.abs(got[name].numpy() - values.numpy()).max() < 1e-4


def test_torchvisions_padded_pooling_converts_exactly(make_network: Callable[..., Any], tmp_path: Path) -> None:
    network = make_network("emotion", {"name": "resnet18"})
    graph = to_graph(to_onnx(network))
    save_servable({"emotion": graph}, "emotion", tmp_path / "emotion")
    assert not {"Transpose", "Pad", "PadV2"} & {node.op for node in nodes(tmp_path / "emotion")}
    images = np.random.default_rng(0).uniform(0, 255, (3, 96, 96, 1)).astype(np.float32)
    model = tf.saved_model.load(str(tmp_path / "emotion"))
    got = model.signatures["serving_default"](images=tf.constant(images))["probabilities"].numpy()
    with torch.inference_mode():
        wanted = network.classified(torch.from_numpy(images).permute(0, 3, 1, 2))[0].numpy()
    assert np.abs(got - wanted).max() < 1e-5


def test_an_operator_that_cannot_be_translated_is_refused_by_its_layer_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, answer = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1, 96, 96])
        for name in ("images", "probabilities")
    )
    node = onnx.helper.make_node("NoSuchOperator", ["images"], ["probabilities"], name="/head/odd/NoSuchOperator")
    graph = onnx.helper.make_graph([node], "strange", [image], [answer])
    monkeypatch.setattr("emotion_ai_export.convert.onnx_graph.translator.Trace", None)
    with pytest.raises(ExportError, match=r"^head\.odd: the operator NoSuchOperator is not supported"):
        to_graph(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))


def test_a_layer_that_torch_cannot_export_is_named(networks: dict[str, Any]) -> None:
    network = copy.deepcopy(networks["emotion"])
    network.encoder.blocks[1].act2 = torch.nn.FractionalMaxPool2d(2, output_size=5)
    with pytest.raises(ExportError, match=r"encoder\.blocks\.1\.act2: .*fractional_max_pool2d"):
        to_onnx(network)


def test_a_wrong_handler_is_named_by_its_layer(onnx_models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLERS, "Sigmoid", lambda node: node.like(tf.nn.relu(node.x.tensor)))
    found = to_graph(onnx_models["emotion"]).translator.first_difference()
    assert found is not None
    assert (found.layer, found.operator) == ("encoder.blocks.0.se", "Sigmoid")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("/encoder/blocks/blocks.1/conv1/Conv", "encoder.blocks.1.conv1"),  # Sequential
        ("/layers/layers.4/layers.4.0/relu/Relu", "layers.4.0.relu"),  # in another
        ("/stages.0/blocks.1/mlp/Gelu", "stages.0.blocks.1.mlp"),  # ModuleList
        ("/encoder/stages.0.blocks.1/Add", "encoder.stages.0.blocks.1"),
        ("/layer1/layer1.1/layer1/Add", "layer1.1.layer1"),
        ("/Div", "the network itself"),
    ],
)
def test_layers_have_their_modules_paths(name: str, layer: str) -> None:
    assert layer_name(onnx.helper.make_node("Any", [], [], name=name)) == layer
