"""A network of faces to an ONNX model to a TensorFlow graph in NHWC, the layout that TensorFlow Serving runs fast."""

import json
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import nn

from emotion_ai.contract import CLASSES, CROP_SIZE, EXPRESSIONS, IMAGES_INPUT, OUTPUTS, UNCERTAINTY_SIGNATURE, outputs
from emotion_ai.models import FaceNetwork
from emotion_ai.models.checkpoint import contract_record
from emotion_ai_export.convert.onnx_export import export_onnx
from emotion_ai_export.convert.onnx_graph.translator import Translator
from emotion_ai_export.convert.onnx_graph.values import CHANNELS_LAST, plain

_WHITE = 255.0


@dataclass(frozen=True)
class NetworkGraph:
    """A network's ONNX model, which becomes a TensorFlow graph where it is called."""

    translator: Translator

    def __call__(self, images: Any, for_litert: bool = False) -> dict[str, Any]:
        """Builds the graph in the current one, from images float32 (N, 96, 96, 1), 0-255, to the outputs by name.

        Raises:
            ExportError: names the first layer that cannot be translated.
        """
        translator = self.translator
        values = translator({IMAGES_INPUT: images}, {IMAGES_INPUT: CHANNELS_LAST}, for_litert)
        return translator.outputs_in(values, {name: plain(values[name].rank) for name in translator.outputs})


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
        ExportError: names the layer that torch cannot export, and the reason.
    """
    names = outputs(network.task, UNCERTAINTY_SIGNATURE) or OUTPUTS[network.task]
    if _has_more_classes(network):
        names = (*names, EXPRESSIONS)
    faces = torch.zeros(2, 1, CROP_SIZE, CROP_SIZE)  # a trace at batch 1 would bake the batch in
    model = export_onnx(_ExportedNetwork(network), [faces], [IMAGES_INPUT], names)
    contract: dict[str, Any] = contract_record()
    if network.task == "emotion":
        contract[CLASSES] = list(network.spec.class_set.names)
    onnx.helper.set_model_props(model, {"contract": json.dumps(contract), "task": network.task})
    return model


def _has_more_classes(network: FaceNetwork) -> bool:
    """Whether `expressions` differ from `probabilities`."""
    return network.task == "emotion" and network.spec.class_set.emotions < len(network.spec.class_set)


def to_graph(model: onnx.ModelProto) -> NetworkGraph:
    """The ONNX model, read and checked.

    Raises:
        ExportError: names the first layer with an operator that cannot be translated.
    """
    return NetworkGraph(Translator(model, _WHITE))
