"""The guard in front of Gradio: which requests reach it and from whom, limits per address, strict response headers.

Gradio checks that a file named in a request is an upload only if it runs its own server. Mounted into another
application, as here, it would read any path. So Gradio never sees one: the guard takes the uploads itself, keeps them
in memory, reads every request strictly and writes it anew. Paths, methods and fields that the page does not use are
refused.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse

from emotion_ai.web.limits import RateLimit, network
from emotion_ai.web.messages import Kind, Reader, RefusedError, too_large
from emotion_ai.web.origins import Hosts, new_visitor, visitor
from emotion_ai.web.preview import preview
from emotion_ai.web.receiving import Receiver
from emotion_ai.web.store import Store
from emotion_ai.web.uploads import MAX_BYTES, Uploads
from emotion_ai.web.videos import FILES, MAX_VIDEO_BYTES

UPLOADS_PER_MINUTE = 30
"""Pictures from one address."""

VIDEOS_PER_MINUTE = 6
"""Videos from one address."""

FRAMES_PER_MINUTE = 1200
"""Pictures of the live webcam from one address."""

EVENTS_PER_MINUTE = 1200
"""Requests for handlers from one address."""

MAX_WINDOWS = 10_000
"""Windows that are known at the same time."""

WINDOW_SECONDS = 3600.0
"""Longest time between a request for a handler and one for its results."""

_API = "/gradio_api"
_PAGES = (
    "/",
    "/config",
    "/theme.css",
    "/manifest.json",
    "/favicon.ico",
    "/robots.txt",
    f"{_API}/startup-events",
    f"{_API}/app_id",
)
_ASSET = re.compile(r"/(assets|static)(/[A-Za-z0-9_@-][A-Za-z0-9_.@-]*)+")
_EVENT = re.compile(rf"{_API}/stream/[0-9a-f]{{32}}(/close)?")
_VIDEO = "/video"
_RESULT = re.compile(rf"{_VIDEO}/([A-Za-z0-9_-]{{32}})/([a-z0-9.]+)")
_INLINE_BYTES = 3 * MAX_BYTES // 2  # of a request with a picture inside
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_REPLACED = (*_HEADERS, "cache-control", "access-control-allow-origin", "access-control-allow-credentials")
_UNTRUSTED = re.compile(r"forwarded|x-forwarded-.*|x-real-ip|x-gradio-.*|cookie|authorization")


@dataclass
class Guard:
    """ASGI middleware that refuses every request that the page does not make.

    Attributes:
        app: the guarded application.
        uploads: of all visitors.
        handlers: the inputs of each of the page's handlers, by its number.
        hosts: names under which the page may be requested.
        pictures: limit for each address.
        clips: limit for each address, of videos.
        frames: limit for each address, of the live webcam.
        events: limit for each address, of requests for handlers.
        receiver: of the bodies of all requests.
        clip_receiver: of those that are videos.
        windows: those that have sent a request for a handler.
    """

    app: Any
    uploads: Uploads
    handlers: Mapping[int, tuple[Kind, ...]]
    hosts: Hosts = Hosts()
    pictures: RateLimit = field(default_factory=lambda: RateLimit(UPLOADS_PER_MINUTE))
    clips: RateLimit = field(default_factory=lambda: RateLimit(VIDEOS_PER_MINUTE))
    frames: RateLimit = field(default_factory=lambda: RateLimit(FRAMES_PER_MINUTE))
    events: RateLimit = field(default_factory=lambda: RateLimit(EVENTS_PER_MINUTE))
    receiver: Receiver = field(default_factory=Receiver)
    clip_receiver: Receiver = field(default_factory=lambda: Receiver(2**30, 2 * MAX_VIDEO_BYTES, 600.0))
    windows: Store[bool] = field(default_factory=lambda: Store(MAX_WINDOWS, WINDOW_SECONDS))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no web sockets
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await _Exchange(self, scope, receive, send).run()


class _Exchange:
    """One request and its response."""

    def __init__(self, guard: Guard, scope: Any, receive: Any, send: Any) -> None:
        self._guard, self._scope, self._receive_raw, self._send_raw = guard, scope, receive, send
        self._headers, self._path = Headers(scope=scope), scope["path"]
        self._cookie = f"emotion_ai_{(scope.get('server') or ('', 0))[1]}"  # browsers share cookies between ports
        known = visitor(self._headers, self._cookie)
        self._is_new, self._visitor = known is None, known or new_visitor()
        self._address = network((scope.get("client") or ("",))[0])
        self._reader = Reader(guard.handlers, guard.uploads, self._visitor, self._address, self._count)
        self._is_received = False

    async def run(self) -> None:
        try:
            self._guard.hosts.check(self._headers, self._path)
            if self._scope["method"] == "POST":
                await self._post()
            elif self._scope["method"] in ("GET", "HEAD"):
                await self._get()
            else:
                raise RefusedError("Method not allowed.", 405)
        except RefusedError as refused:
            if not self._is_received and "expect" not in self._headers:
                await self._guard.receiver.discard(self._receive, self._headers)
            text = str(refused)
            response = PlainTextResponse(text) if self._path.endswith("/upload") else JSONResponse({"detail": text})
            response.status_code = refused.status
            await self._respond(response)

    async def _get(self) -> None:
        path, query = self._path, b""
        if path.startswith(f"{_API}/file="):
            await self._file(path.removeprefix(f"{_API}/file="))
            return
        if found := _RESULT.fullmatch(path):
            await self._result(found[1], found[2])
            return
        if path == f"{_API}/upload_progress":  # an upload is there as soon as it was received
            await self._respond(Response('data: {"msg": "done"}\n\n', media_type="text/event-stream"))
            return
        if path == f"{_API}/queue/data":
            names = parse_qs(self._scope["query_string"].decode("latin-1")).get("session_hash", [""])
            window = self._reader.window(names[-1])
            if not self._guard.windows.get(window):  # Gradio would log an error
                raise RefusedError("Not found.", 404)
            query = f"session_hash={window}".encode()
        elif path.startswith(f"{_API}/heartbeat/"):
            path = f"{_API}/heartbeat/{self._reader.window(path.rpartition('/')[2])}"
        elif path not in _PAGES and not _ASSET.fullmatch(path):
            raise RefusedError("Not found.", 404)
        await self._pass(path, query)

    async def _post(self) -> None:
        path, length = self._path, self._headers.get("content-length", "")
        is_event = path == f"{_API}/queue/join" or (_EVENT.fullmatch(path) and not path.endswith("/close"))
        is_upload = path == f"{_API}/upload"
        known = (_VIDEO, f"{_API}/cancel", f"{_API}/reset")
        if not (is_event or is_upload or _EVENT.fullmatch(path) or path in known):
            raise RefusedError("Not found.", 404)
        if not re.fullmatch("[0-9]{1,12}", length) or "transfer-encoding" in self._headers:
            raise RefusedError("The request needs a Content-Length header.", 411)
        if path == _VIDEO:
            await self._video(int(length))
            return
        if int(length) > (_INLINE_BYTES if is_event else MAX_BYTES + 2**16 if is_upload else 2**16):
            raise too_large()
        if is_upload:
            self._count("picture")
            name, content = await self._guard.receiver.file(self._receive, self._headers, int(length), self._address)
            await self._respond(JSONResponse([self._guard.uploads.add(self._visitor, name, content, self._address)]))
            return
        if self._headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError("The request must be application/json.", 415)
        if path == f"{_API}/queue/join" and self._guard.events.exceeded(self._address):
            raise RefusedError("Too many requests in a minute; wait a moment.", 429)
        body = await self._guard.receiver.body(self._receive, int(length), self._address)
        if is_event:
            body = await asyncio.to_thread(self._reader.event, body) if len(body) > 2**16 else self._reader.event(body)
        elif path == f"{_API}/cancel":
            body = self._reader.cancel(body)
        else:
            body = b'{"event_id": ""}'  # Gradio ignores it
        if is_event:
            window = json.loads(body)["session_hash"]
            self._guard.windows.put(window, True, 1, self._address)
        await self._pass(path, b"", body)

    def _count(self, kind: Kind) -> None:
        """Counts a picture; raises RefusedError if it is one too many from this address."""
        limit = self._guard.frames if kind == "frame" else self._guard.pictures
        if limit.exceeded(self._address):
            raise RefusedError("Too many pictures in a minute; wait a moment.", 429)

    async def _video(self, length: int) -> None:
        """Receives a video; responds with its token."""
        videos = self._guard.uploads.videos
        if length > MAX_VIDEO_BYTES:
            raise too_large(MAX_VIDEO_BYTES, "video")
        if self._guard.clips.exceeded(self._address):
            raise RefusedError("Too many videos in a minute; wait a moment.", 429)
        if not videos.has_room(length):
            raise RefusedError("The page has no room for this video; try again later.", 507)
        name = parse_qs(self._scope["query_string"].decode("latin-1")).get("name", [""])[0]
        video = videos.receive(name, self._address)
        await self._guard.clip_receiver.into_file(self._receive, length, self._address, video.file)
        videos.add(self._visitor, video)
        await self._respond(JSONResponse({"video": video.token}))

    async def _result(self, token: str, name: str) -> None:
        """Responds with a file that was made of the visitor's video, or with a range of it."""
        video = self._guard.uploads.videos.find(self._visitor, token)  # its files stay as long as this holds it
        if video is None:
            raise RefusedError("This is not a video of yours, or it has been deleted; add it again.", 403)
        path = video.out / name
        if name not in FILES or not video.is_finished or path.is_symlink() or not path.is_file():
            raise RefusedError("Not found.", 404)
        shown = FILES[name].startswith(("video/", "image/"))
        await self._respond(
            FileResponse(path, 200, media_type=FILES[name], filename=name, content_disposition_type="inline")
            if shown
            else FileResponse(path, 200, media_type=FILES[name], filename=name)
        )

    async def _file(self, path: str) -> None:
        upload = self._guard.uploads.find(self._visitor, path)
        if upload is None:
            raise RefusedError("This is not an upload of yours, or it has been deleted; add the picture again.", 403)
        if upload.shown is None:
            upload.shown = asyncio.ensure_future(asyncio.to_thread(preview, upload.content))
        shown, kind = await asyncio.shield(upload.shown)
        headers = {"content-length": str(len(shown))}
        if kind == "application/octet-stream":
            headers["content-disposition"] = "attachment"
        await self._respond(StreamingResponse(_pieces(shown), media_type=kind, headers=headers))

    async def _respond(self, response: Response) -> None:
        await response(self._scope, self._receive, self._send)

    async def _pass(self, path: str, query: bytes = b"", body: bytes | None = None) -> None:
        """Passes the request on, with nothing in it that was not checked."""
        headers = [(n, v) for n, v in self._scope["headers"] if not _UNTRUSTED.fullmatch(n.decode("latin-1"))]
        if name := self._guard.hosts.forwarded(self._headers):
            headers = [*((n, v) for n, v in headers if n != b"host"), (b"host", name.encode())]
        if body is not None:
            headers = [(n, v) for n, v in headers if n not in (b"content-length", b"content-type")]
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        scope = {**self._scope, "path": path, "raw_path": path.encode(), "query_string": query, "headers": headers}
        receive = self._receive if body is None else partial(self._again, [body])
        await self._guard.app(scope, receive, self._send)

    async def _again(self, bodies: list[bytes]) -> Any:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        return await self._receive()

    async def _receive(self) -> Any:
        message = await self._receive_raw()
        self._is_received = not message.get("more_body", False)
        return message

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [(n, v) for n, v in message["headers"] if n.decode("latin-1").lower() not in _REPLACED]
            is_asset = self._path.startswith(("/assets/", "/static/"))  # scripts and styles, no pictures
            headers.append((b"cache-control", b"max-age=3600" if is_asset else b"no-store"))
            headers += [(n.encode(), v.encode()) for n, v in _HEADERS.items()]
            if self._is_new and not is_asset:
                secure = "; Secure" if self._scope["scheme"] == "https" else ""
                cookie = f"{self._cookie}={self._visitor}; Path=/; HttpOnly; SameSite=Lax{secure}"
                headers.append((b"set-cookie", cookie.encode()))
            message["headers"] = headers
        await self._send_raw(message)


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    """Content in pieces, so that a connection that is not read holds no copy of the whole."""
    for start in range(0, len(content), 2**16):
        yield content[start : start + 2**16]
