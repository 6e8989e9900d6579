"""A network to an ONNX model to a TensorFlow graph in NHWC, the layout that TensorFlow Serving runs fast.

onnx-tf translates. Its graphs keep ONNX's NCHW layout or transpose around every convolution, so here it keeps NCHW
(device "CUDA"), TensorFlow's Grappler turns the whole graph to NHWC, and `graph_rewrites` merges what is left around
the convolutions. Every step checks its result.
"""

import io
import json
import warnings
from dataclasses import dataclass
from typing import Any

import absl.logging
import onnx
import torch
from torch import nn

from emotion_ai.contract import CROP_SIZE, EXPRESSIONS, IMAGES_INPUT, OUTPUTS, UNCERTAINTY_SIGNATURE, outputs
from emotion_ai.errors import ExportError
from emotion_ai.models import FaceNetwork
from emotion_ai.models.checkpoint import contract_record
from emotion_ai_export.convert import graph_rewrites
from emotion_ai_export.convert.frameworks import (
    OptimizeGraph,
    RewriterConfig,
    convert_variables_to_constants_v2,
    held_stderr,
    tf,
    tf_function,
)
from emotion_ai_export.convert.onnx_tf_compat import load_onnx_tf

OPSET = 13  # the newest that torch's TorchScript exporter writes for our layers and onnx-tf fully supports
_BATCH = "N"
_PASSES = ("function", "constfold", "shape", "layout", "arithmetic", "constfold", "dependency")


@dataclass(frozen=True)
class NetworkGraph:
    """A frozen TensorFlow graph of one network, from images float32 (N, 96, 96, 1), 0-255, to outputs (N, ...).

    Attributes:
        graph_def: a GraphDef; weights are constants, and no node names a device.
        tensors: names of tensors in the graph by output, e.g. "keypoints".
    """

    graph_def: Any
    tensors: dict[str, str]

    def __call__(self, images: Any) -> dict[str, Any]:
        """Inserts the graph into the current one, e.g. inside a tf.function."""
        found = tf.graph_util.import_graph_def(
            self.graph_def,
            input_map={f"{IMAGES_INPUT}:0": images},
            return_elements=list(self.tensors.values()),
            name=next(iter(self.tensors)),
        )
        return dict(zip(self.tensors, found, strict=True))

    def operations(self) -> dict[str, int]:
        """Number of nodes by operation."""
        kinds = [node.op for node in self.graph_def.node]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


class _ExportedNetwork(nn.Module):
    """A network with the outputs that are served: keypoints with deviations, probabilities with expressions."""

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        if self.network.task == "keypoints":
            return self.network.uncertainty(images)
        return self.network.classified(images) if _has_more_classes(self.network) else self.network(images)


def to_onnx(network: FaceNetwork) -> onnx.ModelProto:
    """The network as ONNX, from `images` float32 (N, 1, 96, 96) to the contract's outputs, with a dynamic batch.

    Raises:
        ExportError: torch cannot trace it, or the result is not valid ONNX.
    """
    names = outputs(network.task, UNCERTAINTY_SIGNATURE) or OUTPUTS[network.task]
    if _has_more_classes(network):
        names = (*names, EXPRESSIONS)
    file: Any = io.BytesIO()  # accepted by this exporter, but not in its annotation
    with warnings.catch_warnings():
        # deprecated, but only this exporter writes an opset that onnx-tf supports
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            torch.onnx.export(
                _ExportedNetwork(network).eval(),
                (torch.zeros(2, 1, CROP_SIZE, CROP_SIZE),),  # a trace at batch 1 would bake the batch in
                file,
                dynamo=False,
                opset_version=OPSET,
                input_names=[IMAGES_INPUT],
                output_names=list(names),
                dynamic_axes={name: {0: _BATCH} for name in (IMAGES_INPUT, *names)},
            )
            model = onnx.load_from_string(file.getvalue())
            onnx.helper.set_model_props(model, {"contract": json.dumps(contract_record()), "task": network.task})
            onnx.checker.check_model(model, full_check=True)
        except (RuntimeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the {network.task} network cannot be exported to ONNX: {_lines(error)[0]}") from error
    return model


def _has_more_classes(network: FaceNetwork) -> bool:
    """Whether `expressions` differ from `probabilities`."""
    return network.task == "emotion" and network.spec.class_set.emotions < len(network.spec.class_set)


def to_graph(model: onnx.ModelProto) -> NetworkGraph:
    """The ONNX model as a frozen NHWC graph, translated by onnx-tf.

    Raises:
        ExportError: an operator that onnx-tf does not support, or a step that left NCHW, transposes or pads behind.
    """
    names = [output.name for output in model.graph.output]
    frozen, tensors = _freeze(model, names)
    graph_def = graph_rewrites.simplify(_to_nhwc(frozen, tensors), tensors)
    graph_rewrites.check(graph_def, names[0])
    return NetworkGraph(graph_def, dict(zip(names, tensors, strict=True)))


def _freeze(model: onnx.ModelProto, names: list[str]) -> tuple[Any, list[str]]:
    backend = load_onnx_tf()
    verbosity = absl.logging.get_verbosity()
    try:
        # "CUDA" makes onnx-tf keep NCHW, instead of transposing around every convolution
        translated = backend.prepare(model, device="CUDA", logging_level="ERROR").tf_module

        @tf_function(tf.TensorSpec([None, 1, CROP_SIZE, CROP_SIZE], tf.float32, IMAGES_INPUT))
        def function(images: Any) -> list[Any]:
            found = translated(**{IMAGES_INPUT: images})
            return [found[name] for name in names]

        concrete = function.get_concrete_function()
        frozen = convert_variables_to_constants_v2(concrete)
    except Exception as error:  # onnx-tf and TensorFlow raise many kinds
        raise ExportError(f"onnx-tf cannot translate the {names[0]} network: {_lines(error)[-1]}") from error
    finally:
        absl.logging.set_verbosity(verbosity)  # onnx-tf's pooling sets it
    return frozen.graph.as_graph_def(), [tensor.name for tensor in frozen.outputs]


def _to_nhwc(graph_def: Any, tensors: list[str]) -> Any:
    for node in graph_def.node:
        node.device = "/device:CPU:0"  # without a device the layout pass silently does nothing
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(graph_def, name="")
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph_def, graph=graph)
    meta.collection_def["train_op"].node_list.value.extend(tensors)  # Grappler keeps what this collection needs

    config = tf.compat.v1.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.optimizers.extend(_PASSES)
    rewrite.min_graph_nodes = -1
    rewrite.cpu_layout_conversion = RewriterConfig.NCHW_TO_NHWC
    rewrite.meta_optimizer_iterations = RewriterConfig.TWO
    with held_stderr():
        optimised = OptimizeGraph(config, meta, verbose=False)
    for node in optimised.node:
        node.device = ""
    return optimised


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
