"""TensorFlow Serving's messages and tensors, without TensorFlow and without tensorflow-serving-api (which requires it).

Only the fields in use, and all of a model server's configuration, with the names and numbers of
tensorflow_serving/{apis,config,sources/storage_path}/*.proto and tensorflow/core/{framework,protobuf}/*.proto. They
live in a protobuf package of their own, so that the official classes can be imported in the same process; on the wire
only numbers count.
"""

import math
from typing import Any

import numpy as np
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from numpy.typing import NDArray

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
GET_MODEL_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
SIGNATURE_MAP_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"

MAX_TENSOR = 2**28
"""Bytes; a small message can claim a huge tensor."""

_PACKAGE = "emotion_ai.serving"
_INT64, _ANY = ".google.protobuf.Int64Value", ".google.protobuf.Any"

# name → "value=number ..."
_ENUMS = {
    "DataType": "DT_INVALID=0 DT_FLOAT=1 DT_DOUBLE=2 DT_INT32=3 DT_UINT8=4 DT_INT16=5 DT_INT8=6 DT_STRING=7 DT_INT64=9 "
    "DT_BOOL=10 DT_UINT16=17 DT_HALF=19 DT_UINT32=22 DT_UINT64=23",
    "Code": "OK=0 CANCELLED=1 UNKNOWN=2 INVALID_ARGUMENT=3 DEADLINE_EXCEEDED=4 NOT_FOUND=5 ALREADY_EXISTS=6 "
    "PERMISSION_DENIED=7 RESOURCE_EXHAUSTED=8 FAILED_PRECONDITION=9 ABORTED=10 OUT_OF_RANGE=11 UNIMPLEMENTED=12 "
    "INTERNAL=13 UNAVAILABLE=14 DATA_LOSS=15 UNAUTHENTICATED=16",
    "ModelType": "MODEL_TYPE_UNSPECIFIED=0 TENSORFLOW=1 OTHER=2",
    "State": "STATE_UNKNOWN=0 START=10 LOADING=20 AVAILABLE=30 UNLOADING=40 END=50",
}

# name → "number [repeated|map] type field [of oneof]", by comma; a map's key is a string
_MESSAGES = {
    "Dim": "1 int64 size, 2 string name",
    "TensorShapeProto": "2 repeated Dim dim, 3 bool unknown_rank",
    "TensorProto": "1 DataType dtype, 2 TensorShapeProto tensor_shape, 4 bytes tensor_content, "
    "5 repeated float float_val, 6 repeated double double_val, 7 repeated int32 int_val, 8 repeated bytes string_val, "
    "10 repeated int64 int64_val, 11 repeated bool bool_val, 13 repeated int32 half_val, "
    "16 repeated uint32 uint32_val, 17 repeated uint64 uint64_val",
    "ModelSpec": "1 string name, 2 Int64Value version of version_choice, 4 string version_label of version_choice, "
    "3 string signature_name",
    "PredictRequest": "1 ModelSpec model_spec, 2 map TensorProto inputs, 3 repeated string output_filter",
    "PredictResponse": "1 map TensorProto outputs, 2 ModelSpec model_spec",
    "PredictLog": "1 PredictRequest request, 2 PredictResponse response",
    "PredictionLog": "6 PredictLog predict_log",
    "StatusProto": "1 Code error_code, 2 string error_message",
    "ModelVersionStatus": "1 int64 version, 2 State state, 3 StatusProto status",
    "GetModelStatusRequest": "1 ModelSpec model_spec",
    "GetModelStatusResponse": "1 repeated ModelVersionStatus model_version_status",
    "TensorInfo": "1 string name of encoding, 2 DataType dtype, 3 TensorShapeProto tensor_shape",
    "SignatureDef": "1 map TensorInfo inputs, 2 map TensorInfo outputs, 3 string method_name, "
    "4 map TensorProto defaults",
    "SignatureDefMap": "1 map SignatureDef signature_def",
    "GetModelMetadataRequest": "1 ModelSpec model_spec, 2 repeated string metadata_field",
    "GetModelMetadataResponse": "1 ModelSpec model_spec, 2 map Any metadata",
    "Latest": "1 uint32 num_versions",
    "All": "",
    "Specific": "1 repeated int64 versions",
    "VersionPolicy": "100 Latest latest of policy_choice, 101 All all of policy_choice, "
    "102 Specific specific of policy_choice",
    "LogCollectorConfig": "1 string type, 2 string filename_prefix",
    "SamplingConfig": "1 double sampling_rate, 2 int32 attributes",
    "LoggingConfig": "1 LogCollectorConfig log_collector_config, 2 SamplingConfig sampling_config",
    "ModelConfig": "1 string name, 2 string base_path, 3 ModelType model_type, 4 string model_platform, "
    "6 LoggingConfig logging_config, 7 VersionPolicy model_version_policy, 8 map int64 version_labels",
    "ModelConfigList": "1 repeated ModelConfig config",
    "ModelServerConfig": "1 ModelConfigList model_config_list of config, 2 Any custom_model_config of config",
}

_ARRAYS: dict[str, tuple[int, str]] = {  # numpy's type → DataType, and the field for values one by one
    "float32": (1, "float_val"),
    "float64": (2, "double_val"),
    "int32": (3, "int_val"),
    "uint8": (4, "int_val"),
    "int16": (5, "int_val"),
    "int8": (6, "int_val"),
    "int64": (9, "int64_val"),
    "bool": (10, "bool_val"),
    "uint16": (17, "int_val"),
    "uint32": (22, "uint32_val"),
    "uint64": (23, "uint64_val"),
}
_STRING, _HALF = 7, 19
_NUMPY = {number: (np.dtype(name), field) for name, (number, field) in _ARRAYS.items()}


