"""TensorFlow Serving's REST paths on a model store: predict, status and metadata; no classify or regress."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from emotion_ai_export.serving.embedded import NAME
from emotion_ai_export.serving.embedded.errors import ServingError
from emotion_ai_export.serving.embedded.limits import Limits
from emotion_ai_export.serving.embedded.store import ModelStore
from emotion_ai_export.serving.embedded.wire import message_json, parse_predict, render_predict

_PATH = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?P<verb>:predict|/metadata)?"
)
_METHODS = {("POST", ":predict"), ("GET", None), ("GET", "/metadata")}


def create_app(store: ModelStore, limits: Limits | None = None, stop: Callable[[], None] = lambda: None) -> Router:
    """The ASGI application. At the end of its lifespan it calls `stop`, and stops the store."""
    limits = limits or Limits()
    pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="model")
    pending = 0

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(stop)
        await asyncio.to_thread(store.stop)
        pool.shutdown(wait=False, cancel_futures=True)  # open requests have ended, or have had their time

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal pending
        request, ambiguous = Request(scope, receive), False
        pending += 1
        try:
            if pending > limits.pending:
                raise ServingError(f"More than {limits.pending} requests are pending; try again later", "UNAVAILABLE")
            if ambiguous := {"content-length", "transfer-encoding"} <= set(request.headers):  # to a proxy in front
                raise ServingError("Both Content-Length and Transfer-Encoding are given", status=400)
            body = await _body(request, limits.body)
            # models and JSON keep a core busy: in a thread, they leave the event loop free for other requests
            latest = time.monotonic() + limits.run
            work = pool.submit(_respond, store, request.method, _path(request), body, latest)
            response = await asyncio.wrap_future(work)
        except ServingError as error:
            response = _json({"error": str(error)}, error.status)
            if ambiguous or error.status == 413:  # the rest of the body may be on its way
                response.headers["connection"] = "close"
        except ClientDisconnect:
            return
        finally:
            pending -= 1
        response.headers["server"] = NAME
        if request.method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    return Router(redirect_slashes=False, default=serve, lifespan=lifespan)


def _path(request: Request) -> str:
    """The path as it was sent, with its query, which the server reads as a part of the model's name."""
    query = request.scope["query_string"]
    return (request.scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")


async def _body(request: Request, limit: int) -> bytes:
    if "content-encoding" in request.headers:
        raise ServingError("The embedded server takes no compressed bodies; send it as it is", status=400)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            text = f"The request's body is larger than {limit} bytes; send fewer images at once"
            raise ServingError(text, "RESOURCE_EXHAUSTED", 413)
    return bytes(body)


def _respond(store: ModelStore, method: str, path: str, body: bytes, latest: float) -> Response:
    if time.monotonic() > latest:
        raise ServingError("No worker was free in time; try again later", "DEADLINE_EXCEEDED")
    match = _PATH.fullmatch(path)
    if not path.startswith("/v1/"):
        raise ServingError(f"Not found: {path}", "NOT_FOUND")
    if match is None or (method, match["verb"]) not in _METHODS:
        raise ServingError(f"Malformed request: {method} {path}")
    model, digits, label = (group and unquote(group) for group in match.group("model", "version", "label"))
    version = int(digits[:20]) if digits else None
    if version is not None and version >= 2**63:
        return Response(status_code=400, media_type="application/json")  # without a body, as the server
    if match["verb"] == ":predict":
        found = cache(
            lambda: store.find(model, version, label)
        )  # after parsing: invalid JSON is an error for any model
        request = parse_predict(body, lambda signature: found().dtypes(signature))
        outputs = found().run(request.signature, request.tensors)
        return Response(render_predict(outputs, request.row), media_type="application/json")
    if match["verb"] is None:
        return _json(message_json(store.status(model, version)))
    loaded = store.find(model, version, label)
    spec = {"name": model, "version": str(loaded.version), "signature_name": ""}
    return _json({"model_spec": spec, "metadata": {"signature_def": message_json(loaded.metadata)}})


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content, indent=1) + "\n", status, media_type="application/json")
