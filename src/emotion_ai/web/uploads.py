"""Pictures and videos between the browser and the page's handlers: who sent them, and which request may use them."""

import hmac
import re
import secrets
from asyncio import Future
from dataclasses import dataclass, field
from pathlib import Path

from emotion_ai.web.store import Store
from emotion_ai.web.videos import Videos

MAX_BYTES = 20 * 2**20
"""Of one picture."""

UPLOAD_SECONDS = 20.0
"""How long an upload can be used."""

_QUEUE_SECONDS = 120.0  # longest wait of a request for its turn
_STORED_BYTES = 256 * 2**20  # of all uploads together, and of all pictures in the queue


@dataclass
class Upload:
    """A picture that a visitor sent.

    Attributes:
        path: its name, but there is no file.
        content: encoded.
        shown: its preview, or the task that computes it, once it was requested.
    """

    path: str
    content: bytes
    shown: Future[tuple[bytes, str]] | None = None


@dataclass
class Uploads:
    """The last upload of each visitor, and the picture of each request that waits for its turn.

    Attributes:
        folder: private; Gradio expects the paths of uploads below it, but only videos are written there.
        videos: the last video of each visitor.
    """

    folder: Path
    videos: Videos = field(init=False)
    _uploads: Store[Upload] = field(default_factory=lambda: Store(_STORED_BYTES, UPLOAD_SECONDS))
    _waiting: Store[tuple[str, bytes | None]] = field(default_factory=lambda: Store(_STORED_BYTES, _QUEUE_SECONDS))

    def __post_init__(self) -> None:
        self.videos = Videos(self.folder)

    def add(self, visitor: str, name: str, content: bytes, address: str = "") -> str:
        """Keeps an upload in place of the visitor's last one; returns its path, which nobody can guess."""
        name = re.sub(r"[^A-Za-z0-9._-]", "_", re.split(r"[\\/]", name)[-1])[-64:].lstrip(".") or "picture"
        path = str(self.folder / secrets.token_urlsafe(24) / name)
        self._uploads.put(visitor, Upload(path, content), len(content), address)
        return path

    def find(self, visitor: str, path: str) -> Upload | None:
        """A visitor's own upload; None for every other path."""
        upload = self._uploads.get(visitor)
        if upload is None or not hmac.compare_digest(upload.path.encode(), path.encode(errors="replace")):
            return None
        return upload

    def queue(self, place: str, content: bytes, address: str = "") -> str:
        """Keeps a picture until its handler runs, in place of the last one; returns the ticket for `take`."""
        ticket = f"{place}:{secrets.token_urlsafe(24)}"
        self._waiting.put(place, (ticket, content), len(content), address)
        return ticket

    def take(self, ticket: str) -> bytes | None:
        """The picture of a ticket, once; None if a newer one took its place.

        Raises:
            LookupError: its turn came too late.
        """
        place = ticket.rpartition(":")[0]
        waiting = self._waiting.get(place)
        if waiting is None:
            raise LookupError(ticket)
        if waiting[0] != ticket:
            return None
        self._waiting.put(place, (ticket, None), 0)  # an older ticket may still come
        return waiting[1]

    def drop_expired(self) -> None:
        """Forgets what was kept for long enough."""
        self._uploads.drop_expired()
        self._waiting.drop_expired()
        self.videos.drop_expired()

    @property
    def total(self) -> int:
        """Bytes of all uploads and waiting pictures."""
        return self._uploads.total + self._waiting.total
