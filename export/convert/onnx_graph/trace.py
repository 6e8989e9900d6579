"""What ONNX Runtime computes at every node: shapes and constants for the translation, values to compare with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from emotion_ai_export.convert.onnx_graph.values import Dim

BATCHES = (2, 3)
"""Of the two runs: a length that depends on the batch differs between them."""


class Trace:
    """The values of all tensors of a model, from ONNX Runtime without its optimisations."""

    def __init__(self, model: onnx.ModelProto) -> None:
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        known = {output.name for output in whole.graph.output}
        self.names = [name for node in whole.graph.node for name in node.output if name]
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self.names if name not in known)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        data = whole.SerializeToString()
        del whole  # its weights may be large
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All values by name, the inputs among them."""
        return dict(zip(self.names, self._session.run(self.names, dict(inputs)), strict=True)) | dict(inputs)


def example_inputs(model: onnx.ModelProto, batch: int, highest: float = 1.0) -> dict[str, NDArray[Any]]:
    """Noise from 0 to `highest` for each input, as many as `batch`."""
    noise = np.random.default_rng(batch)
    sizes = {given.name: [dim.dim_value for dim in given.type.tensor_type.shape.dim[1:]] for given in model.graph.input}
    return {name: noise.random((batch, *size), np.float32) * np.float32(highest) for name, size in sizes.items()}


def dims(small: Sequence[int], large: Sequence[int]) -> tuple[Dim, ...]:
    """The dimensions at both batch sizes."""
    return tuple(zip(small, large, strict=True))
