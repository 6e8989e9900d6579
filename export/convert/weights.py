"""The proof of the weights themselves: one that is wrong among millions is invisible in the outputs.

The ONNX model's constants are those of the checkpoint, and the SavedModel's are those of the ONNX model, in whatever
order of axes. What a step computes from several weights, such as a batch norm folded into its convolution, is computed
once more from the checkpoint.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from emotion_ai.contract import CROP_SIZE
from emotion_ai.errors import ExportError, ParityError
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.graph import NetworkGraph
from emotion_ai_export.convert.interface import Interface
from emotion_ai_export.convert.module_model import translated
from emotion_ai_export.convert.onnx_export import export_onnx
from emotion_ai_export.convert.onnx_graph.translator import Translator, layer_name

RELATIVE = 1e-5
"""How far a constant that torch computes from weights in float32 may be from the same in float64."""

CANCELLATION = 1e-6
"""The same, as a share of the constant's largest value."""

REROUNDED = 5e-7
"""How far the same computation in float32 may be from itself on another processor."""

SMALL = 1024
"""A SavedModel's own constants, such as thresholds, have fewer values than this."""

Array = NDArray[Any]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class WeightsProof:
    """How many values were compared.

    Attributes:
        checkpoint: floats in the checkpoint.
        unchanged: of them, found in the ONNX model bit by bit.
        computed: in the ONNX model, computed from the checkpoint: folded, say. Compared in float64.
        only_float32: of these, compared in float32 alone, because the network does not export in float64.
    """

    checkpoint: int
    unchanged: int
    computed: int
    only_float32: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def compare_onnx_weights(module: M, model: onnx.ModelProto, export: Callable[[M], onnx.ModelProto]) -> WeightsProof:
    """An ONNX model's constants against the checkpoint's weights.

    Args:
        module: with the checkpoint's weights.
        model: that was exported from it.
        export: the same export, also of a module in float64.

    Raises:
        ParityError: names the layer whose weight differs, and by how much.
    """
    found, layers = _onnx_constants(model), _layers(model)
    for name, array, expected in _paired(found, _onnx_constants(export(module)), layers):
        if array.tobytes() != expected.tobytes():
            raise ParityError(_altered("the ONNX model", layers[name], array, expected))
    stored = [tensor.detach().cpu().numpy() for tensor in module.state_dict().values() if tensor.is_floating_point()]
    own, given = {_key(array) for array in found.values()}, {_key(array) for array in stored}
    computed = {name: array for name, array in found.items() if _key(array) not in given}
    only_float32 = 0
    if computed:
        try:
            exact = _onnx_constants(export(copy.deepcopy(module).double()))
            pairs = list(_paired(found, exact, layers))
        except (ExportError, ParityError):  # a float32 constant within the network, say
            only_float32, pairs = sum(array.size for array in computed.values()), []
        for name, array, expected in pairs:
            if name in computed and not _near(array, expected):
                raise ParityError(_altered("the ONNX model", layers[name], array, expected))
    return WeightsProof(
        sum(array.size for array in stored),
        sum(array.size for array in stored if _key(array) in own),
        sum(array.size for array in computed.values()),
        only_float32,
    )


def compare_servable_weights(place: str, folder: Path, graphs: Iterable[NetworkGraph]) -> int:
    """A servable's constants against the networks that are in it; see `compare_saved_model_weights`."""
    graphs = list(graphs)

    def build() -> None:
        crops = tf.compat.v1.placeholder(tf.float32, [None, CROP_SIZE, CROP_SIZE, 1])
        for graph in graphs:
            graph(crops)

    return compare_saved_model_weights(place, folder, [graph.translator.model for graph in graphs], build)


def compare_module_weights(
    module: nn.Module, images: Sequence[Tensor], interface: Interface, translator: Translator, folder: Path
) -> dict[str, dict[str, int]]:
    """All weights of a converted module, for its parity.json.

    Raises:
        ParityError: names the layer whose weight differs, and by how much.
    """
    names = [given.name for given in interface.inputs]

    def export(module: nn.Module) -> onnx.ModelProto:
        kind = next((each.dtype for each in module.parameters()), torch.float32)
        return export_onnx(module, [each.to(kind) for each in images], names, interface.outputs)

    def build() -> None:
        shapes = {given.name: given.shape(interface.layout) for given in interface.inputs}
        given = {name: tf.compat.v1.placeholder(tf.float32, shape) for name, shape in shapes.items()}
        translated(translator, interface, given)

    proof = compare_onnx_weights(module, translator.model, export)
    unchanged = compare_saved_model_weights(interface.model, folder, [translator.model], build)
    return {"ONNX": proof.as_dict(), "SavedModel": {"unchanged": unchanged}}


