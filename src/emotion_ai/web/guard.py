"""What keeps the page to itself: limits for each address, and headers by which the browser asks nobody else."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import PlainTextResponse

MAX_BYTES = 10 * 2**20  # of one picture
UPLOADS = 30  # a minute, from one address
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
_OURS = (*_HEADERS, "cache-control")


@dataclass
class Guard:
    """ASGI middleware; the limits are on top of those of Gradio's queue, which knows no addresses."""

    app: Any
    uploads: int = UPLOADS
    _seen: dict[str, deque[float]] = field(default_factory=dict)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in _OURS]
                if scope["path"].startswith(("/assets/", "/static/")):  # not pictures, and many
                    kept.append((b"cache-control", b"max-age=3600"))
                else:
                    kept.append((b"cache-control", b"no-store"))
                message["headers"] = kept + [(n.encode(), v.encode()) for n, v in _HEADERS.items()]
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, scope: Any) -> Any:
        if scope["method"] != "POST":
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return PlainTextResponse("The length of what is sent must be given.", 411)
        if int(length) > 2 * MAX_BYTES:
            return PlainTextResponse(f"At most {MAX_BYTES // 2**20} MB can be sent.", 413)
        if scope["path"].endswith("/upload") and self._too_many(scope["client"][0], time.monotonic()):
            return PlainTextResponse("Too many pictures in a minute; wait a little.", 429)
        return None

    def _too_many(self, address: str, now: float) -> bool:
        self._seen = {a: times for a, times in self._seen.items() if times[-1] > now - 60}
        times = self._seen.setdefault(address, deque())
        while times and times[0] <= now - 60:
            times.popleft()
        if len(times) >= self.uploads:
            return True
        times.append(now)
        return False
