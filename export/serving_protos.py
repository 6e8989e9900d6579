"""TensorFlow Serving's messages, without the tensorflow-serving-api package (which asks for another TensorFlow).

Only the fields that predict requests, their answers and warm-up records use; names and numbers are those of
tensorflow_serving/apis/{model,predict,prediction_log}.proto. They live in a descriptor pool of their own, so that the
official stubs can be imported in the same process.
"""

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from numpy.typing import NDArray

from emotion_ai_export.quiet_tensorflow import tf

_PACKAGE = "tensorflow.serving"
_TENSOR = "tensorflow.TensorProto"
_INT64 = "google.protobuf.Int64Value"

# message → field → (number, type, the oneof that it belongs to)
_MESSAGES: dict[str, dict[str, tuple[int, str, str | None]]] = {
    "ModelSpec": {
        "name": (1, "string", None),
        "version": (2, _INT64, "version_choice"),
        "version_label": (4, "string", "version_choice"),
        "signature_name": (3, "string", None),
    },
    "PredictRequest": {
        "model_spec": (1, f"{_PACKAGE}.ModelSpec", None),
        "inputs": (2, "map", None),
        "output_filter": (3, "strings", None),
    },
    "PredictResponse": {"outputs": (1, "map", None), "model_spec": (2, f"{_PACKAGE}.ModelSpec", None)},
    "PredictLog": {
        "request": (1, f"{_PACKAGE}.PredictRequest", None),
        "response": (2, f"{_PACKAGE}.PredictResponse", None),
    },
    "PredictionLog": {"predict_log": (6, f"{_PACKAGE}.PredictLog", "log_type")},
}


def tensor(value: NDArray[np.generic] | list[bytes]) -> Any:
    """A TensorProto of this module's pool."""
    return TensorProto.FromString(tf.make_tensor_proto(value).SerializeToString())


def array(proto: Any) -> NDArray[np.generic]:
    """What a TensorProto of this module's pool holds."""
    from tensorflow.core.framework import tensor_pb2

    return tf.make_ndarray(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="emotion_ai/predict.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto", "tensorflow/core/framework/tensor.proto"],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, oneof) in fields.items():
            _add_field(message, f"{_PACKAGE}.{name}", field, number, kind)
            if oneof is not None:
                if oneof not in [known.name for known in message.oneof_decl]:
                    message.oneof_decl.add(name=oneof)
                message.field[-1].oneof_index = len(message.oneof_decl) - 1
    return file


def _add_field(message: Any, path: str, name: str, number: int, kind: str) -> None:
    one = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number, label=one.LABEL_OPTIONAL, type=one.TYPE_STRING)
    if kind == "map":  # on the wire, string → TensorProto is a repeated message of key and value
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add_field(entry, path, "key", 1, "string")
        _add_field(entry, path, "value", 2, _TENSOR)
        kind = f"{path}.{entry.name}"
        field.label = one.LABEL_REPEATED
    if kind == "strings":
        field.label = one.LABEL_REPEATED
    elif kind != "string":
        field.type, field.type_name = one.TYPE_MESSAGE, f".{kind}"


def _classes() -> dict[str, Any]:
    from tensorflow.core.framework import tensor_pb2

    pool = descriptor_pool.DescriptorPool()

    def add(file: Any) -> None:
        for dependency in file.dependencies:
            add(dependency)
        pool.AddSerializedFile(file.serialized_pb)

    for module in (wrappers_pb2, tensor_pb2):
        add(module.DESCRIPTOR)
    pool.Add(_describe())
    paths = [*(f"{_PACKAGE}.{name}" for name in _MESSAGES), _TENSOR]
    return {p.rpartition(".")[2]: message_factory.GetMessageClass(pool.FindMessageTypeByName(p)) for p in paths}


_CLASSES = _classes()
TensorProto = _CLASSES["TensorProto"]
ModelSpec = _CLASSES["ModelSpec"]
PredictRequest = _CLASSES["PredictRequest"]
PredictResponse = _CLASSES["PredictResponse"]
PredictLog = _CLASSES["PredictLog"]
PredictionLog = _CLASSES["PredictionLog"]
