"""Handlers of operators that move, join or cut tensors."""

from typing import Any

import numpy as np

from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.onnx_graph.node import Node, Unsupported, handles
from emotion_ai_export.convert.onnx_graph.values import Value, plain, raised, tf_length


@handles("Transpose")
def transpose(node: Node) -> Value:
    """Renumbers the axes; nothing moves."""
    permutation = node.attributes.get("perm", plain(node.x.rank)[::-1])
    return node.like(node.x.tensor, [permutation.index(axis) for axis in node.x.order])


@handles("Concat")
def concat(node: Node) -> Value:
    values = [node.given(index) for index in range(len(node.inputs))]
    leader = max(values, key=lambda value: (not value.is_constant, np.prod([dim[1] for dim in value.shape])))
    tensors = [node.reorder(value, leader.order).tensor for value in values]
    return Value(tf.concat(tensors, leader.axis(node.attributes["axis"])), leader.order, node.shape)


@handles("Split")
def split(node: Node) -> list[Value]:
    axis = node.attributes.get("axis", 0) % node.x.rank
    sizes = [shape[axis][0] for shape in node.shapes]
    if any(shape[axis][0] != shape[axis][1] for shape in node.shapes):
        raise Unsupported("a split of the batch")
    parts = tf.split(node.x.tensor, sizes, node.x.axis(axis))
    return [Value(part, node.x.order, shape) for part, shape in zip(parts, node.shapes, strict=True)]


@handles("Slice")
def sliced(node: Node) -> Value:
    starts, ends = node.constant(1).tolist(), node.constant(2).tolist()
    axes = node.constant(3).tolist() if node.has(3) else list(range(len(starts)))
    steps = node.constant(4).tolist() if node.has(4) else [1] * len(starts)
    cut = [slice(None)] * node.x.rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        (length, other) = node.x.shape[axis % node.x.rank]
        if length != other:
            if (start, step) != (0, 1) or end < 2**31 - 1:
                raise Unsupported("a slice of the batch")
            continue
        places = (
            range(length)[start:end:step] if step > 0 else range(length)[start : None if end < -length else end : step]
        )
        stop: int | None = places.stop
        cut[node.x.axis(axis)] = slice(places.start, stop if stop is not None and stop >= 0 else None, step)
    return node.like(node.x.tensor[tuple(cut)])


@handles("Gather")
def gather(node: Node) -> Value:
    places, axis = node.constant(1), node.attributes.get("axis", 0) % node.x.rank
    length, other = node.x.shape[axis]
    if length != other:
        raise Unsupported("a choice of some of the batch")
    if places.ndim > 1:
        x = node.reorder(node.x, plain(node.x.rank))
        return node.like(tf.gather(x.tensor, (places % length).astype(np.int32), axis=axis), plain(len(node.shape)))
    y = tf.gather(node.x.tensor, (places % length).astype(np.int32), axis=node.x.axis(axis))
    if places.ndim == 1:
        return node.like(y)
    left = [other for other in node.x.order if other != axis]
    return node.like(y, [sorted(left).index(other) for other in left])


@handles("Expand")
def expand(node: Node) -> Value:
    x = raised(node.x, len(node.shape))
    sizes = [tf_length(node.shape[axis], node.batch) for axis in x.order]
    return Value(tf.broadcast_to(x.tensor, sizes), x.order, node.shape)


@handles("Tile")
def tile(node: Node) -> Value:
    repeats: Any = node.constant(1).astype(int)
    return node.like(tf.tile(node.x.tensor, [int(repeats[axis]) for axis in node.x.order]))


def per_batch(array: Any, shape: Any, batch: Any) -> Value:
    """A constant that only depends on the size of the batch by its length: the smallest part, repeated.

    Raises:
        Unsupported: it depends on it in another way.
    """
    dynamic = [axis for axis, dim in enumerate(shape) if dim[0] != dim[1]]
    if len(dynamic) != 1:
        raise Unsupported("a constant that depends on the batch")
    axis = dynamic[0]
    length = shape[axis][1] - shape[axis][0]
    part = np.take(array, range(length), axis)
    count = array.shape[axis] // length
    if not np.array_equal(np.concatenate([part] * count, axis), array):
        raise Unsupported("a constant that depends on the batch")
    repeats = [batch() if place == axis else 1 for place in range(array.ndim)]
    return Value(tf.tile(tf.constant(part), repeats), plain(array.ndim), shape)
