"""Handlers of element-wise operators, reductions, softmax and matrix products."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.onnx_graph.node import Node, Unsupported, handles
from emotion_ai_export.convert.onnx_graph.values import CHANNELS_LAST, Value, lengths, plain, reshape

_UNARY = {
    "Abs": tf.abs,
    "Ceil": tf.math.ceil,
    "Cos": tf.cos,
    "Erf": tf.math.erf,
    "Exp": tf.exp,
    "Floor": tf.floor,
    "Identity": tf.identity,
    "Log": tf.math.log,
    "Neg": tf.negative,
    "Not": tf.logical_not,
    "Reciprocal": tf.math.reciprocal,
    "Relu": tf.nn.relu,
    "Round": tf.round,
    "Sigmoid": tf.sigmoid,
    "Sign": tf.sign,
    "Sin": tf.sin,
    "Softplus": tf.math.softplus,
    "Softsign": tf.nn.softsign,
    "Sqrt": tf.sqrt,
    "Tanh": tf.tanh,
}

_BINARY = {
    "Add": tf.add,
    "And": tf.logical_and,
    "Div": lambda x, y: (tf.truncatediv if tf.as_dtype(x.dtype).is_integer else tf.divide)(x, y),
    "Equal": tf.equal,
    "Greater": tf.greater,
    "GreaterOrEqual": tf.greater_equal,
    "Less": tf.less,
    "LessOrEqual": tf.less_equal,
    "Max": tf.maximum,
    "Min": tf.minimum,
    "Mul": tf.multiply,
    "Or": tf.logical_or,
    "Pow": tf.pow,
    "Sub": tf.subtract,
}


def by_axis(reduce: Callable[..., Any], x: Any, axes: Sequence[int], keepdims: bool) -> Any:
    """A sum or mean of one axis after another: TensorFlow adds all pixels of NHWC in a row, which rounds much more.

    Args:
        reduce: `tf.reduce_sum` or `tf.reduce_mean`.
        x: the tensor.
        axes: not negative.
        keepdims: keeps them with length 1.
    """
    for axis in sorted(axes, reverse=True):
        x = reduce(x, axis, keepdims=keepdims)
    return x


def _sum(x: Any, axes: Sequence[int], keepdims: bool) -> Any:
    return by_axis(tf.reduce_sum, x, axes, keepdims)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMax": tf.reduce_max,
    "ReduceMean": lambda x, axes, keepdims: by_axis(tf.reduce_mean, x, axes, keepdims),
    "ReduceMin": tf.reduce_min,
    "ReduceProd": tf.reduce_prod,
    "ReduceSum": _sum,
    "ReduceL1": lambda x, axes, keepdims: _sum(tf.abs(x), axes, keepdims),
    "ReduceL2": lambda x, axes, keepdims: tf.sqrt(_sum(tf.square(x), axes, keepdims)),
    "ReduceLogSumExp": tf.reduce_logsumexp,
    "ReduceSumSquare": lambda x, axes, keepdims: _sum(tf.square(x), axes, keepdims),
}


@handles(*_UNARY)
def unary(node: Node) -> Value:
    return node.like(_UNARY[node.op](node.x.tensor))


@handles(*_BINARY)
def binary(node: Node) -> Value:
    if node.op == "Add" and len(node.inputs) == 2:
        for product, bias in ((node.given(0), node.given(1)), (node.given(1), node.given(0))):
            if product.flat is not None and bias.is_constant and bias.shape[-1:] == product.shape[-1:] == bias.shape:
                y = tf.nn.bias_add(product.flat, bias.tensor)  # before the reshape, where TensorFlow fuses it
                return Value(tf.reshape(y, lengths(node.shape, product.order, node.batch)), product.order, node.shape)
    tensors, order = node.aligned([node.given(index) for index in range(len(node.inputs))])
    y = tensors[0]
    for other in tensors[1:]:
        y = _BINARY[node.op](y, other)
    return Value(y, order, node.shape)


@handles("Where")
def where(node: Node) -> Value:
    tensors, order = node.aligned([node.given(index) for index in range(3)])
    return Value(tf.where(*tensors), order, node.shape)


@handles("Cast")
def cast(node: Node) -> Value:
    kinds = {1: tf.float32, 6: tf.int32, 7: tf.int64, 9: tf.bool, 11: tf.float64}
    if node.attributes["to"] not in kinds:
        raise Unsupported(f"a cast to ONNX's type {node.attributes['to']}")
    kind = kinds[node.attributes["to"]]
    return node.like(node.x.tensor if node.x.tensor.dtype == kind else tf.cast(node.x.tensor, kind))


@handles("Clip")
def clip(node: Node) -> Value:
    low, high = (node.constant(index).item() if node.has(index) else None for index in (1, 2))
    y = node.x.tensor
    if (low, high) == (0, 6):
        return node.like(tf.nn.relu6(y))
    y = y if high is None else tf.minimum(y, high)
    return node.like(y if low is None else tf.maximum(y, low))


@handles("PRelu")
def prelu(node: Node) -> Value:
    (x, slope), order = node.aligned([node.given(0), node.given(1)])
    return Value(tf.nn.relu(x) - slope * tf.nn.relu(-x), order, node.shape)


@handles("LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid", "HardSwish", "Gelu", "Mish", "ThresholdedRelu")
def activation(node: Node) -> Value:
    x, get = node.x.tensor, node.attributes.get
    match node.op:
        case "LeakyRelu":
            y = _leaky_relu(x, get("alpha", 0.01))
        case "Elu":
            alpha = get("alpha", 1.0)
            y = tf.nn.elu(x) if alpha == 1 else tf.where(x > 0, x, alpha * tf.math.expm1(tf.minimum(x, 0)))
        case "Selu":
            alpha, gamma = get("alpha", 1.6732632), get("gamma", 1.0507010)
            y = gamma * tf.where(x > 0, x, alpha * tf.math.expm1(tf.minimum(x, 0)))
        case "Celu":
            alpha = get("alpha", 1.0)
            y = tf.maximum(x, 0) + tf.minimum(alpha * tf.math.expm1(tf.minimum(x, 0) / alpha), 0)
        case "HardSigmoid":
            y = tf.minimum(tf.maximum(x * get("alpha", 0.2) + get("beta", 0.5), 0), 1)
        case "HardSwish":
            y = x * (tf.nn.relu6(x + 3) / 6)
        case "Mish":
            y = x * tf.tanh(tf.math.softplus(x))
        case "ThresholdedRelu":
            y = tf.where(x > get("alpha", 1.0), x, tf.zeros_like(x))
        case _:
            y = tf.nn.gelu(x, approximate=get("approximate", "none") == "tanh")
    return node.like(y)


def _leaky_relu(x: Any, alpha: float) -> Any:
    """Without TensorFlow's own operation after a sum: fused with a convolution and a sum, 2.21 takes 0.2 for alpha."""
    if tf.executing_eagerly() or x.op.type == "BiasAdd":
        return tf.nn.leaky_relu(x, alpha)
    return tf.maximum(x, alpha * x) if alpha <= 1 else tf.where(x > 0, x, alpha * x)


