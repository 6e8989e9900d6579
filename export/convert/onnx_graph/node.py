"""One node of an ONNX model, as handlers see it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emotion_ai_export.convert.onnx_graph.values import Dim, Value, raised, reorder


class Unsupported(Exception):
    """Why a node cannot be translated."""


@dataclass(frozen=True)
class Node:
    """A node with its translated inputs.

    Attributes:
        op: the operator.
        attributes: by name, as Python values.
        inputs: None where one is left out.
        shapes: of the outputs.
        users: the operators that take the first output, with the position at which they take it.
        batch: makes the scalar tensor with the size of the batch.
        for_litert: whether the graph becomes a LiteRT file.
    """

    op: str
    attributes: dict[str, Any]
    inputs: list[Value | None]
    shapes: list[tuple[Dim, ...]]
    users: list[tuple[str, int]]
    batch: Callable[[], Any]
    for_litert: bool = False

    @property
    def x(self) -> Value:
        """The first input."""
        return self.given(0)

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.shapes[0]

    def given(self, index: int) -> Value:
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise Unsupported(f"its input {index} is missing, or depends on the number of images")
        return value

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def constant(self, index: int) -> Any:
        """A constant input as an array, in ONNX's order."""
        value = self.given(index)
        if not value.is_constant:
            raise Unsupported(f"its input {index} is computed from the images; only a constant is supported")
        return value.array()

    def reorder(self, value: Value, order: Sequence[int]) -> Value:
        return reorder(value, order, self.batch)

    def like(self, tensor: Any, order: Sequence[int] | None = None) -> Value:
        """The first output: a tensor in the order of the first input, or in another."""
        return Value(tensor, tuple(self.x.order if order is None else order), self.shape)

    def aligned(self, values: Sequence[Value]) -> tuple[list[Any], tuple[int, ...]]:
        """Tensors of one rank in one order, for broadcasting: that of the largest one."""
        rank = len(self.shape)
        values = [raised(value, rank) for value in values]
        leader = max(values, key=lambda value: (not value.is_constant, np.prod([dim[1] for dim in value.shape])))
        tensors = []
        for value in values:
            tensor = self.reorder(value, leader.order).tensor
            tensors.append(_as_term(tensor, leader.shape[leader.order[-1]]) if value.is_constant else tensor)
        return tensors, leader.order


Handler = Callable[[Node], Value | list[Value]]

HANDLERS: dict[str, Handler] = {}
"""By operator of ONNX."""


def handles(*operators: str) -> Callable[[Handler], Handler]:
    """Registers a handler of some operators."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(operators, handler))
        return handler

    return register


def _as_term(array: Any, last: Dim) -> Any:
    """A constant as TensorFlow adds it rightly.

    Without leading axes of length 1, as it fuses the addition of a vector. One value for all channels is repeated, as
    TensorFlow would take it for the bias of a convolution.
    """
    if array.ndim and array.size == array.shape[-1]:
        return array.reshape(array.shape[-1:])
    return array.repeat(last[0], -1) if array.ndim and array.shape[-1] == 1 and last[0] == last[1] else array
