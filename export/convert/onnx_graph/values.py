"""Tensors whose axes lie in another order in memory than ONNX numbers them.

Images stay in NHWC while ONNX speaks of NCHW. A transpose only renumbers the axes, and a reshape moves data only if the
axes that it merges do not lie beside each other in their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai_export.convert.frameworks import tf

CHANNELS_LAST = (0, 2, 3, 1)

Dim = tuple[int, int]
"""The length of an axis at the two batch sizes of the trace; they differ if it depends on the batch."""


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the ONNX model.

    Attributes:
        tensor: in TensorFlow, or an array if it is constant.
        order: which axis of ONNX each axis of the tensor is.
        shape: its dimensions in ONNX's order.
        unpadded: the tensor before zeros were put around it, and how many before and after height and width.
        flat: for a matrix product: the 2-D product that `tensor` reshapes.
        image: for a flattened image, whose pixels are in the image's order, not ONNX's: the image.
    """

    tensor: Any
    order: tuple[int, ...]
    shape: tuple[Dim, ...]
    unpadded: "tuple[Value, list[list[int]]] | None" = None
    flat: Any = None
    image: "Value | None" = None

    @property
    def is_constant(self) -> bool:
        return isinstance(self.tensor, np.ndarray)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def axis(self, axis: int) -> int:
        """Where an axis of ONNX lies in the tensor."""
        return self.order.index(axis % self.rank)

    def array(self) -> NDArray[Any]:
        """A constant in ONNX's order."""
        return np.transpose(self.tensor, np.argsort(self.order))


def plain(rank: int) -> tuple[int, ...]:
    return tuple(range(rank))


def lengths(shape: Sequence[Dim], order: Sequence[int], batch: Any) -> list[Any]:
    """Dimensions for TensorFlow: numbers, one -1, or multiples of the batch if several depend on it."""
    dims = [shape[axis] for axis in order]
    dynamic = [dim for dim in dims if dim[0] != dim[1]]
    if len(dynamic) <= 1:
        return [-1 if dim[0] != dim[1] else dim[0] for dim in dims]
    return [tf_length(dim, batch) for dim in dims]


def tf_length(dim: Dim, batch: Any) -> Any:
    """One dimension: a number, or a multiple of the batch."""
    return dim[0] if dim[0] == dim[1] else batch() * (dim[1] - dim[0])


def reorder(value: Value, order: Sequence[int], batch: Any) -> Value:
    """The same tensor with its axes in another order; only axes longer than 1 cost a transpose."""
    order = tuple(order)
    if order == value.order:
        return value
    permutation = [value.order.index(axis) for axis in order]
    if value.is_constant:
        return Value(np.transpose(value.tensor, permutation), order, value.shape)
    if _long(value, value.order) == _long(value, order):
        return Value(tf.reshape(value.tensor, lengths(value.shape, order, batch)), order, value.shape)
    return Value(tf.transpose(value.tensor, permutation), order, value.shape)


def _long(value: Value, order: Sequence[int]) -> list[int]:
    return [axis for axis in order if value.shape[axis] != (1, 1)]


def raised(value: Value, rank: int) -> Value:
    """The same tensor with leading axes of length 1, as broadcasting adds them."""
    more = rank - value.rank
    if not more:
        return value
    order = (*range(more), *(axis + more for axis in value.order))
    shape = ((1, 1),) * more + value.shape
    index = (np.newaxis,) * more + (Ellipsis,)
    return Value(value.tensor[index], order, shape)


def reshape(value: Value, shape: Sequence[Dim], batch: Any, for_litert: bool = False) -> Value:
    """ONNX's reshape. Axes that it merges must lie beside each other in memory; otherwise data moves."""
    shape = tuple(shape)
    if shape == value.shape:
        return value
    groups = _groups(value.shape, shape)
    source = value
    for axes, _ in groups:
        if not _beside(source, axes):
            source = _in_order(source, axes, batch, for_litert)
    starts = {axes[0]: made for axes, made in groups if axes}
    order = [axis for place in source.order for axis in starts.get(place, ())]
    missing = [axis for axis in range(len(shape)) if axis not in order]  # of length 1
    order = _with_ones(order, missing)
    if value.is_constant:
        sizes = [shape[axis][0] for axis in order]
        return Value(source.tensor.reshape(sizes), tuple(order), shape)
    return Value(tf.reshape(source.tensor, lengths(shape, order, batch)), tuple(order), shape)


