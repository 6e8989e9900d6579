"""Merges the nodes that Grappler leaves around convolutions.

Each rewrite replaces nodes by fewer ones with the same values: the input becomes NHWC, pads become part of their
convolution or pooling, biases become BiasAdd (which TensorFlow fuses into the convolution), and reshapes need no
arithmetic.
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import CROP_SIZE, IMAGES_INPUT
from emotion_ai.errors import ExportError
from emotion_ai_export.convert.frameworks import tf

_NHWC_FROM_NCHW = [0, 2, 3, 1]
_NCHW_FROM_NHWC = [0, 3, 1, 2]
_ELEMENTWISE = {"Sub", "Mul", "RealDiv", "AddV2"}
_LAID_OUT = {"Conv2D", "DepthwiseConv2dNative", "MaxPool", "AvgPool", "BiasAdd", "FusedBatchNormV3"}
_GONE = {"Transpose", "Pad", "PadV2", "MirrorPad", "SparseToDense", "Shape", "DataFormatVecPermute", "PyFunc"}


def simplify(graph_def: Any, tensors: list[str]) -> Any:
    """The graph with an NHWC input `images` (N, 96, 96, 1), simplified; constants stay exact.

    Raises:
        ExportError: the graph does not start with the normalisation of our networks.
    """
    graph = _Graph(graph_def)
    _start_in_nhwc(graph)
    for node in list(graph.nodes.values()):
        if node.op in ("Conv2D", "MaxPool"):
            _merge_pad(graph, node)
        elif node.op == "AddV2":
            _bias_add(graph, node)
        elif node.op == "Reshape":
            _reshape_to_constant(graph, node)
    for node in list(graph.nodes.values()):
        if node.op == "Reshape":
            _drop_transpose_of_vectors(graph, node)
    return graph.needed_for(tensors)


def check(graph_def: Any, name: str) -> None:
    """Checks that every convolution, pooling and bias is NHWC and no transpose, pad or shape arithmetic is left.

    Raises:
        ExportError: names the first node that is left, or has another layout.
    """
    for node in graph_def.node:
        if node.op in _GONE:
            raise ExportError(f"the {name} graph still has a {node.op} ({node.name}); the conversion is incomplete")
        if node.op in _LAID_OUT and node.attr["data_format"].s != b"NHWC":
            found = node.attr["data_format"].s.decode()
            raise ExportError(
                f"the {name} graph has a {node.op} ({node.name}) in {found or 'no layout'} instead of NHWC"
            )


class _Graph:
    """Nodes by name, changed in place."""

    def __init__(self, graph_def: Any) -> None:
        self.graph_def = graph_def
        self.nodes = {node.name: node for node in graph_def.node}
        self.uses = Counter(_name(source) for node in graph_def.node for source in node.input)

    def source(self, node: Any, index: int = 0) -> Any:
        return self.nodes[_name(node.input[index])]

    def constant(self, node: Any, index: int) -> NDArray[Any] | None:
        source = self.source(node, index)
        return tf.make_ndarray(source.attr["value"].tensor) if source.op == "Const" else None

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        node = self.graph_def.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        self.nodes[name] = node
        return name

    def needed_for(self, tensors: list[str]) -> Any:
        return tf.compat.v1.graph_util.extract_sub_graph(self.graph_def, [_name(tensor) for tensor in tensors])

    def shape(self, node: Any) -> tuple[int | None, ...] | None:
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(self.needed_for([node.name]), name="")
        shape = graph.get_tensor_by_name(f"{node.name}:0").shape
        return None if shape.rank is None else tuple(shape)


def _name(source: str) -> str:
    return source.removeprefix("^").partition(":")[0]


def _start_in_nhwc(graph: _Graph) -> None:
    """Makes the input NHWC and drops the transpose after the normalisation and the first pad."""
    first = [n for n in graph.nodes.values() if n.op == "Transpose" and _is_permutation(graph, n, _NHWC_FROM_NCHW)]
    if len(first) != 1:
        raise ExportError(f"the graph has {len(first)} transposes to NHWC instead of one; the layout pass failed")
    node = graph.source(first[0])
    while node.name != IMAGES_INPUT:
        if node.op == "Pad" and (pads := graph.constant(node, 1)) is not None:
            node.input[1] = graph.add_constant(f"{node.name}/nhwc", pads[_NHWC_FROM_NCHW])
        elif not (node.op in _ELEMENTWISE and (other := graph.constant(node, 1)) is not None and other.size == 1):
            raise ExportError(f"unexpected {node.op} ({node.name}) between the input and the first convolution")
        node = graph.source(node)
    shape = tf.TensorShape([None, CROP_SIZE, CROP_SIZE, 1]).as_proto()
    node.attr["shape"].shape.CopyFrom(shape)
    for user in graph.nodes.values():
        for index, source in enumerate(user.input):
            if _name(source) == first[0].name:
                user.input[index] = first[0].input[0]
    for user in graph.nodes.values():
        user.attr.pop("_output_shapes", None)


def _is_permutation(graph: _Graph, node: Any, order: list[int]) -> bool:
    permutation = graph.constant(node, 1)
    return permutation is not None and permutation.tolist() == order


def _merge_pad(graph: _Graph, node: Any) -> None:
    """Merges zeros around a convolution, or minus infinity around a maximum, into its padding."""
    pad = graph.source(node)
    if node.attr["padding"].s != b"VALID" or pad.op not in ("Pad", "PadV2"):
        return
    pads = graph.constant(pad, 1)
    value = graph.constant(pad, 2) if pad.op == "PadV2" else np.float32(0)
    if pads is None or value is None or pads[[0, 3]].any():
        return
    lowest = np.finfo(np.float32).min
    if not (value == 0 if node.op == "Conv2D" else value <= lowest):
        return
    node.input[0] = pad.input[0]
    if node.op == "Conv2D" and _is_same(graph, node, pads):
        node.attr["padding"].s = b"SAME"
    else:
        node.attr["padding"].s = b"EXPLICIT"
        node.attr["explicit_paddings"].list.i[:] = pads.flatten().tolist()


def _is_same(graph: _Graph, node: Any, pads: NDArray[Any]) -> bool:
    """With stride 1, SAME pads (size - 1) / 2 on each side of an odd window."""
    kernel = graph.constant(node, 1)
    if kernel is None or list(node.attr["strides"].list.i) != [1, 1, 1, 1]:
        return False
    return all(
        size % 2 == 1 and pads[axis + 1].tolist() == [size // 2] * 2 for axis, size in enumerate(kernel.shape[:2])
    )


def _bias_add(graph: _Graph, node: Any) -> None:
    """Replaces the addition of one constant per channel after a convolution or matrix product by BiasAdd."""
    product, bias = graph.source(node), graph.constant(node, 1)
    if product.op not in ("Conv2D", "MatMul") or bias is None or graph.uses[product.name] != 1:
        return
    kernel = graph.constant(product, 1)
    if kernel is None or bias.size != bias.shape[-1] or bias.size != kernel.shape[-1]:
        return
    node.op = "BiasAdd"
    node.input[1] = graph.add_constant(f"{node.name}/bias", bias.reshape(-1))
    node.attr["data_format"].s = b"NHWC"


def _reshape_to_constant(graph: _Graph, node: Any) -> None:
    """Replaces onnx-tf's arithmetic for sizes that ONNX writes as 0, which runs at every call, by its result."""
    add = graph.source(node, 1)
    if add.op != "AddV2" or graph.source(add, 1).op != "SparseToDense":
        return
    shape = graph.constant(add, 0)
    if shape is not None and (shape != 0).all():
        node.input[1] = graph.add_constant(f"{node.name}/shape", shape)
        node.attr["Tshape"].type = tf.as_dtype(shape.dtype).as_datatype_enum


def _drop_transpose_of_vectors(graph: _Graph, node: Any) -> None:
    """Drops the transpose of a 1x1 map before a reshape: it is the same in either layout."""
    transpose = graph.source(node)
    if transpose.op == "Transpose" and _is_permutation(graph, transpose, _NCHW_FROM_NHWC):
        shape = graph.shape(graph.source(transpose))
        if shape is not None and shape[1:3] == (1, 1):
            node.input[0] = transpose.input[0]
