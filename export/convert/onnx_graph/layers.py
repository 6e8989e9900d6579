"""Handlers of convolutions, pooling, normalisation, resizing and padding. All compute in NHWC."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.onnx_graph.arithmetic import by_axis, product_along
from emotion_ai_export.convert.onnx_graph.node import Node, Unsupported, handles
from emotion_ai_export.convert.onnx_graph.values import CHANNELS_LAST, Value


def channels_last(node: Node) -> Value:
    if node.x.rank != 4:
        raise Unsupported(f"its input has {node.x.rank} axes; only images with 4 are supported")
    return node.reorder(node.x, CHANNELS_LAST)


def window(node: Node, size: list[int]) -> tuple[list[int], list[int], list[list[int]]]:
    """Strides, dilations and pads, [before, after] for height and width."""
    if node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Unsupported(f"auto_pad={node.attributes['auto_pad']}")
    axes = len(size)
    strides = list(node.attributes.get("strides", [1] * axes))
    dilations = list(node.attributes.get("dilations", [1] * axes))
    flat = list(node.attributes.get("pads", [0] * 2 * axes))
    return strides, dilations, [[flat[axis], flat[axis + axes]] for axis in range(axes)]


def padding(pads: list[list[int]], size: list[int], strides: list[int], dilations: list[int]) -> Any:
    """Pads as TensorFlow's convolutions take them."""
    if not np.any(pads):
        return "VALID"
    same = [[d * (k - 1) // 2] * 2 if d * (k - 1) % 2 == 0 else None for k, d in zip(size, dilations, strict=True)]
    if strides == [1, 1] and pads == same:
        return "SAME"
    return [[0, 0], *pads, [0, 0]]


@handles("Conv")
def conv(node: Node) -> Value:
    weights = node.constant(1)
    if weights.ndim == 3:
        return _conv1d(node, weights)
    x, size = channels_last(node), list(weights.shape[2:])
    strides, dilations, pads = window(node, size)
    if x.unpadded is not None:  # zeros around it become part of the convolution
        x, zeros = x.unpadded
        pads = [[a + c, b + d] for (a, b), (c, d) in zip(pads, zeros, strict=True)]
    groups, channels = node.attributes.get("group", 1), x.shape[1][0]
    kernel = np.transpose(weights, (2, 3, 1, 0))
    y = convolution(x.tensor, kernel, (strides, dilations, pads), (groups, channels))
    if node.has(2):
        y = tf.nn.bias_add(y, node.constant(2))
    return node.like(y, CHANNELS_LAST)


def convolution(
    x: Any, kernel: NDArray[Any], places: tuple[list[int], list[int], list[list[int]]], parts: tuple[int, int]
) -> Any:
    """A convolution in NHWC with a kernel (height, width, in / groups, out)."""
    (strides, dilations, pads), (groups, channels) = places, parts
    size = list(kernel.shape[:2])
    if groups == 1 or dilations == [1, 1]:  # groups follow from the kernel's channels
        return tf.nn.conv2d(x, kernel, strides, padding(pads, size, strides, dilations), dilations=dilations)
    if groups == channels:  # TensorFlow has no dilation with groups
        return _dense(x, kernel, places, groups)
    many = [
        tf.nn.conv2d(part, weights, strides, padding(pads, size, strides, dilations), dilations=dilations)
        for part, weights in zip(tf.split(x, groups, 3), np.split(kernel, groups, 3), strict=True)
    ]
    return tf.concat(many, 3)


def _dense(x: Any, kernel: NDArray[Any], places: tuple[list[int], list[int], list[list[int]]], groups: int) -> Any:
    """A depthwise convolution with zeros in its kernel instead of a dilation; of its results some are left out."""
    (strides, dilations, pads), (height, width) = places, kernel.shape[:2]
    wide = np.zeros(((height - 1) * dilations[0] + 1, (width - 1) * dilations[1] + 1, *kernel.shape[2:]), kernel.dtype)
    wide[:: dilations[0], :: dilations[1]] = kernel
    y = convolution(x, wide, ([1, 1], [1, 1], pads), (groups, groups))
    return y[:, :: strides[0], :: strides[1]]


def _conv1d(node: Node, weights: NDArray[Any]) -> Value:
    strides, dilations, pads = window(node, [weights.shape[2]])
    x = node.reorder(node.x, (0, 2, 1)).tensor[:, tf.newaxis]
    kernel = np.transpose(weights, (2, 1, 0))[np.newaxis]
    places = [1, *strides], [1, *dilations], [[0, 0], *pads]
    y = convolution(x, kernel, places, (node.attributes.get("group", 1), node.x.shape[1][0]))
    if node.has(2):
        y = tf.nn.bias_add(y, node.constant(2))
    return node.like(tf.squeeze(y, 1), (0, 2, 1))


@handles("ConvTranspose")
def conv_transpose(node: Node) -> Value:
    weights = node.constant(1)  # (in, out / groups, height, width)
    flat = weights.ndim == 3
    strides, dilations, pads = window(node, list(weights.shape[2:]))
    if flat:  # as images of height 1
        weights, strides, dilations, pads = weights[:, :, np.newaxis], [1, *strides], [1, *dilations], [[0, 0], *pads]
        x = node.reorder(node.x, (0, 2, 1)).tensor[:, tf.newaxis]
    else:
        x = channels_last(node).tensor
    groups, channels = node.attributes.get("group", 1), weights.shape[0]
    height, width = weights.shape[2:]
    down, across = dilations
    wide = np.zeros((*weights.shape[:2], (height - 1) * down + 1, (width - 1) * across + 1), weights.dtype)
    wide[:, :, ::down, ::across] = weights  # zeros instead of a dilation, which TensorFlow lacks on CPU
    rows, columns = [1] * flat + [dim[0] for dim in node.shape[2:]]
    how: dict[str, Any] = {"strides": [1, *strides, 1], "padding": "VALID"}
    if np.any(pads):
        how |= {"padding": "EXPLICIT", "explicit_paddings": [0, 0, *pads[0], *pads[1], 0, 0]}

    def part(x: Any, weights: NDArray[Any]) -> Any:
        sizes = tf.stack([node.batch(), rows, columns, weights.shape[1]])
        kernel = np.transpose(weights, (2, 3, 1, 0))
        return tf.raw_ops.Conv2DBackpropInput(input_sizes=sizes, filter=kernel, out_backprop=x, **how)

    if groups == channels and weights.shape[1] == 1:
        sizes = tf.stack([node.batch(), rows, columns, channels])
        kernel = np.transpose(wide, (2, 3, 0, 1))
        y = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(input_sizes=sizes, filter=kernel, out_backprop=x, **how)
    elif groups == 1:
        y = part(x, wide)
    else:
        parts = zip(tf.split(x, groups, 3), np.split(wide, groups, 0), strict=True)
        y = tf.concat([part(*each) for each in parts], 3)
    y = tf.ensure_shape(y, [None, rows, columns, node.shape[1][0]])
    if node.has(2):
        y = tf.nn.bias_add(y, node.constant(2))
    return node.like(tf.squeeze(y, 1), (0, 2, 1)) if flat else node.like(y, CHANNELS_LAST)


@dataclass(frozen=True)
class _Pool:
    """The windows of a pooling along one axis; `pads` reach to the end of the last window."""

    axis: int
    length: int
    size: int
    stride: int
    dilation: int
    pads: list[int]
    given: list[int]
    out: int

    def starts(self) -> list[slice]:
        """For each cell of a window, where it lies in the padded axis, for all windows."""
        firsts = range(0, self.size * self.dilation, self.dilation)
        return [slice(first, first + (self.out - 1) * self.stride + 1, self.stride) for first in firsts]

    def counts(self, include: bool) -> NDArray[Any]:
        """How many cells each window averages."""
        before, after = self.given if include else (0, 0)
        cells = np.zeros(self.pads[0] + self.length + self.pads[1])
        cells[self.pads[0] - before : self.pads[0] + self.length + after] = 1
        return sum((cells[cut] for cut in self.starts()), np.zeros(self.out))


def _pools(node: Node) -> list[_Pool]:
    size = list(node.attributes["kernel_shape"])
    strides, dilations, pads = window(node, size)
    found = []
    for place, each in enumerate(zip(size, strides, dilations, strict=True)):
        axis, (before, _), (cells, stride, dilation) = place + 2, pads[place], each
        length, out = node.x.shape[axis][0], node.shape[axis][0]
        # ceil_mode lets the last window reach beyond the pads
        after = max((out - 1) * stride + (cells - 1) * dilation + 1 - length - before, 0)
        found.append(_Pool(axis, length, cells, stride, dilation, [before, after], pads[place], out))
    return found


def _along_axes(x: Value, pools: list[_Pool], outside: float, join: Callable[[Any, Any], Any]) -> Any:
    """Windows of any rank and dilation: joins shifted copies along each axis, whatever the order of the axes."""
    y = x.tensor
    for pool in pools:
        place = x.axis(pool.axis)
        if any(pool.pads):
            around = [pool.pads if axis == place else [0, 0] for axis in range(x.rank)]
            y = tf.pad(y, around, constant_values=outside)
        y = reduce(join, [y[(*[slice(None)] * place, cut)] for cut in pool.starts()])
    return y


def _with_edges(x: Any, pads: list[list[int]]) -> Any:
    """An image in NHWC with its edges repeated: each window that reaches over an edge holds it, so maxima stay."""
    for axis, (before, after) in enumerate(pads, 1):
        first, last = (tf.gather(x, [place], axis=axis) for place in (0, x.shape[axis] - 1))
        x = tf.concat([first] * before + [x] + [last] * after, axis)
    return x


@handles("MaxPool")
def max_pool(node: Node) -> Value:
    if len(node.shapes) > 1:
        raise Unsupported("a pooling that returns indices")
    pools = _pools(node)
    if node.x.rank != 4 or any(pool.dilation > 1 for pool in pools):
        return node.like(_along_axes(node.x, pools, -np.inf, tf.maximum))
    size, strides, pads = ([getattr(pool, name) for pool in pools] for name in ("size", "stride", "pads"))
    x, around = channels_last(node).tensor, padding(pads, size, strides, [1, 1])
    if node.for_litert and not isinstance(around, str):  # it has no pads of a maximum
        x, around = _with_edges(x, pads), "VALID"
    return node.like(tf.nn.max_pool2d(x, size, strides, around), CHANNELS_LAST)


@handles("AveragePool")
def average_pool(node: Node) -> Value:
    pools, include = _pools(node), bool(node.attributes.get("count_include_pad", 0))
    counts = [pool.counts(include) for pool in pools]
    if node.x.rank != 4 or any(pool.dilation > 1 for pool in pools):
        y = _along_axes(node.x, pools, 0, tf.add)
        for pool, count in zip(pools, counts, strict=True):
            shape = [-1 if axis == pool.axis else 1 for axis in node.x.order]
            y = y / count.astype(np.float32).reshape(shape)
        return node.like(y)
    x, size, strides = channels_last(node), [pool.size for pool in pools], [pool.stride for pool in pools]
    pads = [[0, 0], *(pool.pads for pool in pools), [0, 0]]
    y = tf.nn.avg_pool2d(tf.pad(x.tensor, pads) if np.any(pads) else x.tensor, size, strides, "VALID")
    factors = np.prod(size) / np.outer(*counts)
    if (factors != 1).any():
        y = y * factors[:, :, np.newaxis].astype(np.float32)
    return node.like(y, CHANNELS_LAST)


@handles("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node) -> Value:
    places = sorted(node.x.axis(axis) for axis in range(2, node.x.rank))
    if node.op == "GlobalMaxPool":
        return node.like(tf.reduce_max(node.x.tensor, places, keepdims=True))
    return node.like(by_axis(tf.reduce_mean, node.x.tensor, places, keepdims=True))


@handles("BatchNormalization")
def batch_norm(node: Node) -> Value:
    gain, bias, mean, variance = (node.constant(index).astype(np.float64) for index in range(1, 5))
    gain = gain / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    shape = [-1 if axis == 1 else 1 for axis in node.x.order]
    scale, shift = (value.astype(np.float32).reshape(shape) for value in (gain, bias - mean * gain))
    return node.like(node.x.tensor * scale + shift)


@handles("LayerNormalization")
def layer_norm(node: Node) -> Value:
    x, first = node.x.tensor, node.attributes.get("axis", -1) % node.x.rank
    places = [node.x.axis(axis) for axis in range(first, node.x.rank)]
    centred = x - tf.reduce_mean(x, places, keepdims=True)
    centred = centred - tf.reduce_mean(centred, places, keepdims=True)  # the first mean is rounded
    variance = tf.reduce_mean(tf.square(centred), places, keepdims=True)
    y = centred * tf.math.rsqrt(variance + node.attributes.get("epsilon", 1e-5))
    for index, apply in ((1, tf.multiply), (2, tf.add)):
        if node.has(index):
            values = node.constant(index)
            y = apply(y, np.transpose(values.reshape([1] * first + list(values.shape)), node.x.order))
    return node.like(y)


@handles("Resize")
def resize(node: Node) -> Value:
    """Each axis by a matrix, which ONNX Runtime itself yields for that axis alone."""
    if node.x.shape[:2] != node.shape[:2]:
        raise Unsupported("a resize of the batch or the channels")
    x = channels_last(node)
    y = x.tensor
    for axis in (2, 3):
        old, new = x.shape[axis][0], node.shape[axis][0]
        if old != new:
            y = _resize_axis(y, axis - 1, _resize_matrix(node, axis, old, new))
    return node.like(y, CHANNELS_LAST)


def _resize_axis(x: Any, place: int, matrix: NDArray[Any]) -> Any:
    if ((matrix == 0) | (matrix == 1)).all() and (matrix.sum(1) == 1).all():
        return tf.gather(x, matrix.argmax(1).astype(np.int32), axis=place)
    return product_along(x, place, matrix)


def _resize_matrix(node: Node, axis: int, old: int, new: int) -> NDArray[Any]:
    """What the resize makes of each unit vector, (new, old)."""
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    factor = float(scales.array()[axis]) if scales is not None and scales.array().size else None
    given: list[Any] = [None, None]
    if factor is not None:
        given[0] = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, factor, 1])
    else:
        given[1] = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 1, new, old])
    names = ["x", "", "scales" if given[0] is not None else "", "sizes" if given[1] is not None else ""]
    one = helper.make_node("Resize", names[: 3 + (given[1] is not None)], ["y"], **node.attributes)
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph([one], "axis", shapes[:1], shapes[1:], [each for each in given if each is not None])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.eye(old, dtype=np.float32)[np.newaxis, np.newaxis]})
    return np.ascontiguousarray(found[0, 0])