def compare_saved_model_weights(
    place: str, folder: Path, models: Iterable[onnx.ModelProto], build: Callable[[], object]
) -> int:
    """A SavedModel's constants against those of the ONNX models from which it was made.

    Args:
        place: what an error names.
        folder: the SavedModel.
        models: all that are in it.
        build: translates them once more, in the current graph.

    Returns:
        How many values of the ONNX models are in it, but for the order of axes. Others are combined by the
        translation, and compared with the same translation.

    Raises:
        ParityError: names the layer whose weight differs, and by how much.
    """
    place, constants = f"{place}: the SavedModel", list(_saved_constants(folder))
    by_key: dict[tuple[int, int], list[int]] = {}
    for number, array in enumerate(constants):
        by_key.setdefault(_key(array), []).append(number)
    used: set[int] = set()
    missing = []
    for model in models:
        layers = _layers(model)
        for name, array in _onnx_constants(model).items():
            same = [n for n in by_key.get(_key(array), ()) if n not in used and _is_transposed(array, constants[n])]
            used.update(same[:1])
            if not same and name in layers:
                missing.append((layers[name], array))
    unmatched, missing = missing, []
    for layer, array in unmatched:
        others = [number for number in range(len(constants)) if number not in used]
        rounded = [number for number in others if _is_rounded(array, constants[number])]
        used.update(rounded[:1])
        if not rounded:
            missing.append((layer, array))
        for number in others if not rounded else ():
            if _is_nearly(array, constants[number]):
                raise ParityError(_altered(place, layer, np.sort(constants[number], None), np.sort(array, None)))
    left = [array for number, array in enumerate(constants) if number not in used]
    if missing or any(array.size >= SMALL for array in left):
        _compare_built(place, constants, list(dict.fromkeys(layer for layer, _ in missing)), build)
    return sum(constants[number].size for number in used)


def _compare_built(place: str, constants: list[Array], layers: list[str], build: Callable[[], object]) -> None:
    """Also what the translation computes from weights, against the same translation."""
    with tf.Graph().as_default() as graph:
        build()
    expected = _constants(graph.as_graph_def().node)
    found, wanted = (Counter((array.shape, array.tobytes()) for array in arrays) for arrays in (constants, expected))
    added = [shape for shape, _ in found - wanted if np.prod(shape) >= SMALL]
    lost = [shape for shape, _ in wanted - found]
    if lost or added:
        shapes = ", ".join(str(list(shape)) for shape in dict.fromkeys(lost or added))
        among = f", of a layer among {', '.join(layers)}" if layers else ""
        raise ParityError(f"{place} differs from its checkpoint in constants of the shapes {shapes}{among}")


def _onnx_constants(model: onnx.ModelProto) -> dict[str, Array]:
    """Floats of an ONNX model by name."""
    tensors = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors |= {name: each.t for name in node.output for each in node.attribute if each.name == "value"}
    found = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    return {name: array for name, array in found.items() if array.dtype.kind == "f" and array.size}


def _layers(model: onnx.ModelProto) -> dict[str, str]:
    """The layer that uses each tensor, by the tensor's name."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, layer_name(node))
    return found


def _paired(
    found: Mapping[str, Array], expected: Mapping[str, Array], layers: Mapping[str, str]
) -> Iterator[tuple[str, Array, Array]]:
    """Constants of two exports of one network, in their order."""
    shapes = [[array.shape for array in each.values()] for each in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ParityError("the ONNX model has other weights than its checkpoint")
    for name, other in zip(found, expected, strict=True):
        if name in layers:
            yield name, found[name], expected[other]


def _saved_constants(folder: Path) -> Iterator[Array]:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # after `frameworks`

    saved = SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    for meta in saved.meta_graphs:
        yield from _constants(meta.graph_def.node)
        for function in meta.graph_def.library.function:
            yield from _constants(function.node_def)


def _constants(nodes: Iterable[Any]) -> Iterator[Array]:
    """The floats among the constants of a TensorFlow graph."""
    for node in nodes:
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum:
            yield tf.make_ndarray(node.attr["value"].tensor)


def _key(array: Array) -> tuple[int, int]:
    """Size, and a sum of mixed bits: equal for the same float32 values in any order."""
    bits = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint32).astype(np.uint64)
    bits = (bits + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return array.size, int((bits ^ (bits >> np.uint64(32))).sum())


def _is_transposed(array: Array, other: Array) -> bool:
    """Whether two arrays of the same values differ by the order of their axes alone."""
    content = other.tobytes()
    return any(np.transpose(array, order).tobytes() == content for order in permutations(range(array.ndim)))


def _is_rounded(array: Array, other: Array) -> bool:
    """Whether two arrays differ by the order of axes and by rounding, as on another processor."""
    if array.size != other.size:
        return False
    close = (REROUNDED, REROUNDED * float(np.abs(array).max()) if array.ndim < 2 else 0.0)
    orders = (np.transpose(array, order) for order in permutations(range(array.ndim)))
    return any(each.shape == other.shape and np.allclose(other, each, *close) for each in orders)


def _is_nearly(array: Array, other: Array) -> bool:
    """Whether most of the values are the same, in any order."""
    if array.size != other.size or array.size == 1:
        return False
    same = np.isin(array.reshape(-1).view(np.uint32), other.reshape(-1).view(np.uint32)).mean()
    return bool(same > 0.5) and _key(array) != _key(other)


def _near(array: Array, expected: Array) -> bool:
    largest = float(np.abs(expected).max())
    return bool(np.allclose(array, expected, RELATIVE, CANCELLATION * largest))


def _altered(place: str, layer: str, array: Array, expected: Array) -> str:
    differ = int((~np.isin(array, expected)).sum())
    difference = np.abs(array.astype(np.float64) - expected).max()
    return (
        f"{place} differs from its checkpoint in the weights of the layer {layer}: {differ} of {array.size} values, "
        f"by {difference:.3g}"
    )
