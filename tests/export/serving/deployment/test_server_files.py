"""Batching parameters and monitoring, parsed with the messages of TensorFlow Serving."""

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from emotion_ai_export.registry.warmup import BATCHES
from tests.export.serving.deployment.deployment_files import manifests, rendered

_FIELD = descriptor_pb2.FieldDescriptorProto


def message(name: str, fields: list[tuple[str, int, str | int]], repeated: tuple[str, ...] = ()) -> Any:
    """A message of TensorFlow Serving, from its fields: name, number, and a type or a message's name."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="tensorflow.serving", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    nested = file.message_type.add(name="PrometheusConfig")
    nested.field.add(name="enable", number=1, type=_FIELD.TYPE_BOOL, label=_FIELD.LABEL_OPTIONAL)
    nested.field.add(name="path", number=2, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    described = file.message_type.add(name=name)
    for field, number, kind in fields:
        label = _FIELD.LABEL_REPEATED if field in repeated else _FIELD.LABEL_OPTIONAL
        typed = {"type": kind} if isinstance(kind, int) else {"type": _FIELD.TYPE_MESSAGE, "type_name": kind}
        described.field.add(name=field, number=number, label=label, **typed)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))()


def test_batching_parameters_are_what_the_server_parses(base: Path, target: str) -> None:
    number = ".google.protobuf.Int64Value"
    fields: list[tuple[str, int, str | int]] = [
        ("max_batch_size", 1, number),
        ("batch_timeout_micros", 2, number),
        ("max_enqueued_batches", 3, number),
        ("num_batch_threads", 4, number),
        ("thread_pool_name", 5, ".google.protobuf.StringValue"),
        ("allowed_batch_sizes", 6, _FIELD.TYPE_INT64),
        ("pad_variable_length_inputs", 7, _FIELD.TYPE_BOOL),
    ]
    parameters = message("BatchingParameters", fields, repeated=("allowed_batch_sizes",))
    text_format.Parse(rendered(base, target)["batching_parameters.txt"], parameters)
    assert tuple(parameters.allowed_batch_sizes) == BATCHES == tuple(sorted(BATCHES))
    assert parameters.max_batch_size.value == BATCHES[-1]
    assert parameters.max_enqueued_batches.value > 0


def test_the_monitoring_config_is_what_the_server_parses(base: Path, target: str) -> None:
    texts = rendered(base, target)
    monitoring = message("MonitoringConfig", [("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig")])
    text_format.Parse(texts["monitoring.config"], monitoring)
    assert monitoring.prometheus_config.enable
    annotations = manifests(texts["kubernetes.yaml"])["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8501",
        "prometheus.io/path": monitoring.prometheus_config.path,
    }
