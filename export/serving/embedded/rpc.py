"""TensorFlow Serving's gRPC methods on a model store: Predict, GetModelStatus, GetModelMetadata."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore, Timer
from typing import Any

import grpc

from emotion_ai.client import protos
from emotion_ai_export.serving.embedded import NAME
from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.limits import Limits
from emotion_ai_export.serving.embedded.loaded_model import LoadedModel
from emotion_ai_export.serving.embedded.store import ModelStore

_SIGNATURES = "signature_def"


def start_rpc(store: ModelStore, address: str, limits: Limits | None = None) -> tuple[grpc.Server, int]:
    """A started gRPC server on HOST:PORT (port 0 takes a free one), and its port.

    Raises:
        OSError: the address is taken.
    """
    limits = limits or Limits()
    server = grpc.server(
        # a thread also waits while a request arrives
        ThreadPoolExecutor(limits.pending, thread_name_prefix="rpc"),
        maximum_concurrent_rpcs=limits.pending,
        options=[
            ("grpc.max_receive_message_length", limits.body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second server on the same port is an error
        ],
    )
    workers = Semaphore(limits.workers)
    methods = {
        protos.PREDICT: (_predict, protos.PredictRequest),
        protos.GET_MODEL_METADATA: (_metadata, protos.GetModelMetadataRequest),
        protos.GET_MODEL_STATUS: (_status, protos.GetModelStatusRequest),
    }
    for path, (method, request) in methods.items():
        service, name = path.removeprefix("/").split("/")
        handlers = {name: _handler(store, method, request, workers, limits)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}") from error
    server.start()
    return server, port


def _handler(
    store: ModelStore, method: Callable[[ModelStore, Any], Any], request: Any, workers: Semaphore, limits: Limits
) -> Any:
    def respond(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        timer = Timer(limits.receive, context.cancel)
        timer.start()
        message = next(messages, None)
        timer.cancel()
        if message is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The request holds no message")
        context.send_initial_metadata((("server", NAME),))
        if not workers.acquire(timeout=limits.run):
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "No worker was free in time; try again later")
        try:
            return method(store, message)
        except ServingError as error:
            context.abort(grpc.StatusCode[error.code], str(error))
        finally:
            workers.release()

    # to a client as unary, but called before the message is there, so that its arrival has a time limit
    return grpc.stream_unary_rpc_method_handler(
        respond, request.FromString, lambda message: message.SerializeToString()
    )


def _predict(store: ModelStore, request: Any) -> Any:
    loaded = _find(store, request.model_spec)
    tensors = {}
    for name, value in request.inputs.items():
        try:
            tensors[name] = protos.array(value)
        except ValueError as error:
            raise ServingError(f"{name}: {error}") from error
    signature = request.model_spec.signature_name or "serving_default"
    outputs = loaded.run(signature, tensors, request.output_filter)
    response = protos.PredictResponse(model_spec=_spec(request.model_spec.name, loaded, signature))
    for name, array in outputs.items():
        response.outputs[name].CopyFrom(protos.tensor(array, packed=False))
    return response


def _metadata(store: ModelStore, request: Any) -> Any:
    if not request.metadata_field:
        raise ServingError("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != _SIGNATURES:
            raise ServingError(f"Metadata field {field} is not supported")
    loaded = _find(store, request.model_spec)
    response = protos.GetModelMetadataResponse(model_spec=_spec(request.model_spec.name, loaded))
    packed = response.metadata[_SIGNATURES]
    packed.type_url, packed.value = protos.SIGNATURE_MAP_URL, loaded.metadata.SerializeToString()
    return response


def _status(store: ModelStore, request: Any) -> Any:
    spec = request.model_spec
    return store.status(spec.name, spec.version.value if spec.HasField("version") else None)


def _find(store: ModelStore, spec: Any) -> LoadedModel:
    version = spec.version.value if spec.HasField("version") else None
    return store.find(spec.name, version, spec.version_label if spec.HasField("version_label") else None)


def _spec(model: str, loaded: LoadedModel, signature: str = "") -> dict[str, Any]:
    return {"name": model, "version": {"value": loaded.version}, "signature_name": signature}
