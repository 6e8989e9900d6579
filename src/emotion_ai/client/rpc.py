"""TensorFlow Serving's gRPC API; its errors become ours. Needs the extra [grpc]."""

import json
import os
from typing import Any

from emotion_ai.client.transport import Connection, Inputs, Prediction
from emotion_ai.contract import INPUTS
from emotion_ai.errors import (
    ClientError,
    ConfigError,
    MissingExtraError,
    ModelNotFoundError,
    RequestRejectedError,
    ServerFailureError,
    ServerTimeoutError,
    ServerUnreachableError,
)

try:
    import grpc
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError

    from emotion_ai.client import protos
except ModuleNotFoundError as error:
    raise MissingExtraError(f"gRPC needs {error.name}: pip install 'emotion-ai[grpc]'") from error

MAX_REQUEST, MAX_RESPONSE = 256 * 2**20, 64 * 2**20
"""Bytes, decompressed; gRPC's default of 4 MB holds the response for 6,000 faces."""

_REJECTED = {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED"}
_TOO_LARGE = "larger than max"


class GrpcTransport:
    """A `Transport` over one gRPC channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._url, self._deadline = connection, connection.url, connection.timeout[1]
        self._process = os.getpid()
        version = None if connection.version is None else {"value": connection.version}
        self._spec = {"name": connection.model, "version": version, "version_label": connection.label}
        options = [
            ("grpc.max_receive_message_length", MAX_RESPONSE),
            ("grpc.max_send_message_length", MAX_REQUEST),
            ("grpc.enable_http_proxy", int(not connection.local)),
            ("grpc.enable_retries", 1),
            ("grpc.max_reconnect_backoff_ms", 5000),  # the default of 120 s is longer than an outage is waited for
            ("grpc.service_config", json.dumps(_service_config(connection.retries))),
        ]
        self._channel = (
            grpc.secure_channel(connection.address, grpc.ssl_channel_credentials(), options)
            if connection.scheme == "grpcs"
            else grpc.insecure_channel(connection.address, options)
        )
        self._predict = self._method(protos.PREDICT, protos.PredictResponse)
        self._metadata = self._method(protos.GET_MODEL_METADATA, protos.GetModelMetadataResponse)
        self._status = self._method(protos.GET_MODEL_STATUS, protos.GetModelStatusResponse)

    def __reduce__(self) -> tuple[type["GrpcTransport"], tuple[Connection]]:
        return GrpcTransport, (self._connection,)  # a pickled client has a channel of its own

    def close(self) -> None:
        """Closes the channel, unless it is another process's."""
        if self._process == os.getpid():
            self._channel.close()

    def predict(self, signature: str, inputs: Inputs, outputs: tuple[str, ...]) -> Prediction:
        """The outputs as arrays."""
        request = protos.PredictRequest(model_spec={**self._spec, "signature_name": signature})
        request.inputs[INPUTS[signature]].CopyFrom(protos.tensor(inputs))
        response = self._call(self._predict, request)
        try:
            found = {name: protos.array(response.outputs[name]) for name in outputs if name in response.outputs}
        except ValueError as error:
            raise ServerFailureError(f"{self._url}: the response cannot be decoded ({error})") from error
        return Prediction(found, response.model_spec.version.value if response.model_spec.HasField("version") else None)

    def metadata(self) -> dict[str, Any]:
        """The served version's number and signatures, as the REST API writes them."""
        request = protos.GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])
        response = self._call(self._metadata, request)
        try:
            signatures = protos.SignatureDefMap.FromString(response.metadata["signature_def"].value)
        except DecodeError as error:
            raise ServerFailureError(f"{self._url}: the signatures cannot be decoded ({error})") from error
        spec = response.model_spec
        return {
            "model_spec": {
                "name": spec.name,
                "version": str(spec.version.value),
                "signature_name": spec.signature_name,
            },
            "metadata": {
                "signature_def": MessageToDict(
                    signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
            },
        }

    def status(self) -> Any:
        """The state of each version, as the REST API writes it."""
        response = self._call(self._status, protos.GetModelStatusRequest(model_spec={"name": self._spec["name"]}))
        return [
            MessageToDict(entry, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for entry in response.model_version_status
        ]

    def _method(self, path: str, response: Any) -> Any:
        return self._channel.unary_unary(
            path, lambda request: request.SerializeToString(), lambda content: response.FromString(content)
        )

    def _call(self, method: Any, request: Any) -> Any:
        if self._process != os.getpid():  # gRPC's threads stay behind: the request would hang
            raise ConfigError(f"{self._url}: a gRPC client cannot be used after a fork; create it in the new process")
        try:
            return method(request, timeout=self._deadline)
        except grpc.RpcError as error:
            raise self._error(error.code().name, error.details() or "") from error

    def _error(self, code: str, text: str) -> ClientError:
        message = f"{self._url}: {code}, {text}"
        if code == "DEADLINE_EXCEEDED":
            return ServerTimeoutError(f"{self._url}: no answer within {self._deadline:g} s; is the server overloaded?")
        if code == "UNAVAILABLE":
            return ServerUnreachableError(f"{message}; is a server running? emotion-ai serve starts one")
        if code == "NOT_FOUND" or text.startswith("Unrecognized servable version label"):
            return ModelNotFoundError(message)
        if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in text and ("CLIENT" in text or "Decompressed" in text):
            return ServerFailureError(f"{self._url}: the response is larger than {MAX_RESPONSE // 2**20} MiB")
        if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in text:
            return RequestRejectedError(f"{message}; send fewer images at once")
        return RequestRejectedError(message) if code in _REJECTED else ServerFailureError(message)


def _service_config(retries: int) -> dict[str, object]:
    policy = {
        "maxAttempts": min(retries, 4) + 1,  # gRPC takes at most five
        "initialBackoff": "0.2s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": [{}], **({"retryPolicy": policy} if retries > 0 else {})}]}
