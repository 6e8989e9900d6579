"""Five ways to run one network on a processor: PyTorch, ONNX Runtime, onnx-tf, our SavedModel and Keras.

The TensorFlow ones run in a TF1 session, as in TensorFlow Serving.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from emotion_ai.contract import IMAGES_SIGNATURE, OUTPUTS, Task
from emotion_ai.models import FaceNetwork
from emotion_ai_export.bench.keras_port import to_keras
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.onnx_tf_compat import load_onnx_tf
from emotion_ai_export.convert.saved_model import save_servable
from emotion_ai_export.serving.embedded.loaded_model import LoadedModel

PYTORCH, ONNX_RUNTIME, ONNX_TF, OURS, KERAS = "PyTorch", "ONNX Runtime", "onnx-tf", "SavedModel", "Keras"
NAMES = (PYTORCH, ONNX_RUNTIME, ONNX_TF, OURS, KERAS)
FOLDERS = {OURS: "ours", ONNX_TF: "onnx_tf", KERAS: "keras"}

Call = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Images float32 (N, 96, 96, 1) to the network's output."""


def backends(
    task: Task, network: FaceNetwork, folder: Path, threads: int, names: Sequence[str] = NAMES
) -> dict[str, Call]:
    """Backends by name, in their order; the TensorFlow ones are written to `folder`."""
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    model = to_onnx(network)

    def ours() -> Call:
        save_servable({task: to_graph(model)}, task, folder / FOLDERS[OURS])
        return session_call(folder / FOLDERS[OURS], OUTPUTS[task][0])

    def keras() -> Call:
        to_keras(network).export(folder / FOLDERS[KERAS], "tf_saved_model", verbose=False)
        return session_call(folder / FOLDERS[KERAS])

    def onnx_tf() -> Call:
        load_onnx_tf().prepare(model, logging_level="ERROR").export_graph(str(folder / FOLDERS[ONNX_TF]))
        return session_call(folder / FOLDERS[ONNX_TF], OUTPUTS[task][0], channels_first=True)

    makers = {
        PYTORCH: lambda: _torch(network),
        ONNX_RUNTIME: lambda: _onnx_runtime(model, threads),
        ONNX_TF: onnx_tf,
        OURS: ours,
        KERAS: keras,
    }
    return {name: makers[name]() for name in names}


def count_nodes(folder: Path) -> dict[str, int]:
    """Number of nodes of a SavedModel, and of the transposes among them."""
    from tensorflow.python.saved_model import loader_impl

    graph = loader_impl.parse_saved_model(str(folder)).meta_graphs[0].graph_def
    kinds = [node.op for part in (graph.node, *(f.node_def for f in graph.library.function)) for node in part]
    return {"nodes": len(kinds), "Transpose": kinds.count("Transpose")}


def _torch(network: FaceNetwork) -> Call:
    network = network.to(memory_format=torch.channels_last)

    def call(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
            return (network(tensor) if network.task == "keypoints" else network.classified(tensor)[0]).numpy()

    return call


def _onnx_runtime(model: onnx.ModelProto, threads: int) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (images_input,) = (tensor.name for tensor in session.get_inputs())
    output = session.get_outputs()[0].name
    return lambda images: session.run([output], {images_input: images.transpose(0, 3, 1, 2)})[0]


def session_call(folder: Path, output: str | None = None, channels_first: bool = False) -> Call:
    """An output of a SavedModel, the first by default."""
    model = LoadedModel(folder)
    (images_input,) = model.dtypes(IMAGES_SIGNATURE)

    def call(images: NDArray[np.float32]) -> NDArray[np.float32]:
        fed = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if channels_first else images
        found = model.run(IMAGES_SIGNATURE, {images_input: fed})
        return found[output or next(iter(found))]

    return call
