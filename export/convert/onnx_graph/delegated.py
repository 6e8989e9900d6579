"""Operators without a handler of ours, by onnx-tf if it is installed: one node at a time, in ONNX's order of axes."""

from typing import Any

from onnx import helper

from emotion_ai.errors import MissingExtraError
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.onnx_graph.node import Node, Unsupported
from emotion_ai_export.convert.onnx_graph.values import Value, plain
from emotion_ai_export.convert.onnx_tf_compat import INSTALL, load_onnx_tf

COVERED = (
    *("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Compress", "Cosh", "CumSum", "Det", "GatherElements"),
    *("GlobalLpPool", "IsInf", "IsNaN", "LRN", "LpNormalization", "LpPool", "MeanVarianceNormalization", "Mod"),
    *("QuantizeLinear", "ReduceLogSum", "Shrink", "Sinh", "Tan", "TopK"),
)
"""Operators that onnx-tf is known to translate rightly."""

_BROKEN = ("Bernoulli", "Hardmax")  # need packages that do not import

_RECURRENT = ("GRU", "LSTM", "RNN")


def onnx_tf_handler(operator: str, opset: int) -> Any:
    """onnx-tf's handler of an operator as that opset defines it; None without one.

    Raises:
        MissingExtraError: onnx-tf is not installed.
    """
    backend = load_onnx_tf().TensorflowBackend
    if operator in (*_BROKEN, *_RECURRENT):
        return None
    handler = backend._get_handlers([helper.make_opsetid("", opset)]).get("", {}).get(operator)
    return handler if hasattr(handler, f"version_{getattr(handler, 'SINCE_VERSION', None)}") else None


def delegated(node: Node, proto: Any, opset: int) -> list[Value]:
    """The outputs of a node, translated by onnx-tf.

    Raises:
        Unsupported: onnx-tf cannot translate it.
    """
    handler = onnx_tf_handler(node.op, opset)
    from onnx_tf.common import sys_config
    from onnx_tf.pb_wrapper import OnnxNode

    given = {}
    for index, name in enumerate(proto.input):
        if name:
            value = node.given(index)
            given[name] = tf.convert_to_tensor(node.reorder(value, plain(value.rank)).tensor)
    sys_config.device = "CPU"  # for "CUDA" it takes operations in NCHW, which TensorFlow lacks on a processor
    try:
        made = handler.handle(OnnxNode(proto), tensor_dict=given, strict=True)
        sizes = [[dim[0] if dim[0] == dim[1] else None for dim in shape] for shape in node.shapes]
        tensors = [tf.ensure_shape(tensor, size) for tensor, size in zip(made, sizes, strict=False)]
    except Exception as error:  # onnx-tf and TensorFlow raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unsupported(f"onnx-tf fails with {reason}") from error
    return [Value(tensor, plain(len(shape)), shape) for tensor, shape in zip(tensors, node.shapes, strict=True)]


def refusal(operator: str, opset: int) -> str:
    """Why an operator without a handler of ours cannot be translated; empty if onnx-tf can."""
    if operator in _RECURRENT:
        return f"recurrent layers ({operator}) are not supported; use convolutions or attention"
    try:
        if onnx_tf_handler(operator, opset) is not None:
            return ""
    except MissingExtraError:
        if operator in COVERED:
            return f"the operator {operator} needs onnx-tf: {INSTALL}"
    return f"the operator {operator} is not supported; replace it in the module"
