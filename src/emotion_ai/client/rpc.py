"""TensorFlow Serving's gRPC API; its errors become ours. Needs the extra [grpc]."""

import os
import re
from pathlib import Path
from typing import Any

from emotion_ai.client import failures, probe
from emotion_ai.client.certificates import own_files, trust_context, trusted_certificates, trusted_file
from emotion_ai.client.deadline import Deadline
from emotion_ai.client.failures import TransientError, plain
from emotion_ai.client.proxies import TUNNEL_CODE, proxy_failure, proxy_of, proxy_problem
from emotion_ai.client.retrying import seconds_to_wait, with_retries
from emotion_ai.client.transport import Connection, Inputs, Prediction
from emotion_ai.contract import INPUTS
from emotion_ai.errors import ClientError, ConfigError, MissingExtraError, ServerFailureError

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines on stderr repeat the errors, and precede ours

try:
    import grpc
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError

    from emotion_ai.client import protos
except ModuleNotFoundError as error:
    raise MissingExtraError(f"gRPC needs {error.name}: pip install 'emotion-ai[grpc]'") from error

MAX_REQUEST, MAX_RESPONSE = 256 * 2**20, 64 * 2**20
"""Bytes, decompressed; gRPC's default of 4 MB holds the response for 6,000 faces."""

_TOO_LARGE = "larger than max"
_PUSHBACK = "grpc-retry-pushback-ms"
_HTTP_STATUS = re.compile(r"http2 header with status: (\d{3})")
_NO_CONNECTION = re.compile(
    r"(?i)failed to connect|errors? resolving|dns resolution|socket closed|recvmsg|sendmsg|goaway|keepalive"
    r"|connection (reset|refused|attempt)|broken pipe|stream refused|endpoint (closed|closing)|unreachable|no route"
    r"|draining"
)
"""What gRPC itself says with UNAVAILABLE; other texts are the server's."""

_TLS = re.compile(r"(?i)\btls|\bssl|verification check|alpn|security handshaker")
_TIMED_OUT = re.compile(r"(?i)timed out|timeout|deadline|handshake read failed .endpoint closing")


class GrpcTransport:
    """A `Transport` over one gRPC channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._url = connection, connection.url
        self._process, self._closed = os.getpid(), False
        version = None if connection.version is None else {"value": connection.version}
        self._spec = {"name": connection.model, "version": version, "version_label": connection.label}
        self._trusted = trusted_file(connection.ca_file) if connection.secure else None
        self._own = own_files(connection.cert)
        self._proxy = proxy_of(connection)
        connecting = int(connection.timeout[0] * 1000)
        options = [
            ("grpc.max_receive_message_length", MAX_RESPONSE),
            ("grpc.max_send_message_length", MAX_REQUEST),
            ("grpc.enable_http_proxy", int(self._proxy is not None)),
            ("grpc.enable_retries", 0),  # `with_retries` counts and waits the same way over REST
            ("grpc.min_reconnect_backoff_ms", connecting),  # the time to connect
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 5000),  # the default of 120 s is longer than an outage is waited for
            *([] if self._proxy is None else [("grpc.http_proxy", self._proxy)]),
        ]
        if connection.secure:
            chain, key = (Path(file).read_bytes() for file in self._own) if self._own else (None, None)
            credentials = grpc.ssl_channel_credentials(trusted_certificates(self._trusted), key, chain)
            self._channel = grpc.secure_channel(connection.address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(connection.address, options)
        self._predict = self._method(protos.PREDICT, protos.PredictResponse)
        self._metadata = self._method(protos.GET_MODEL_METADATA, protos.GetModelMetadataResponse)
        self._status = self._method(protos.GET_MODEL_STATUS, protos.GetModelStatusResponse)

    def __reduce__(self) -> tuple[type["GrpcTransport"], tuple[Connection]]:
        return GrpcTransport, (self._connection,)  # a pickled client has a channel of its own

    def close(self) -> None:
        """Closes the channel, unless it is another process's."""
        self._closed = True
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
        """The response, within the time-out, retries included."""
        if self._process != os.getpid():  # gRPC's threads stay behind: the request would hang
            raise ConfigError(f"{self._url}: a gRPC client cannot be used after a fork; create it in the new process")
        deadline = Deadline(self._url, self._connection.timeout[1])
        try:
            return with_retries(lambda: self._attempt(method, request, deadline), self._connection.retries, deadline)
        except TransientError as failed:
            trust = trust_context(self._trusted, self._own)
            raise probe.explained(failed, self._connection, self._url, trust) from failed

    def _attempt(self, method: Any, request: Any, deadline: Deadline) -> Any:
        settings = {"timeout": deadline.left(), "metadata": self._connection.metadata or None}
        try:
            if deadline.cancellation is None:
                return method(request, **settings)
            future = method.future(request, **settings)
            with deadline.aborting(future.cancel):
                return future.result()
        except grpc.FutureCancelledError:
            deadline.check_cancelled()
            raise
        except grpc.RpcError as error:
            deadline.check_cancelled()
            raise self._failure(error, deadline) from error
        except ValueError as error:
            if self._closed:
                raise ConfigError(f"{self._url}: the client is closed; create another one") from error
            raise

    def _failure(self, error: Any, deadline: Deadline) -> ClientError | ConfigError | TransientError:
        code, text = error.code().name, plain(error.details() or "", 2000)
        if self._closed:
            return ConfigError(f"{self._url}: the client is closed; create another one")
        if code == "DEADLINE_EXCEEDED":
            return deadline.timeout()
        if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE in text:
            if "CLIENT" in text or "Decompressed" in text:
                return ServerFailureError(f"{self._url}: the response is larger than {MAX_RESPONSE // 2**20} MiB")
            return failures.failure(self._url, 413, code, text)
        if found := _HTTP_STATUS.search(text):
            return failures.failure(self._url, int(found[1]), f"HTTP {found[1]}", foreign="without gRPC")
        if code == "UNAVAILABLE" and _NO_CONNECTION.search(text):
            return self._no_connection(text, deadline)
        waits = {key: value for key, value in error.trailing_metadata() or () if key in ("retry-after", _PUSHBACK)}
        milliseconds = seconds_to_wait(waits.get(_PUSHBACK)) / 1000
        wait = milliseconds or seconds_to_wait(waits.get("retry-after"))
        return failures.failure(self._url, failures.STATUS_OF_CODE.get(code, 500), code, text, retry_after=wait)

    def _no_connection(self, text: str, deadline: Deadline) -> ClientError | TransientError:
        """The failure of a connection that could not be made or broke, from gRPC's text."""
        if self._proxy is None and _TIMED_OUT.search(text):
            timeout = deadline.timeout(min(self._connection.timeout[0], deadline.seconds))
            return TransientError(timeout, unexplained=True)
        if _TLS.search(text):
            return failures.tls_failure(self._url, text)
        if self._proxy is not None:
            problem = proxy_problem(self._proxy, min(probe.SECONDS, deadline.left()))
            if problem or TUNNEL_CODE.search(text):
                return proxy_failure(self._url, self._proxy, problem or text.rpartition("last error: ")[2])
        return failures.no_connection(self._url, text.rpartition("last error: ")[2])
