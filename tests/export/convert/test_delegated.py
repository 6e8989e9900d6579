"""Operators that only onnx-tf translates."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from emotion_ai.errors import ExportError, MissingExtraError
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.onnx_export import export_onnx
from emotion_ai_export.convert.onnx_graph import delegated
from emotion_ai_export.convert.onnx_graph.node import HANDLERS
from emotion_ai_export.convert.onnx_graph.trace import Trace, example_inputs
from emotion_ai_export.convert.onnx_graph.translator import Translator
from emotion_ai_export.convert.onnx_graph.values import CHANNELS_LAST, plain

CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    *((name, [], {}) for name in ("Acos", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Det", "GlobalLpPool", "Sinh")),
    *((name, [], {}) for name in ("IsInf", "IsNaN", "MeanVarianceNormalization", "ReduceLogSum", "Tan")),
    ("Acosh", [], {}),
    ("Compress", [np.array([True, False, True, True])], {"axis": 1}),
    ("CumSum", [np.array(1)], {}),
    ("CumSum", [np.array(3)], {"exclusive": 1, "reverse": 1}),
    ("GatherElements", [np.random.default_rng(0).integers(0, 4, (1, 4, 5, 4))], {"axis": 1}),
    ("LRN", [], {"size": 5, "alpha": 0.1}),
    ("LpNormalization", [], {"axis": 1, "p": 1}),
    ("LpPool", [], {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}),
    ("Mod", [np.float32(0.3)], {"fmod": 1}),
    ("QuantizeLinear", [np.float32(0.1), np.uint8(3)], {}),
    ("ReduceLogSum", [], {"axes": [2, 3], "keepdims": 0}),
    ("Shrink", [], {"lambd": 0.3, "bias": 0.1}),
    ("TopK", [np.array([2])], {"axis": -1, "largest": 0}),
]
KINDS = {"IsInf": TensorProto.BOOL, "IsNaN": TensorProto.BOOL, "QuantizeLinear": TensorProto.UINT8}


@pytest.mark.parametrize(("operator", "constants", "attributes"), CASES, ids=[f"{n}-{a}" for n, _, a in CASES])
def test_onnx_tf_translates_what_has_no_handler(
    operator: str, constants: list[Any], attributes: dict[str, Any]
) -> None:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 4 if operator == "Det" else 5, 4])
    names = [f"constant{place}" for place in range(len(constants))]
    arrays = [numpy_helper.from_array(np.asarray(a), name) for name, a in zip(names, constants, strict=True)]
    made = ["y", "places"][: 1 + (operator == "TopK")]
    node = helper.make_node(operator, ["x", *names], made, name=f"/body/{operator}", **attributes)
    kinds = [KINDS.get(operator, TensorProto.FLOAT), TensorProto.INT64]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(made, kinds, strict=False)]
    graph = helper.make_graph([node], "one", [given], outputs, arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = example_inputs(model, 3)["x"] + np.float32(operator == "Acosh")
    wanted = Trace(model)({"x": images})
    translator = Translator(model)

    def function(x: Any) -> Any:
        values = translator({"x": x}, {"x": CHANNELS_LAST})
        return translator.outputs_in(values, {name: plain(values[name].rank) for name in made})

    got = tf.function(function, autograph=False)(tf.constant(images.transpose(0, 2, 3, 1)))
    for name in made:
        assert got[name].dtype == wanted[name].dtype
        np.testing.assert_allclose(got[name].numpy(), wanted[name], rtol=1e-5, atol=1e-5)


def test_what_is_said_to_be_covered_is_tested() -> None:
    assert set(delegated.COVERED) == {name for name, _, _ in CASES}
    assert not set(delegated.COVERED) & set(HANDLERS)


class Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1)


def summed() -> onnx.ModelProto:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Summed(), nn.Conv2d(4, 2, 1))
    return export_onnx(network.eval(), [torch.rand(2, 3, 6, 6)], ["images"], ["output"])


def test_a_wrong_handler_of_onnx_tf_is_named_by_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = summed()
    assert Translator(model).first_difference() is None
    handler = delegated.onnx_tf_handler("CumSum", 17)
    monkeypatch.setattr(
        handler, "version_14", lambda node, **others: [tf.cumsum(others["tensor_dict"][node.inputs[0]], 2)]
    )
    found = Translator(model).first_difference()
    assert found is not None
    assert (found.layer, found.operator) == ("1", "CumSum")


def test_a_handler_of_onnx_tf_that_fails_is_refused_by_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = Translator(summed())
    handler = delegated.onnx_tf_handler("CumSum", 17)
    monkeypatch.setattr(handler, "version_14", lambda node, **others: [others["no_such"]])
    found = translator.first_difference()
    assert found is not None
    assert found.operator.startswith("1: CumSum cannot be converted: onnx-tf fails with 'no_such'")


def test_without_onnx_tf_it_is_named_where_it_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise MissingExtraError("export needs onnx_tf")

    monkeypatch.setattr(delegated, "load_onnx_tf", absent)
    install = "pip install --no-deps onnx-tf==1.10.0"
    with pytest.raises(ExportError, match=rf"^1: the operator CumSum needs onnx-tf: {install}$"):
        Translator(summed())
    assert delegated.refusal("GridSample", 17) == "the operator GridSample is not supported; replace it in the module"


@pytest.mark.parametrize(("operator", "opset"), [("GridSample", 17), ("ScatterND", 17), ("Hardmax", 17)])
def test_what_onnx_tf_lacks_or_has_for_another_opset_only_is_refused(operator: str, opset: int) -> None:
    assert delegated.refusal(operator, opset).endswith("is not supported; replace it in the module")