@handles(*_REDUCTIONS)
def reduction(node: Node) -> Value:
    axes = node.attributes.get("axes")
    if axes is None:
        axes = node.constant(1).tolist() if node.has(1) else list(plain(node.x.rank))
    axes = [axis % node.x.rank for axis in axes]
    keep = bool(node.attributes.get("keepdims", 1))
    places = sorted(node.x.axis(axis) for axis in axes)
    y = _REDUCTIONS[node.op](node.x.tensor, places, keepdims=keep)
    order = node.x.order
    if not keep:
        left = [axis for axis in order if axis not in axes]
        order = tuple(sorted(left).index(axis) for axis in left)
    return node.like(y, order)


@handles("ArgMax", "ArgMin")
def argument(node: Node) -> Value:
    axis = node.attributes.get("axis", 0) % node.x.rank
    y = (tf.argmax if node.op == "ArgMax" else tf.argmin)(node.x.tensor, node.x.axis(axis))
    left = [other for other in node.x.order if other != axis]
    if node.attributes.get("keepdims", 1):
        return node.like(tf.expand_dims(y, node.x.axis(axis)))
    return node.like(y, [sorted(left).index(other) for other in left])


@handles("Softmax", "LogSoftmax")
def softmax(node: Node) -> Value:
    x, place = node.x.tensor, node.x.axis(node.attributes.get("axis", -1))
    if place == node.x.rank - 1:
        return node.like(tf.nn.softmax(x) if node.op == "Softmax" else tf.nn.log_softmax(x))
    shifted = x - tf.reduce_max(x, place, keepdims=True)  # TensorFlow transposes for another axis
    powers = tf.exp(shifted)
    total = tf.reduce_sum(powers, place, keepdims=True)
    return node.like(powers / total if node.op == "Softmax" else shifted - tf.math.log(total))


@handles("Gemm")
def gemm(node: Node) -> Value:
    weights = node.constant(1)
    weights = weights.T if node.attributes.get("transB", 0) else weights
    x, weights = _rows(node, node.x, weights * np.float32(node.attributes.get("alpha", 1.0)))
    if node.attributes.get("transA", 0):
        raise Unsupported("a product with the transposed batch")
    y = tf.matmul(x, weights)
    if node.has(2):
        bias = node.constant(2) * np.float32(node.attributes.get("beta", 1.0))
        y = tf.nn.bias_add(y, np.broadcast_to(bias, weights.shape[1:]))
    return node.like(y, (0, 1))


