"""A visitor of the page without a browser: uploads, and runs handlers as the page's scripts do."""

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter

API = "/gradio_api"
READ_OPTIONS: list[Any] = ["newest", True, 0, False, False, False]


class _From(HTTPAdapter):
    """Connects from an address of this machine, so that visitors have addresses of their own."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, source_address=(self._address, 0))


@dataclass
class Visitor:
    """One window of one visitor.

    Attributes:
        url: of the page.
        address: to connect from.
        window: name of the window.
    """

    url: str
    address: str = "127.0.0.1"
    window: str = field(default_factory=lambda: secrets.token_hex(6))
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False
        self.session.mount("http://", _From(self.address))

    def upload(self, content: bytes, name: str = "face.png", **headers: str) -> requests.Response:
        files = {"files": (name, content)}
        return self.session.post(f"{self.url}{API}/upload", files=files, headers=headers, timeout=60)

    def uploaded(self, content: bytes, name: str = "face.png") -> str:
        (path,) = self.upload(content, name).json()
        return str(path)

    def join(self, number: int, data: list[Any], **more: Any) -> requests.Response:
        body = {"data": data, "fn_index": number, "session_hash": self.window, "trigger_id": None, **more}
        return self.session.post(f"{self.url}{API}/queue/join", json=body, timeout=60)

    def run(self, number: int, data: list[Any]) -> dict[str, Any]:
        """The last message of a handler: `success` and `output`."""
        answer = self.join(number, data)
        assert answer.status_code == 200, answer.text
        messages = f"{self.url}{API}/queue/data?session_hash={self.window}"
        with self.session.get(messages, stream=True, timeout=120) as stream:
            for line in stream.iter_lines():
                if line and (message := json.loads(line.removeprefix(b"data: ")))["msg"] == "process_completed":
                    return dict(message)
        raise AssertionError("the page ended the stream")

    def handlers(self) -> list[dict[str, Any]]:
        """The page's handlers, from its configuration."""
        answer = self.session.get(f"{self.url}/config", timeout=30)
        return list(answer.json()["dependencies"])

    def reader(self) -> int:
        """Number of the handler that reads a new picture."""
        count = 1 + len(READ_OPTIONS)
        return int(next(handler["id"] for handler in self.handlers() if len(handler["inputs"]) == count))

    def read(self, path: str, number: int) -> str:
        """The HTML that shows an upload's faces."""
        message = self.run(number, [picture(path), *READ_OPTIONS])
        assert message["success"], message
        return str(message["output"]["data"][0])


def picture(path: Any, **more: Any) -> dict[str, Any]:
    """A file as Gradio's scripts send it."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}
