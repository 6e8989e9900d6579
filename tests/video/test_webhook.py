"""A webhook gets the events, and nothing that it does holds up the reading."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tenacity import wait_none

from emotion_ai.errors import ConfigError
from emotion_ai.video import webhook
from emotion_ai.video.webhook import Webhook, WebhookCounts


class Receiver:
    """A server that records what it gets, and answers as `respond` has it, given the number of the request."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.respond: Callable[[int], int | tuple[int, str]] = lambda number: 204
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                receiver.headers.append(dict(self.headers))
                answer = receiver.respond(len(receiver.bodies))
                status, location = answer if isinstance(answer, tuple) else (answer, "")
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "_BACKOFF", wait_none())


def test_messages_arrive_in_order(receiver: Receiver) -> None:
    with Webhook(f"http://ann:pass-word@{receiver.host}/hook?token=x") as hook:
        for number in range(20):
            hook.send({"number": number})
    assert [body["number"] for body in receiver.bodies] == list(range(20))
    assert hook.counts == WebhookCounts(sent=20, given_up=0)
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert receiver.headers[0]["Authorization"].startswith("Basic ")


def test_a_failing_server_is_tried_again(receiver: Receiver) -> None:
    receiver.respond = lambda number: 503 if number < 3 else 200
    with Webhook(f"http://{receiver.host}/") as hook:
        hook.send({"a": 1})
    assert receiver.bodies == [{"a": 1}] * 3
    assert hook.counts == WebhookCounts(sent=1, given_up=0)


@pytest.mark.parametrize(("status", "attempts"), [(400, 1), (404, 1), (500, webhook.ATTEMPTS), (429, webhook.ATTEMPTS)])
def test_what_cannot_be_sent_is_counted_and_said_once(receiver: Receiver, status: int, attempts: int) -> None:
    receiver.respond = lambda number: status
    lines: list[str] = []
    with Webhook(f"http://ann:pass-word@{receiver.host}/secret-path?token=secret", lines.append) as hook:
        hook.send({"a": 1})
        hook.send({"a": 2})
    assert hook.counts == WebhookCounts(sent=0, given_up=2)
    assert len(receiver.bodies) == 2 * attempts
    (line,) = lines
    assert receiver.host in line
    assert f"status {status}" in line
    assert not any(secret in line for secret in ("pass-word", "secret", "ann"))


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    elsewhere = Receiver()
    receiver.respond = lambda number: (307, f"http://{elsewhere.host}/")
    lines: list[str] = []
    with Webhook(f"http://{receiver.host}/", lines.append) as hook:
        hook.send({"a": 1})
    elsewhere.stop()
    assert elsewhere.bodies == []
    assert hook.counts == WebhookCounts(sent=0, given_up=1)
    assert "redirects are not followed" in lines[0]


def test_a_server_that_does_not_answer_holds_up_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "CLOSING_SECONDS", 0.3)
    monkeypatch.setattr(webhook, "CAPACITY", 10)

    def respond(number: int) -> int:
        receiver.released.wait(20)
        return 200

    receiver.respond = respond
    hook = Webhook(f"http://{receiver.host}/")
    started = time.monotonic()
    for number in range(50):
        hook.send({"number": number})
    assert time.monotonic() - started < 0.2
    assert hook.counts.given_up >= 39
    hook.close()
    assert 0.25 < time.monotonic() - started < 2
    assert hook.counts == WebhookCounts(sent=0, given_up=50)


def test_no_server_at_all() -> None:
    lines: list[str] = []
    with Webhook("http://ann:pass-word@127.0.0.1:9/", lines.append) as hook:
        hook.send({"a": 1})
    assert hook.counts == WebhookCounts(sent=0, given_up=1)
    assert lines == ["webhook http://127.0.0.1:9: events are given up (no connection); they are in events.json"]


@pytest.mark.parametrize(
    "url", ["", "example.org/pass-word", "ftp://pass-word", "http://", "http://h:pass-word/", "http://a b"]
)
def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match="--webhook: not an address") as refused:
        Webhook(url)
    assert "pass-word" not in str(refused.value)
