"""TensorFlow Serving's gRPC API as a way to ask; its errors as ours. Needs the extra [grpc]."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import INPUTS
from emotion_ai.errors import (
    ClientError,
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

    from emotion_ai.client import protos
except ModuleNotFoundError as error:
    raise MissingExtraError(f"asking over gRPC needs {error.name}: pip install 'emotion-ai[grpc]'") from error

MAX_MESSAGE = 256 * 2**20
"""Bytes, each way: gRPC's own limit of 4 MB for answers is met by 6,000 faces."""

_REJECTED = {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED"}


class GrpcTransport:
    """Asks one model (a version, a label, or the newest) over one gRPC channel."""

    def __init__(
        self,
        address: str,
        secure: bool,
        local: bool,
        model: str,
        version: int | None,
        label: str | None,
        timeout: tuple[float, float],
        retries: int,
    ) -> None:
        self.url, self._model, self._timeout = f"grpc{'s' * secure}://{address}", model, timeout[1]
        wanted = None if version is None else {"value": version}
        self._spec = {"name": model, "version": wanted, "version_label": label}
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.enable_http_proxy", int(not local)),
            ("grpc.enable_retries", 1),
            ("grpc.service_config", json.dumps(_service_config(retries))),
        ]
        self._channel = (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(), options)
            if secure
            else grpc.insecure_channel(address, options)
        )
        self._predict = self._method(protos.PREDICT, protos.PredictResponse)
        self._metadata = self._method(protos.GET_MODEL_METADATA, protos.GetModelMetadataResponse)
        self._status = self._method(protos.GET_MODEL_STATUS, protos.GetModelStatusResponse)

    def close(self) -> None:
        self._channel.close()

    def predict(self, signature: str, values: list[bytes] | NDArray[Any], outputs: tuple[str, ...]) -> dict[str, Any]:
        """The answer's arrays by output name."""
        request = protos.PredictRequest(model_spec={**self._spec, "signature_name": signature})
        name = INPUTS[signature]
        value = values if isinstance(values, list) else np.asarray(values, np.float32)
        request.inputs[name].CopyFrom(protos.tensor(value))
        response = self._ask(self._predict, request)
        try:
            return {name: protos.array(response.outputs[name]) for name in response.outputs}
        except ValueError as error:
            raise ServerFailureError(f"{self.url}: answered what cannot be read ({error})") from error

    def metadata(self) -> dict[str, Any]:
        """As the REST API writes it."""
        request = protos.GetModelMetadataRequest(model_spec=self._spec, metadata_field=["signature_def"])
        response = self._ask(self._metadata, request)
        signatures = protos.SignatureDefMap.FromString(response.metadata["signature_def"].value)
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
        """As the REST API writes it."""
        response = self._ask(self._status, protos.GetModelStatusRequest(model_spec={"name": self._model}))
        return [
            MessageToDict(entry, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for entry in response.model_version_status
        ]

    def _method(self, path: str, response: Any) -> Any:
        return self._channel.unary_unary(
            path, lambda request: request.SerializeToString(), lambda content: response.FromString(content)
        )

    def _ask(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._error(error.code().name, error.details() or "") from error

    def _error(self, code: str, text: str) -> ClientError:
        message = f"{self.url}: {code}, {text}"
        if code == "DEADLINE_EXCEEDED":
            return ServerTimeoutError(f"{self.url}: no answer within {self._timeout:g} s; is the server overloaded?")
        if code == "UNAVAILABLE":
            return ServerUnreachableError(f"{message}; is a server running? emotion-ai serve starts one")
        if code == "NOT_FOUND" or text.startswith("Unrecognized servable version label"):
            return ModelNotFoundError(message)
        if code == "RESOURCE_EXHAUSTED" and "larger than max" in text:
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
