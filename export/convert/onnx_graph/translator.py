"""An ONNX model to a TensorFlow function.

Two runs in ONNX Runtime tell which tensors are constant and which lengths depend on the batch, so shape arithmetic is
never translated. What cannot be translated is refused before anything is built, by the name of its layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from emotion_ai.errors import ExportError
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.onnx_graph import arithmetic, layers, structure  # noqa: F401 - register their handlers
from emotion_ai_export.convert.onnx_graph.delegated import delegated, refusal
from emotion_ai_export.convert.onnx_graph.node import HANDLERS, Node, Unsupported
from emotion_ai_export.convert.onnx_graph.structure import per_batch
from emotion_ai_export.convert.onnx_graph.trace import BATCHES, Trace, dims, example_inputs
from emotion_ai_export.convert.onnx_graph.values import Dim, Value, plain, reorder

_SHAPE_ONLY = ("Shape", "Size")

_TAKE_SIZES = "take sizes as x.shape[0], not as len(x) or int(x.shape[0]), and do not loop over images"


@dataclass(frozen=True)
class Difference:
    """Where TensorFlow's values begin to differ from ONNX Runtime's.

    Attributes:
        layer: the module's path, such as "layer1.0.conv2".
        operator: of ONNX.
        difference: the largest, as a share of the largest value that goes in or comes out.
    """

    layer: str
    operator: str
    difference: float

    def __str__(self) -> str:
        return f"the first layer that differs is {self.layer} ({self.operator}), by {self.difference:.1e} of its values"


def layer_name(node: Any) -> str:
    """The path of the module that a node comes from: "/layer1/layer1.0/conv1/Conv" is "layer1.0.conv1"."""
    path = ""
    for part in [part for part in node.name.split("/") if part][:-1]:
        parent, _, last = part.rpartition(".")  # a part of a Sequential repeats the Sequential's name
        repeated = parent and f".{path}".endswith(f".{parent}")
        path = f"{path}.{last if repeated else part}" if path else part
    return path or "the network itself"


class Translator:
    """A model, read and checked; `__call__` builds its graph in TensorFlow.

    Args:
        model: of which each input has the batch as its first axis.
        highest: value of the noise with which the model is run.

    Raises:
        ExportError: names the first layer with an operator that cannot be translated.
    """

    def __init__(self, model: onnx.ModelProto, highest: float = 1.0) -> None:
        self.model = model
        self.highest = highest
        self.opset = next(each.version for each in model.opset_import if not each.domain)
        self.nodes = list(model.graph.node)
        self.inputs = [given.name for given in model.graph.input]
        self.outputs = [made.name for made in model.graph.output]
        self.weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        self._check()
        self._users: dict[str, list[tuple[str, int]]] = {}
        for node in self.nodes:
            for place, name in enumerate(node.input):
                self._users.setdefault(name, []).append((node.op_type, place))
        for name in self.outputs:
            self._users.setdefault(name, []).append(("output", 0))

    def _check(self) -> None:
        missing: dict[str, str] = {}
        computed = self._computed
        for node in self.nodes:
            if computed.intersection(node.output) and node.op_type not in HANDLERS:
                missing.setdefault(node.op_type, layer_name(node))
        reasons = [(layer, refusal(op, self.opset)) for op, layer in missing.items()]
        if listed := "; ".join(f"{layer}: {reason}" for layer, reason in reasons if reason):
            raise ExportError(listed)

    @cached_property
    def _computed(self) -> set[str]:
        """Names of the tensors that depend on the inputs' values."""
        found = set(self.inputs)
        for node in self.nodes:
            if node.op_type not in _SHAPE_ONLY and found.intersection(node.input):
                found.update(node.output)
        return found

    @cached_property
    def _traces(self) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        trace = Trace(self.model)
        try:
            small, large = (trace(example_inputs(self.model, batch, self.highest)) for batch in BATCHES)
        except Exception as error:  # ONNX Runtime raises many kinds
            name = str(error).partition("Name:'")[2].partition("'")[0]
            layer = next((layer_name(node) for node in self.nodes if name and node.name == name), "the network itself")
            raise ExportError(f"{layer}: fails for other numbers of images than two; {_TAKE_SIZES}") from error
        return small, large

    def require_batches(self) -> None:
        """Raises:
        ExportError: an output has the same length for any number of images.
        """
        for name in self.outputs:
            few, more = (len(trace[name]) for trace in self._traces)
            if few * BATCHES[1] != more * BATCHES[0]:
                raise ExportError(f"{name} has {more} parts for {BATCHES[1]} images; {_TAKE_SIZES}")

    def shape(self, name: str) -> tuple[Dim, ...]:
        """Dimensions of a computed tensor, or of one that depends on the batch alone."""
        small, large = (trace[name].shape for trace in self._traces)
        if len(small) != len(large) or any(
            a != b and a * BATCHES[1] != b * BATCHES[0] for a, b in zip(small, large, strict=True)
        ):
            raise Unsupported(f"the shape of {name} depends on the values or is no multiple of the batch")
        return dims(small, large)

    def __call__(
        self, given: Mapping[str, Any], order: Mapping[str, tuple[int, ...]], for_litert: bool = False
    ) -> dict[str, Value]:
        """Builds the graph in the current one.

        Args:
            given: the inputs' tensors.
            order: which axis of ONNX each of their axes is.
            for_litert: uses only what LiteRT has, too.

        Returns:
            All computed values by name.

        Raises:
            ExportError: names the first layer that cannot be translated.
        """
        first = given[self.inputs[0]]
        size: list[Any] = []

        def batch() -> Any:
            if not size:
                size.append(tf.shape(first)[0])
            return size[0]

        values = {name: Value(tensor, order[name], self.shape(name)) for name, tensor in given.items()}
        constants: dict[str, Value | None] = {"": None}
        for node in self.nodes:
            if not self._computed.intersection(node.output):
                continue
            try:
                inputs = [
                    values[name] if name in values else self._constant(name, constants, batch) for name in node.input
                ]
                shapes = [self.shape(name) for name in node.output if name and name in self._traces[0]]
                users = self._users.get(node.output[0], [])
                seen = Node(node.op_type, _attributes(node), inputs, shapes, users, batch, for_litert)
                handler = HANDLERS.get(node.op_type)
                made = delegated(seen, node, self.opset) if handler is None else handler(seen)
                made = [made] if isinstance(made, Value) else made
                for name, value in zip(node.output, made, strict=False):
                    _check_shape(value)
                    values[name] = value
            except Unsupported as error:
                raise ExportError(f"{layer_name(node)}: {node.op_type} cannot be converted: {error}") from error
            except (ValueError, TypeError, KeyError, IndexError, AttributeError, tf.errors.OpError) as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ExportError(f"{layer_name(node)}: {node.op_type} cannot be converted: {reason}") from error
        return values

    def _constant(self, name: str, known: dict[str, Value | None], batch: Any) -> Value | None:
        if name not in known:
            if name in self.weights:
                known[name] = _as_constant(self.weights[name])
            else:
                small, large = (trace[name] for trace in self._traces)
                if small.shape == large.shape and np.array_equal(small, large):
                    known[name] = _as_constant(small)
                elif small.ndim and small.dtype.kind == "f":
                    return per_batch(small, self.shape(name), batch)
                else:
                    return None  # a shape, which the trace gives as well
        return known[name]

    def outputs_in(self, values: Mapping[str, Value], order: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
        """Tensors of the outputs, with their axes in the given orders."""

        def batch() -> Any:
            return tf.shape(values[self.inputs[0]].tensor)[0]

        if constant := [name for name in self.outputs if name not in values]:
            raise ExportError(f"output {constant[0]}: a branch or a loop of the graph makes it; write it without one")
        return {name: reorder(values[name], order[name], batch).tensor for name in self.outputs}

    def first_difference(self, share: float = 1e-4) -> Difference | None:
        """The first layer that differs from ONNX Runtime by more than a share of its largest value; None if none."""
        inputs = example_inputs(self.model, BATCHES[0], self.highest)
        expected = self._traces[0]
        try:
            values = self(
                {name: tf.constant(array) for name, array in inputs.items()},
                {name: plain(array.ndim) for name, array in inputs.items()},
            )
        except ExportError as error:
            return Difference(str(error).partition(":")[0], str(error), float("inf"))
        for node in self.nodes:
            for name in node.output:
                if name not in values or values[name].image is not None or expected[name].dtype.kind != "f":
                    continue
                value = values[name]
                got = np.transpose(np.asarray(value.tensor), np.argsort(value.order))
                if got.shape != expected[name].shape:
                    return Difference(layer_name(node), node.op_type, float("inf"))
                near = [expected[name], *(expected[each] for each in node.input if each in values)]
                scale = max(float(np.abs(array).max()) for array in near if array.size) or 1.0
                difference = float(np.abs(got - expected[name]).max() / scale)
                if not difference <= share:
                    return Difference(layer_name(node), node.op_type, difference)
        return None


def _check_shape(value: Value) -> None:
    expected = [dim[0] if dim[0] == dim[1] else None for dim in (value.shape[axis] for axis in value.order)]
    found = list(value.tensor.shape)
    if len(found) != len(expected) or any(
        a is not None and b is not None and a != b for a, b in zip(found, expected, strict=True)
    ):
        if not tf.executing_eagerly():
            raise Unsupported(f"it yields {found} instead of {expected}")
        raise ValueError(f"it yields {found} instead of {expected}")


def _as_constant(array: NDArray[Any]) -> Value:
    return Value(np.asarray(array), plain(np.ndim(array)), tuple((n, n) for n in np.shape(array)))


def _attributes(node: Any) -> dict[str, Any]:
    found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}
