"""Bodies of requests: received within limits on size, time, and bytes of all at once; into memory, or into a file."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from emotion_ai.web.messages import RefusedError, too_large
from emotion_ai.web.uploads import MAX_BYTES

logging.getLogger("python_multipart").disabled = True  # it logs each damaged upload


@dataclass
class Receiver:
    """Receives the bodies of all requests.

    Attributes:
        max_bytes: of all bodies that are being received.
        max_bytes_each: of those from one address.
        seconds: for one body.
    """

    max_bytes: int = 256 * 2**20
    max_bytes_each: int = 64 * 2**20
    seconds: float = 120.0
    _received: Counter[str] = field(default_factory=Counter)

    async def body(self, receive: Any, length: int, address: str) -> bytes:
        """A body of `length` bytes."""
        async with self._chunks(receive, length, address) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def file(self, receive: Any, headers: Headers, length: int, address: str) -> tuple[str, bytes]:
        """The name and content of the one file in a multipart body of `length` bytes."""
        if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise RefusedError("An upload must be multipart/form-data.", 415)
        async with self._chunks(receive, length, address) as chunks:
            parser = MultiPartParser(headers, chunks, max_files=1, max_fields=1)
            parser.spool_max_size = length + 1  # never to disk
            try:
                form = await parser.parse()
            except MultiPartException as error:
                raise RefusedError(f"The upload is damaged, or has several files: {error.message}", 400) from error
            files = [value for value in form.values() if isinstance(value, UploadFile)]
            if not files:
                raise RefusedError("The upload has no file.", 400)
            with contextlib.closing(files[0].file) as file:
                content = file.read()
        if len(content) > MAX_BYTES:
            raise too_large()
        return files[0].filename or "", content

    async def into_file(self, receive: Any, length: int, address: str, path: Path) -> None:
        """Writes a body of `length` bytes to a file."""
        try:
            async with self._chunks(receive, length, address) as chunks:
                with path.open("xb") as file:
                    async for chunk in chunks:
                        file.write(chunk)
        except OSError as error:
            raise RefusedError("The page has no room for this video; try again later.", 507) from error

    async def discard(self, receive: Any, headers: Headers) -> None:
        """Receives a body that is refused, for a moment, so that the client gets to read why."""
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > 4 * MAX_BYTES or "transfer-encoding" in headers:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                    pass

    @contextlib.asynccontextmanager
    async def _chunks(self, receive: Any, length: int, address: str) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The chunks of a body; they count until the context ends."""
        counted = 0

        async def chunks() -> AsyncGenerator[bytes, None]:
            nonlocal counted
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    raise RefusedError("The request is incomplete.", 400)
                chunk, more = message.get("body", b""), message.get("more_body", False)
                counted += len(chunk)
                self._received[address] += len(chunk)
                if counted > length:
                    raise RefusedError("The request is longer than its Content-Length.", 400)
                if self._received[address] > self.max_bytes_each or self._received.total() > self.max_bytes:
                    raise RefusedError("The page is busy; try again in a moment.", 503)
                yield chunk

        try:
            async with asyncio.timeout(self.seconds):
                yield chunks()
        except TimeoutError as error:
            raise RefusedError(f"The request took longer than {self.seconds:.0f} s.", 408) from error
        finally:
            self._received[address] -= counted
            if not self._received[address]:
                del self._received[address]
