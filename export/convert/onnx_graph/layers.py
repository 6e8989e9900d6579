"""Handlers of convolutions, pooling, normalisation, resizing and padding. All compute in NHWC."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.onnx_graph.arithmetic import product_along
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
    if weights.ndim != 4:
        raise Unsupported("only images with 4 axes are supported")
    x = channels_last(node)
    strides, (down, across), pads = window(node, list(weights.shape[2:]))
    groups, channels = node.attributes.get("group", 1), weights.shape[0]
    height, width = weights.shape[2:]
    wide = np.zeros((*weights.shape[:2], (height - 1) * down + 1, (width - 1) * across + 1), weights.dtype)
    wide[:, :, ::down, ::across] = weights  # zeros instead of a dilation, which TensorFlow lacks on CPU
    _, _, rows, columns = (dim[0] for dim in node.shape)
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
        y = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
            input_sizes=sizes, filter=kernel, out_backprop=x.tensor, **how
        )
    elif groups == 1:
        y = part(x.tensor, wide)
    else:
        parts = zip(tf.split(x.tensor, groups, 3), np.split(wide, groups, 0), strict=True)
        y = tf.concat([part(*each) for each in parts], 3)
    y = tf.ensure_shape(y, [None, rows, columns, node.shape[1][0]])
    if node.has(2):
        y = tf.nn.bias_add(y, node.constant(2))
    return node.like(y, CHANNELS_LAST)


def _pool(node: Node) -> tuple[Value, list[int], list[int], list[list[int]]]:
    x, size = channels_last(node), list(node.attributes["kernel_shape"])
    strides, dilations, pads = window(node, size)
    if dilations != [1, 1]:
        raise Unsupported("a dilated pooling")
    for axis in range(2):  # ceil_mode lets the last window reach beyond the pads
        covered = (node.shape[axis + 2][0] - 1) * strides[axis] + size[axis]
        pads[axis][1] = max(covered - x.shape[axis + 2][0] - pads[axis][0], 0)
    return x, size, strides, pads


@handles("MaxPool")
def max_pool(node: Node) -> Value:
    if len(node.shapes) > 1:
        raise Unsupported("a pooling that returns indices")
    x, size, strides, pads = _pool(node)
    return node.like(tf.nn.max_pool2d(x.tensor, size, strides, padding(pads, size, strides, [1, 1])), CHANNELS_LAST)


@handles("AveragePool")
def average_pool(node: Node) -> Value:
    x, size, strides, pads = _pool(node)
    _, _, given = window(node, size)
    whole = tf.pad(x.tensor, [[0, 0], *pads, [0, 0]]) if np.any(pads) else x.tensor
    y = tf.nn.avg_pool2d(whole, size, strides, "VALID")
    counts = [
        _counts(
            (x.shape[axis + 2][0], size[axis], strides[axis]),
            pads[axis],
            given[axis],
            node.shape[axis + 2][0],
            bool(node.attributes.get("count_include_pad", 0)),
        )
        for axis in range(2)
    ]
    factors = np.prod(size) / np.outer(*counts)
    if (factors != 1).any():
        y = y * factors[:, :, np.newaxis].astype(np.float32)
    return node.like(y, CHANNELS_LAST)


def _counts(axis: tuple[int, int, int], pads: list[int], given: list[int], out: int, include: bool) -> NDArray[Any]:
    """How many cells each window averages along an axis of (length, window, stride)."""
    length, size, stride = axis
    cells = np.zeros(pads[0] + length + pads[1])
    cells[pads[0] - (given[0] if include else 0) : pads[0] + length + (given[1] if include else 0)] = 1
    return np.array([cells[place * stride : place * stride + size].sum() for place in range(out)])


@handles("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node) -> Value:
    x = channels_last(node)
    reduce = tf.reduce_mean if node.op == "GlobalAveragePool" else tf.reduce_max
    return node.like(reduce(x.tensor, (1, 2), keepdims=True), CHANNELS_LAST)


@handles("BatchNormalization")
def batch_norm(node: Node) -> Value:
    gain, bias, mean, variance = (node.constant(index).astype(np.float64) for index in range(1, 5))
    gain = gain / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    shape = [-1 if axis == 1 else 1 for axis in node.x.order]
    scale, shift = (value.astype(np.float32).reshape(shape) for value in (gain, bias - mean * gain))
    return node.like(node.x.tensor * scale + shift)


@handles("LayerNormalization")
def layer_norm(node: Node) -> Value:
    first = node.attributes.get("axis", -1) % node.x.rank
    y = normalised(node, range(first, node.x.rank))
    return _scaled(node, y, list(range(first, node.x.rank)))


@handles("InstanceNormalization")
def instance_norm(node: Node) -> Value:
    return _scaled(node, normalised(node, range(2, node.x.rank)), [1])


def normalised(node: Node, axes: Iterable[int]) -> Any:
    """The first input with mean 0 and variance 1 over some axes."""
    x, places = node.x.tensor, [node.x.axis(axis) for axis in axes]
    centred = x - tf.reduce_mean(x, places, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), places, keepdims=True)
    return centred * tf.math.rsqrt(variance + node.attributes.get("epsilon", 1e-5))


def _scaled(node: Node, y: Any, axes: list[int]) -> Value:
    for index, apply in ((1, tf.multiply), (2, tf.add)):
        if node.has(index):
            values = node.constant(index)
            shape = [1] * node.x.rank
            for axis, length in zip(axes, values.shape, strict=True):
                shape[axis] = length
            y = apply(y, np.transpose(values.reshape(shape), node.x.order))
    return node.like(y)


@handles("Resize")
def resize(node: Node) -> Value:
    """Each axis by a matrix, which ONNX Runtime itself yields for that axis alone."""
    x = channels_last(node)
    if x.shape[:2] != node.shape[:2]:
        raise Unsupported("a resize of the batch or the channels")
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
