"""The guard in front of Gradio: which requests reach it, limits per address, and strict response headers.

Gradio checks that a file named in a request is an upload only if it runs its own server. Mounted into another
application, as here, it would read any path, so the guard checks every path before Gradio sees the request.
"""

import json
import stat
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse

MAX_BYTES = 10 * 2**20
"""Of one picture."""

UPLOADS_PER_MINUTE = 30
"""From one address."""

_API = "/gradio_api"
_POSTS = ("/queue/join", "/upload", "/cancel", "/reset", "/stream/")  # all that the page posts to
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_REPLACED = (*_HEADERS, "cache-control")


class _RefusedError(Exception):
    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Guard:
    """ASGI middleware that refuses every request that the page does not make.

    Attributes:
        app: the guarded application.
        folder: for uploads; a request that names any other file is refused.
        uploads: allowed per minute from one address.
    """

    app: Any
    folder: Path
    uploads: int = UPLOADS_PER_MINUTE
    _seen: dict[str, deque[float]] = field(default_factory=dict)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page uses no web sockets
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in _REPLACED]
                if scope["path"].startswith(("/assets/", "/static/")):  # scripts and styles, no pictures
                    kept.append((b"cache-control", b"max-age=3600"))
                else:
                    kept.append((b"cache-control", b"no-store"))
                message["headers"] = kept + [(n.encode(), v.encode()) for n, v in _HEADERS.items()]
            await send(message)

        try:
            if scope["method"] == "POST":
                receive = await self._checked_post(scope, receive)
            else:
                self._check_path(scope["path"])
        except _RefusedError as refused:
            await PlainTextResponse(str(refused), refused.status)(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)

    def _check_path(self, path: str) -> None:
        """Refuses paths that read a file other than an upload, or that request something from another host."""
        inside = path.removeprefix(_API)
        if inside.startswith("/file="):
            self._check_upload(inside.removeprefix("/file="))
        elif inside.startswith(("/proxy=", "/file/", "/custom_component/", "/deep_link", "/run-history", "/dev/")):
            raise _RefusedError("Not found.", 404)

    async def _checked_post(self, scope: Any, receive: Any) -> Any:
        """Checks a POST request; returns a `receive` that yields its body again."""
        path, headers = scope["path"].removeprefix(_API), dict(scope["headers"])
        if not path.startswith(_POSTS):
            raise _RefusedError("Not found.", 404)
        self._check_origin(headers)
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            raise _RefusedError("The request needs a Content-Length header.", 411)
        if int(length) > 2 * MAX_BYTES:
            raise _RefusedError(f"At most {MAX_BYTES // 2**20} MB can be sent.", 413)
        if path.startswith("/upload"):
            if self._too_many(scope["client"][0], time.monotonic()):
                raise _RefusedError("Too many pictures in a minute; wait a moment.", 429)
            return receive
        body = await _read(receive, int(length))
        for named in _paths(_parsed(body)):
            self._check_upload(named)

        sent = False

        async def again() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again

    def _check_origin(self, headers: dict[bytes, bytes]) -> None:
        """Refuses requests that a page of another origin, such as another port, makes a browser send."""
        origin = headers.get(b"origin")
        host = headers.get(b"host", b"").decode("latin-1")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            raise _RefusedError("Requests from other pages are refused.", 403)

    def _check_upload(self, named: Any) -> None:
        """Refuses every path except regular files in the upload folder, before anything is opened."""
        try:
            path = Path(named)
            inside = path.is_absolute() and path.resolve().is_relative_to(self.folder.resolve())
            if inside and path == path.resolve() and stat.S_ISREG(path.lstat().st_mode):
                return
        except (OSError, TypeError, ValueError):
            pass
        raise _RefusedError("This is not an upload, or it has been deleted; add the picture again.", 403)

    def _too_many(self, address: str, now: float) -> bool:
        self._seen = {a: times for a, times in self._seen.items() if times[-1] > now - 60}
        times = self._seen.setdefault(address, deque())
        while times and times[0] <= now - 60:
            times.popleft()
        if len(times) >= self.uploads:
            return True
        times.append(now)
        return False


async def _read(receive: Any, length: int) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _RefusedError("The request is incomplete.", 400)
        body += message.get("body", b"")
        if len(body) > length:
            raise _RefusedError("The request is longer than its Content-Length.", 400)
        if not message.get("more_body"):
            return body


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body.strip() else None
    except (ValueError, RecursionError) as error:
        raise _RefusedError("The request is not JSON.", 400) from error


def _paths(value: Any) -> Iterator[Any]:
    """The `path` of every object in a JSON value, unless it is empty."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if item.get("path"):
                yield item["path"]
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