def _beside(value: Value, axes: Sequence[int]) -> bool:
    """Whether axes lie in memory in their order, with nothing longer than 1 between them."""
    places = [value.order.index(axis) for axis in axes]
    within = value.order[min(places) : max(places) + 1]
    return [axis for axis in within if value.shape[axis] != (1, 1)] == list(axes)


def _in_order(value: Value, axes: Sequence[int], batch: Any, for_litert: bool) -> Value:
    """With axes in their order: by a choice along all of them as one if they were one, as in a shuffle of channels."""
    places = [value.order.index(axis) for axis in axes]
    first, end = min(places), max(places) + 1
    within = [axis for axis in value.order[first:end] if value.shape[axis] != (1, 1)]
    outside = [[value.shape[axis] for axis in part] for part in (value.order[:first], value.order[end:])]
    sizes = [value.shape[axis][0] for axis in within]
    alone = sorted(within) == sorted(axes) and _size(value.shape, axes) == (prod(sizes), prod(sizes))
    flattened = all(small != large or small == 1 for small, large in (*outside[0], *outside[1]))
    if value.is_constant or not alone or flattened:  # for a whole image, a transpose is faster
        return reorder(value, plain(value.rank), batch)
    indices = np.arange(prod(sizes)).reshape(sizes).transpose([within.index(axis) for axis in axes]).reshape(-1)
    whole = [*outside[0], (indices.size, indices.size), *outside[1]]
    flat = tf.reshape(value.tensor, lengths(whole, plain(len(whole)), batch))
    y = tf.gather(flat, indices.astype(np.int32), axis=first) if for_litert else _chosen(flat, indices, first)
    ones = [axis for axis in value.order[first:end] if axis not in axes]
    order = (*value.order[:first], *axes, *ones, *value.order[end:])
    return Value(tf.reshape(y, lengths(value.shape, order, batch)), order, value.shape)


def _chosen(x: Any, indices: NDArray[Any], place: int) -> Any:
    """Some of a tensor along one of its axes."""
    half = len(indices) // 2
    if place == len(x.shape) - 1 and np.array_equal(indices, np.arange(2 * half).reshape(2, half).T.reshape(-1)):
        # four times as fast as a gather, which copies single numbers; LiteRT has no complex ones
        pairs = tf.complex(x[..., :half], x[..., half:])
        return tf.reshape(tf.bitcast(pairs, x.dtype), tf.shape(x))
    return tf.gather(x, indices.astype(np.int32), axis=place)


def _with_ones(order: list[int], ones: list[int]) -> list[int]:
    """Puts axes of length 1 where a channels-last tensor would have them."""
    if len(order) + len(ones) == 4 and ones and set(order) <= {0, 1} and order == sorted(order):
        return [axis for axis in CHANNELS_LAST if axis in order or axis in ones]
    for axis in ones:
        after = [place for place, other in enumerate(order) if other < axis]
        order = order[: (place := max(after) + 1 if after else 0)] + [axis] + order[place:]
    return order


def _groups(old: Sequence[Dim], new: Sequence[Dim]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes, without those of length 1, that a reshape turns into each other."""
    before = [axis for axis, dim in enumerate(old) if dim != (1, 1)]
    after = [axis for axis, dim in enumerate(new) if dim != (1, 1)]
    groups: list[tuple[list[int], list[int]]] = []
    while before or after:
        taken: tuple[list[int], list[int]] = ([], [])
        while True:
            sizes = [_size(old, taken[0]), _size(new, taken[1])]
            if taken[0] and taken[1] and sizes[0] == sizes[1]:
                break
            side = 0 if before and (not taken[0] or prod(sizes[0]) <= prod(sizes[1]) or not after) else 1
            rest = (before, after)[side]
            if not rest:
                raise ValueError(f"cannot reshape {list(old)} to {list(new)}")
            taken[side].append(rest.pop(0))
        groups.append(taken)
    return groups


def _size(shape: Sequence[Dim], axes: Sequence[int]) -> Dim:
    return prod(shape[axis][0] for axis in axes), prod(shape[axis][1] for axis in axes)