def tensor(value: NDArray[Any] | list[bytes], packed: bool = True) -> Any:
    """A TensorProto.

    Args:
        value: numbers or booleans of any shape, or strings: a list, or an array of dtype object.
        packed: writes numbers as one run of bytes; otherwise one by one, as TensorFlow Serving sends them.
    """
    proto = TensorProto()
    array_ = np.array(value, object) if isinstance(value, list) else np.asarray(value)
    for size in array_.shape:
        proto.tensor_shape.dim.add(size=size)
    if array_.dtype == object:
        proto.dtype = _STRING
        proto.string_val.extend(array_.ravel().tolist())
        return proto
    if array_.dtype == np.float16:
        proto.dtype = _HALF
        proto.half_val.extend(array_.view(np.uint16).ravel().tolist())
        return proto
    proto.dtype, field = _ARRAYS[array_.dtype.name]
    if packed:
        proto.tensor_content = np.ascontiguousarray(array_).tobytes()
    else:
        getattr(proto, field).extend(array_.ravel().tolist())
    return proto


def array(proto: Any) -> NDArray[Any]:
    """The array in a TensorProto; strings as dtype object.

    Raises:
        ValueError: the type is not supported, the shape is unknown or too large, or the values do not fill it.
    """
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise ValueError(f"a tensor needs a known shape, got {shape}")
    if proto.dtype == _STRING:
        dtype, field = np.dtype(object), "string_val"
    elif proto.dtype == _HALF:
        dtype, field = np.dtype(np.uint16), "half_val"
    elif proto.dtype in _NUMPY:
        dtype, field = _NUMPY[proto.dtype]
    else:
        raise ValueError(f"tensors of DataType {proto.dtype} are not supported")
    count, values = math.prod(shape), getattr(proto, field)
    if count * dtype.itemsize > MAX_TENSOR:
        raise ValueError(f"a tensor of shape {shape} is larger than {MAX_TENSOR} bytes")
    strings = proto.dtype == _STRING
    if proto.tensor_content:
        if strings or len(proto.tensor_content) != count * dtype.itemsize:
            raise ValueError(f"{len(proto.tensor_content)} bytes do not fill a {dtype} tensor of shape {shape}")
        flat = np.frombuffer(proto.tensor_content, dtype)
    else:
        if len(values) != count and (strings or len(values) > 1):
            raise ValueError(f"{len(values)} values do not fill a tensor of shape {shape}")
        flat = np.empty(len(values), dtype)
        flat[:] = values
        if len(values) != count:  # one value, or none for 0, stands for all without taking their memory
            flat = np.broadcast_to(flat if len(values) else dtype.type(0), count)
    return (flat.view(np.float16) if proto.dtype == _HALF else flat).reshape(shape)


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="emotion_ai/serving.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name, any_pb2.DESCRIPTOR.name],
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value in values.split():
            label, _, number = value.partition("=")
            enum.value.add(name=label, number=int(number))
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in filter(None, fields.split(", ")):
            _add_field(message, field.split())
    return file


def _add_field(message: Any, words: list[str]) -> None:
    one = descriptor_pb2.FieldDescriptorProto
    number, *kind, name = words[: words.index("of")] if "of" in words else words
    # REST's JSON keeps the names as they are
    field = message.field.add(name=name, json_name=name, number=int(number), label=one.LABEL_OPTIONAL)
    if kind[0] in ("repeated", "map"):
        field.label = one.LABEL_REPEATED
    if kind[0] == "map":  # on the wire, a repeated message of key and value
        entry = message.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, ["1", "string", "key"])
        _add_field(entry, ["2", kind[1], "value"])
        field.type, field.type_name = one.TYPE_MESSAGE, f".{_PACKAGE}.{message.name}.{entry.name}"
    elif kind[-1] in _ENUMS:
        field.type, field.type_name = one.TYPE_ENUM, f".{_PACKAGE}.{kind[-1]}"
    elif kind[-1] in _MESSAGES or kind[-1] in ("Int64Value", "Any"):
        known = {"Int64Value": _INT64, "Any": _ANY}
        field.type, field.type_name = one.TYPE_MESSAGE, known.get(kind[-1], f".{_PACKAGE}.{kind[-1]}")
    else:
        field.type = getattr(one, f"TYPE_{kind[-1].upper()}")
    if "of" in words:
        if words[-1] not in [known.name for known in message.oneof_decl]:
            message.oneof_decl.add(name=words[-1])
        field.oneof_index = len(message.oneof_decl) - 1


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    for module in (wrappers_pb2, any_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.Add(_describe())
    found = {name: pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in _MESSAGES}
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in found.items()}


_CLASSES = _classes()
TensorProto = _CLASSES["TensorProto"]
ModelSpec = _CLASSES["ModelSpec"]
PredictRequest = _CLASSES["PredictRequest"]
PredictResponse = _CLASSES["PredictResponse"]
PredictionLog = _CLASSES["PredictionLog"]
GetModelStatusRequest = _CLASSES["GetModelStatusRequest"]
GetModelStatusResponse = _CLASSES["GetModelStatusResponse"]
GetModelMetadataRequest = _CLASSES["GetModelMetadataRequest"]
GetModelMetadataResponse = _CLASSES["GetModelMetadataResponse"]
SignatureDefMap = _CLASSES["SignatureDefMap"]
ModelServerConfig = _CLASSES["ModelServerConfig"]
