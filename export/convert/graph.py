"""A network becomes an ONNX model, and that a TensorFlow graph in the layout in which TensorFlow Serving is fast.

onnx-tf translates; its graphs keep ONNX's NCHW layout, or transpose around every convolution. Here it is told to keep
NCHW ("CUDA"), TensorFlow's own Grappler turns the whole graph to NHWC, and `graph_rewrites` merges what is left around
the convolutions. Every step checks that it did what it must.
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

from emotion_ai.contract import CROP_SIZE, IMAGES_INPUT, OUTPUTS, UNCERTAINTY_SIGNATURE, outputs
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
)
from emotion_ai_export.convert.onnx_tf_compat import load_onnx_tf

OPSET = 13  # the newest that torch's TorchScript exporter writes for our layers and onnx-tf fully knows
_BATCH = "N"
_PASSES = ("function", "constfold", "shape", "layout", "arithmetic", "constfold", "dependency")


@dataclass(frozen=True)
class ServableGraph:
    """A frozen TensorFlow graph: images float32 (N, 96, 96, 1), 0-255, in; outputs with the batch first.

    Attributes:
        graph_def: its nodes; weights are constants, no node names a device.
        tensors: names of the outputs' tensors in the graph, by their names in the contract, e.g. "keypoints".
    """

    graph_def: Any
    tensors: dict[str, str]

    def __call__(self, images: Any) -> dict[str, Any]:
        """Puts the graph where it is called: inside a tf.function this inlines it."""
        answers = tf.graph_util.import_graph_def(
            self.graph_def,
            input_map={f"{IMAGES_INPUT}:0": images},
            return_elements=list(self.tensors.values()),
            name=next(iter(self.tensors)),
        )
        return dict(zip(self.tensors, answers, strict=True))

    def operations(self) -> dict[str, int]:
        """How many nodes of each kind it has."""
        kinds = [node.op for node in self.graph_def.node]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


class _Served(nn.Module):
    """What a network answers when it is served: for keypoints with their deviations."""

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        return self.network.uncertainty(images) if self.network.task == "keypoints" else self.network(images)


def to_onnx(network: FaceNetwork) -> onnx.ModelProto:
    """The network as ONNX: `images` float32 (N, 1, 96, 96) in, the contract's output names out, dynamic batch.

    Raises:
        ExportError: torch cannot trace it, or the result is not valid ONNX.
    """
    names = outputs(network.task, UNCERTAINTY_SIGNATURE) or OUTPUTS[network.task]
    file = io.BytesIO()
    with warnings.catch_warnings():
        # deprecated, but only this exporter writes an opset that onnx-tf knows
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            torch.onnx.export(
                _Served(network).eval(),
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
            raise ExportError(f"the {network.task} network does not become ONNX: {_lines(error)[0]}") from error
    return model


def to_graph(model: onnx.ModelProto) -> ServableGraph:
    """The ONNX model as a frozen NHWC graph, by way of onnx-tf.

    Raises:
        ExportError: an operator that onnx-tf does not know, or a step that left NCHW, transposes or pads behind.
    """
    names = [output.name for output in model.graph.output]
    frozen, tensors = _freeze(model, names)
    graph_def = graph_rewrites.simplify(_to_nhwc(frozen, tensors), tensors)
    graph_rewrites.check(graph_def, names[0])
    return ServableGraph(graph_def, dict(zip(names, tensors, strict=True)))


def _freeze(model: onnx.ModelProto, names: list[str]) -> tuple[Any, list[str]]:
    backend = load_onnx_tf()
    verbosity = absl.logging.get_verbosity()
    try:
        # "CUDA" makes onnx-tf keep NCHW, instead of transposing around every convolution
        translated = backend.prepare(model, device="CUDA", logging_level="ERROR").tf_module

        @tf.function(input_signature=[tf.TensorSpec([None, 1, CROP_SIZE, CROP_SIZE], tf.float32, IMAGES_INPUT)])
        def function(images: Any) -> list[Any]:
            answers = translated(**{IMAGES_INPUT: images})
            return [answers[name] for name in names]

        concrete = function.get_concrete_function()
        frozen = convert_variables_to_constants_v2(concrete)
    except Exception as error:  # onnx-tf and TensorFlow raise many kinds
        raise ExportError(f"onnx-tf does not translate the {names[0]} network: {_lines(error)[-1]}") from error
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
