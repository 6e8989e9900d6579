"""Runs a graph in float64: what is left of a difference then is an error of its weights or operations."""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai_export.convert.frameworks import convert_variables_to_constants_v2, tf


def in_float64(function: Any) -> Callable[..., dict[str, NDArray[Any]]]:
    """A concrete function with every float32 in it replaced by float64.

    It takes arrays by the names of the function's inputs, or one array, and returns the outputs by name.
    """
    graph_def, given, outputs = _widened(function)
    keys = [name.partition(":")[0] for name in given]
    names = sorted(function.structured_outputs)  # the order in which TensorFlow flattens a dict
    imported = tf.compat.v1.wrap_function(partial(tf.graph_util.import_graph_def, graph_def, name=""), [])
    exact = imported.prune(given, outputs)
    del graph_def, imported
    gc.collect()  # graphs hold their weights, and refer to themselves

    def run(*values: NDArray[Any], **named: NDArray[Any]) -> dict[str, NDArray[Any]]:
        arrays = values or [named[key] if key in named else named[key.partition("_default_")[2]] for key in keys]
        found = exact(*(tf.constant(_wider(array)) for array in arrays))
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}

    return run


def _widened(function: Any) -> tuple[Any, list[str], list[str]]:
    """The graph in float64, and the names of its inputs and outputs."""
    frozen = convert_variables_to_constants_v2(function)
    graph_def = frozen.graph.as_graph_def()
    for node in list(graph_def.node):
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            _cast(node, graph_def.node.add())
        else:
            _widen(node)
    for inner in graph_def.library.function:
        for node in inner.node_def:
            _widen(node)
        for argument in (*inner.signature.input_arg, *inner.signature.output_arg):
            argument.type = _wide(argument.type)
    return graph_def, *([tensor.name for tensor in tensors] for tensors in (frozen.inputs, frozen.outputs))


def _cast(constant: Any, cast: Any) -> None:
    """A constant stays float32, which takes half the memory; a cast takes its name."""
    cast.name, cast.op, cast.device = constant.name, "Cast", constant.device
    constant.name = f"{constant.name}/float32"
    cast.input.append(constant.name)
    cast.attr["SrcT"].type, cast.attr["DstT"].type = tf.float32.as_datatype_enum, tf.float64.as_datatype_enum


def _wider(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _widen(node: Any) -> None:
    tensor = node.attr["value"].tensor if node.op == "Const" else None
    if tensor is not None and tensor.dtype == tf.float32.as_datatype_enum:
        tensor.CopyFrom(tf.make_tensor_proto(tf.make_ndarray(tensor).astype(np.float64)))
    for value in node.attr.values():
        if value.WhichOneof("value") == "type":
            value.type = _wide(value.type)
        elif value.WhichOneof("value") == "list":
            value.list.type[:] = [_wide(kind) for kind in value.list.type]


def _wide(kind: int) -> int:
    wider = {tf.float32.as_datatype_enum: tf.float64.as_datatype_enum}
    wider[tf.complex64.as_datatype_enum] = tf.complex128.as_datatype_enum
    return wider.get(kind, kind)