def _rows(node: Node, x: Value, weights: Any) -> tuple[Any, Any]:
    """Rows and weights; those of a flattened image take its order instead of transposing it."""
    if x.image is None:
        return node.reorder(x, (0, 1)).tensor, weights
    _, channels, rows, columns = (dim[0] for dim in x.image.shape)
    weights = weights.reshape(channels, rows, columns, -1).transpose(1, 2, 0, 3).reshape(weights.shape)
    return x.tensor, weights


def product_along(x: Any, place: int, matrix: Any) -> Any:
    """The product of a matrix (out, in) with the rows (1) or columns (2) of images in NHWC, without a transpose."""
    _, height, width, channels = x.shape
    if place == 1:
        y = tf.matmul(matrix, tf.reshape(x, [-1, height, width * channels]))
        return tf.reshape(y, [-1, len(matrix), width, channels])
    y = tf.matmul(matrix, tf.reshape(x, [-1, width, channels]))
    return tf.reshape(y, [-1, height, len(matrix), channels])


@handles("MatMul")
def matmul(node: Node) -> Value:
    a, b = node.given(0), node.given(1)
    if b.is_constant and b.rank == 2 and a.rank > 1:
        weights = b.array()
        if a.rank == 2:
            rows, weights = _rows(node, a, weights)
            return node.like(tf.matmul(rows, weights), (0, 1))
        if a.order == CHANNELS_LAST:
            return node.like(product_along(a.tensor, 2, weights.T), CHANNELS_LAST)
        a = node.reorder(a, [*(axis for axis in a.order if axis != a.rank - 1), a.rank - 1])
        flat = tf.matmul(tf.reshape(a.tensor, [-1, weights.shape[0]]), weights)
        y = tf.reshape(flat, lengths(node.shape, a.order, node.batch))
        return Value(y, a.order, node.shape, flat=flat)
    if a.is_constant and a.rank == 2 and b.order == CHANNELS_LAST:
        return Value(product_along(b.tensor, 1, a.array()), CHANNELS_LAST, node.shape)
    if min(a.rank, b.rank) < 2:
        raise Unsupported("a product with a vector")
    rank = max(a.rank, b.rank)
    (a, a_turned), (b, b_turned) = _matrices(node, a), _matrices(node, b)
    straight = all(value.order[:-2] == plain(value.rank - 2) for value in (a, b))
    if not straight and (a.rank != b.rank or a.order[:-2] != b.order[:-2]):
        (a, a_turned), (b, b_turned) = ((node.reorder(value, plain(value.rank)), False) for value in (a, b))
    order = (*(a if a.rank == rank else b).order[:-2], rank - 2, rank - 1)
    return Value(tf.matmul(a.tensor, b.tensor, a_turned, b_turned), order, node.shape)


def _matrices(node: Node, value: Value) -> tuple[Value, bool]:
    """A tensor whose last two axes lie last, and whether they are swapped."""
    last = {value.rank - 2, value.rank - 1}
    if set(value.order[-2:]) != last:
        value = node.reorder(value, [*(axis for axis in value.order if axis not in last), *sorted(last)])
    return value, value.order[-1] == value.rank - 2


@handles("Einsum")
def einsum(node: Node) -> Value:
    equation = node.attributes["equation"].replace(" ", "")
    operands = [node.given(index) for index in range(len(node.inputs))]
    terms = equation.partition("->")[0].split(",")
    if "->" not in equation or "." in equation:
        raise Unsupported(f"the equation {equation}")
    moved = ["".join(term[axis] for axis in value.order) for term, value in zip(terms, operands, strict=True)]
    made = tf.einsum(f"{','.join(moved)}->{equation.partition('->')[2]}", *(value.tensor for value in operands))
    return node.like(made, plain(len(node.shape)))


@handles("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout")
def reshaped(node: Node) -> Value:
    if _is_flattened_image(node):  # its pixels stay in their order, which the weights take
        rows = tf.reshape(node.x.tensor, [-1, node.shape[1][0]])
        return Value(rows, (0, 1), node.shape, image=node.x)
    return reshape(node.x, node.shape, node.batch, node.for_litert)


def _is_flattened_image(node: Node) -> bool:
    """Whether only matrix products take an image's pixels as rows."""
    products = bool(node.users) and all(op in ("Gemm", "MatMul") and place == 0 for op, place in node.users)
    return products and len(node.shape) == 2 and node.x.order == (0, 2, 3, 1) and node.x.shape[0] == node.shape[0]