@handles("DepthToSpace", "SpaceToDepth")
def depth_to_space(node: Node) -> Value:
    x, block = channels_last(node), node.attributes["blocksize"]
    if node.op == "SpaceToDepth":
        return node.like(tf.nn.space_to_depth(x.tensor, block), CHANNELS_LAST)
    y = x.tensor
    if node.attributes.get("mode", "DCR") == "CRD":
        channels = np.arange(x.shape[1][0]).reshape(-1, block * block).T.reshape(-1)
        y = tf.gather(y, channels.astype(np.int32), axis=3)
    return node.like(tf.nn.depth_to_space(y, block), CHANNELS_LAST)


@handles("Pad")
def pad(node: Node) -> Value:
    x, rank, mode = node.x, node.x.rank, node.attributes.get("mode", "constant")
    flat = node.constant(1).astype(int)
    axes = node.constant(3).astype(int) % rank if node.has(3) else np.arange(rank)
    pads = [[0, 0] for _ in range(rank)]
    for place, axis in enumerate(axes):
        pads[axis] = [int(flat[place]), int(flat[place + len(axes)])]
    if not any(map(any, pads)):
        return node.like(x.tensor)
    if rank == 4 and not x.is_constant:
        x = node.reorder(x, CHANNELS_LAST)
    if min(min(pair) for pair in pads) < 0:
        cut = tuple(slice(max(-a, 0), b if b < 0 else None) for a, b in (pads[axis] for axis in x.order))
        shape = tuple(
            (d[0] + min(a, 0) + min(b, 0), d[1] + min(a, 0) + min(b, 0))
            for d, (a, b) in zip(x.shape, pads, strict=True)
        )
        x = Value(x.tensor[cut], x.order, shape)
        pads = [[max(a, 0), max(b, 0)] for a, b in pads]
    y = x.tensor
    if mode != "constant":
        for axis, pair in enumerate(pads):
            if any(pair):
                places = np.pad(np.arange(x.shape[axis][0]), pair, mode=mode)
                y = tf.gather(y, places.astype(np.int32), axis=x.axis(axis))
        return Value(y, x.order, node.shape)
    value = float(np.reshape(node.constant(2), -1)[0]) if node.has(2) and node.given(2).tensor.size else 0.0
    y = tf.pad(y, [pads[axis] for axis in x.order], constant_values=value)
    zeros = value == 0 and rank == 4 and not any(pads[0] + pads[1])
    return Value(y, x.order, node.shape, (x, pads[2:]) if zeros else None)
