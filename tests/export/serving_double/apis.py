"""REST and gRPC."""

import json
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict

from emotion_ai.client import protos
from tests.export.serving_double import StatusError
from tests.export.serving_double.manager import Server
from tests.export.serving_double.saved_models import fields, predicted

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
CODES = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}


class Rest(BaseHTTPRequestHandler):
    """The REST paths."""

    protocol_version = "HTTP/1.1"
    server_version = "tensorflow-serving-double"
    wbufsize = -1
    disable_nagle_algorithm = True
    core: Server

    def do_GET(self) -> None:
        self.respond(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?", self.get)

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.respond(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(predict)", self.predict)

    def respond(self, pattern: str, method: Callable[..., Any]) -> None:
        try:
            match = re.fullmatch(pattern, self.path)
            if match is None:
                raise StatusError("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
            model, version, label, verb = match.groups()
            status, content = 200, method(model, int(version) if version else None, label, verb)
        except StatusError as error:
            status, content = CODES.get(error.code, 500), {"error": str(error)}
        body = json.dumps(content, indent=1).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def get(self, model: str, version: int | None, label: str | None, metadata: str | None) -> Any:
        if not metadata:  # whatever the label
            return {"model_version_status": self.core.status(model, version)}
        number, signatures = self.core.find(model, version, label)
        options: dict[str, Any] = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        spec = {"name": model, "version": str(number), "signature_name": ""}
        return {"model_spec": spec, "metadata": {"signature_def": MessageToDict(signatures, **options)}}

    def predict(self, model: str, version: int | None, label: str | None, _: str) -> Any:
        try:
            body = json.loads(self.body)
            rows = body["instances"]
        except (ValueError, KeyError) as error:
            raise StatusError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
        number, signatures = self.core.find(model, version, label)
        outputs = predicted(number, signatures, body.get("signature_name", ""), len(rows))
        values = {
            name: value.astype(str if value.dtype == object else float).tolist() for name, value in outputs.items()
        }
        if len(values) == 1:
            return {"predictions": next(iter(values.values()))}
        return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}

    def log_message(self, *_: Any) -> None:
        pass


def start_grpc(core: Server, port: int, threads: int) -> grpc.Server:
    """Methods with the limit of --grpc_max_threads; a thread of each core waits for calls."""
    free = threading.Semaphore(max(1, threads - (os.cpu_count() or 1)))

    def choice(spec: Any) -> tuple[str, int | None, str | None]:
        version = spec.version.value if spec.HasField("version") else None
        return spec.name, version, spec.version_label if spec.HasField("version_label") else None

    def spec_of(name: str, number: int, signature: str = "") -> dict[str, Any]:
        return {"name": name, "version": {"value": number}, "signature_name": signature}

    def predict(data: bytes) -> bytes:
        request = protos.PredictRequest.FromString(data)
        number, signatures = core.find(*choice(request.model_spec))
        batches = [t.tensor_shape.dim[0].size for t in request.inputs.values() if t.tensor_shape.dim]
        name = request.model_spec.signature_name or "serving_default"
        response = protos.PredictResponse(model_spec=spec_of(request.model_spec.name, number, name))
        outputs = predicted(number, signatures, name, batches[0] if batches else 1)
        for output in request.output_filter or outputs:
            response.outputs[output].CopyFrom(protos.tensor(outputs[output], packed=False))
        return bytes(response.SerializeToString())

    def status(data: bytes) -> bytes:
        name, number, _ = choice(protos.GetModelStatusRequest.FromString(data).model_spec)
        response = protos.GetModelStatusResponse()
        for entry in core.status(name, number):
            added = response.model_version_status.add(version=int(entry["version"]), state=entry["state"])
            added.status.error_code = entry["status"]["error_code"]
            added.status.error_message = entry["status"]["error_message"]
        return bytes(response.SerializeToString())

    def metadata(data: bytes) -> bytes:
        spec = protos.GetModelMetadataRequest.FromString(data).model_spec
        number, signatures = core.find(*choice(spec))
        response = protos.GetModelMetadataResponse(model_spec=spec_of(spec.name, number))
        packed = response.metadata["signature_def"]
        packed.type_url, packed.value = protos.SIGNATURE_MAP_URL, signatures.SerializeToString()
        return bytes(response.SerializeToString())

    def reload(data: bytes) -> bytes:
        core.reload(protos.ModelServerConfig.FromString(b"".join(value for n, value in fields(data) if n == 1)))
        return b"\x0a\x00"

    def limited(method: Callable[[bytes], bytes]) -> Any:
        def respond(data: bytes, context: grpc.ServicerContext) -> bytes:
            if not free.acquire(blocking=False):
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
            try:
                return method(data)
            except StatusError as error:
                return context.abort(grpc.StatusCode[error.code], str(error))
            finally:
                free.release()

        return grpc.unary_unary_rpc_method_handler(respond)

    server = grpc.server(ThreadPoolExecutor(256), options=[("grpc.so_reuseport", 0)])
    methods = {
        protos.PREDICT: predict, protos.GET_MODEL_STATUS: status, protos.GET_MODEL_METADATA: metadata, RELOAD: reload,
    }  # fmt: skip
    for path, method in methods.items():
        service, name = path.removeprefix("/").split("/")
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {name: limited(method)})])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server
