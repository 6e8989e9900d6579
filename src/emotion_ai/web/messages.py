"""What the page's scripts send as JSON: read strictly, and written anew for Gradio without paths, URLs or files."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from emotion_ai.web.uploads import MAX_BYTES, Uploads

Kind = Literal["picture", "frame", "video", "state", "text", "number", "flag"]
"""Of an input of a handler; a frame is a picture of the live webcam, a video the token of an upload."""

MAX_FRAME_BYTES = 2 * 2**20
"""Of one frame of the live webcam."""

_MAX_TEXT = 200  # characters of an event's name
_CHOICE = re.compile("[A-Za-z0-9_.-]{1,64}")  # texts are versions and labels
_MAX_VALUES = 1000  # in one request, so that a small body cannot become a large structure
_NOT_OURS = "This does not fit the page; reload it."


class RefusedError(Exception):
    """A request is refused: the message and the status of the response."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Reader:
    """Reads the requests of one visitor.

    Attributes:
        handlers: the inputs of each handler, by its number.
        uploads: of all visitors.
        visitor: who sent the request.
        address: of the visitor.
        count: called for each picture that a request carries in itself; raises RefusedError if it is one too many.
    """

    handlers: Mapping[int, tuple[Kind, ...]]
    uploads: Uploads
    visitor: str
    address: str
    count: Callable[[Kind], None]

    def window(self, session_hash: Any) -> str:
        """Gradio's name of a window: it depends on the visitor, so that no visitor can name another's window.

        Raises:
            RefusedError: the browser's own name is malformed.
        """
        if not isinstance(session_hash, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", session_hash):
            raise RefusedError(_NOT_OURS, 400)
        return hashlib.sha256(f"{self.visitor}/{session_hash}".encode()).hexdigest()[:32]

    def event(self, body: bytes) -> bytes:
        """A request to run a handler: each input must fit, and pictures become tickets of the upload store.

        Raises:
            RefusedError: it does not fit, or it names a file or an address.
        """
        sent = _object(body)
        number, data, trigger = sent.get("fn_index"), sent.get("data"), sent.get("trigger_id")
        kinds = self.handlers.get(number) if type(number) is int else None
        if kinds is None or not isinstance(data, list) or len(data) != len(kinds):
            _refuse_files(data)
            raise RefusedError(_NOT_OURS, 400)
        pictures = ("picture", "frame")
        _refuse_files([v for k, v in zip(kinds, data, strict=True) if not (k in pictures and isinstance(v, dict))])
        window = self.window(sent.get("session_hash"))
        inputs = [self._input(kind, value) for kind, value in zip(kinds, data, strict=True)]
        message = {
            "fn_index": number,
            "session_hash": window,
            "trigger_id": trigger if type(trigger) is int else None,
            "data": [self._queued(f"{window}-{number}", v) if isinstance(v, bytes) else v for v in inputs],
        }
        return json.dumps(message).encode()

    def cancel(self, body: bytes) -> bytes:
        """A request to cancel a handler."""
        sent = _object(body)
        number, event = sent.get("fn_index"), sent.get("event_id")
        if type(number) is not int or not isinstance(event, str) or len(event) > _MAX_TEXT:
            raise RefusedError(_NOT_OURS, 400)
        return json.dumps(
            {"fn_index": number, "event_id": event, "session_hash": self.window(sent.get("session_hash"))}
        ).encode()

    def _input(self, kind: Kind, value: Any) -> Any:
        """One input: a scalar as it was sent, a picture as its bytes."""
        if isinstance(value, dict) and kind in ("picture", "frame"):
            return self._picture(value, kind)
        if kind == "video" and value and isinstance(value, str):
            return self._video(value)
        fits = {
            "picture": value is None,
            "frame": value is None,
            "video": not value,
            "state": not isinstance(value, dict | list),
            "text": isinstance(value, str) and _CHOICE.fullmatch(value),
            "number": value is None or (type(value) in (int, float) and abs(value) < 1e6),  # not NaN
            "flag": isinstance(value, bool),
        }
        if not fits[kind]:
            raise RefusedError(_NOT_OURS, 400)
        return None if kind == "state" else value  # the server keeps states

    def _queued(self, place: str, content: bytes) -> dict[str, str]:
        return {"path": self.uploads.queue(place, content, self.address)}

    def _video(self, token: str) -> str:
        if self.uploads.videos.find(self.visitor, token) is None:
            raise RefusedError("This is not a video of yours, or it has been deleted; add it again.", 403)
        return token

    def _picture(self, value: dict[str, Any], kind: Kind) -> bytes:
        path, url = value.get("path"), value.get("url")
        if not path and isinstance(url, str) and url[:5].lower() == "data:":
            self.count(kind)
            return _decoded(url, MAX_FRAME_BYTES if kind == "frame" else MAX_BYTES)
        upload = self.uploads.find(self.visitor, path) if isinstance(path, str) else None
        if upload is None:
            raise _no_upload()
        return upload.content


def _decoded(url: str, limit: int) -> bytes:
    """The content of a data URL."""
    head, comma, content = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise RefusedError(_NOT_OURS, 400)
    if len(content) > limit * 4 / 3 + 4:
        raise too_large(limit)
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError(_NOT_OURS, 400) from error


def too_large(limit: int = MAX_BYTES, what: str = "picture") -> RefusedError:
    """The response to a picture or video above the limit."""
    return RefusedError(f"This {what} is too large; one may have at most {limit // 2**20} MB.", 413)


def _no_upload() -> RefusedError:
    return RefusedError("This is not an upload of yours, or it has been deleted; add the picture again.", 403)


def _refuse_files(value: Any) -> None:
    """Refuses a value that contains a file, wherever it stands."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if item.get("path") or item.get("url"):
                raise _no_upload()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object; of repeated keys the last counts, here and, since it is written anew, for Gradio."""
    if sum(body.count(sign) for sign in (b",", b"[", b"{")) > _MAX_VALUES:
        raise RefusedError(_NOT_OURS, 400)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError("The request is not JSON.", 400) from error
    if not isinstance(value, dict):
        raise RefusedError(_NOT_OURS, 400)
    return value
