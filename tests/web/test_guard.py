"""Hostile requests to the guard: what reaches the application behind it, and what does not."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from emotion_ai.web.guard import Guard
from emotion_ai.web.limits import RateLimit
from emotion_ai.web.messages import RefusedError
from emotion_ai.web.origins import Hosts, allowed_hosts
from emotion_ai.web.receiving import Receiver
from emotion_ai.web.uploads import MAX_BYTES, Uploads

API = "/gradio_api"
JOIN = f"{API}/queue/join"
READ, LIVE = 4, 5
HANDLERS: Any = {
    READ: ("picture", "text", "number", "flag", "flag", "flag"),
    LIVE: ("frame", "state", "text", "number"),
    6: (),
}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Responds with the request that it gets."""
    request = Request(scope, receive)
    body = (await request.body()).decode()
    response = {"path": scope["path"], "query": scope["query_string"].decode(), "body": body}
    await JSONResponse({**response, "headers": dict(request.headers)})(scope, receive, send)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path)


@pytest.fixture
def guard(uploads: Uploads) -> Guard:
    return Guard(echo, uploads, HANDLERS, pictures=RateLimit(3), frames=RateLimit(5))


@pytest.fixture
def visitor(guard: Guard) -> Callable[[], TestClient]:
    """A browser with cookies of its own."""
    return lambda: TestClient(guard, base_url="http://127.0.0.1:7860")


@pytest.fixture
def own(visitor: Callable[[], TestClient]) -> TestClient:
    return visitor()


def file_data(path: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def event(picture: Any, number: int = READ, **more: Any) -> dict[str, Any]:
    options = ["newest", 0.5, False, False, False] if number == READ else [None, "newest", 0.5]
    return {"data": [picture, *options], "fn_index": number, "session_hash": "window1", "trigger_id": 3, **more}


def uploaded(client: TestClient, content: bytes = b"a picture", name: str = "face.png") -> str:
    (path,) = client.post(f"{API}/upload", files={"files": (name, content)}).json()
    return str(path)


def data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def passed(answer: Any) -> dict[str, Any]:
    """The JSON that the application gets."""
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = json.loads(answer.json()["body"])
    return body


def outside(folder: Path) -> list[Any]:
    """Paths and addresses that are no uploads, in every spelling."""
    secret = folder.parent / "secret.txt"
    secret.write_text("secret")
    return [
        *("/etc/passwd", "/dev/zero", "/dev/stdin", "/proc/self/environ", "/proc/self/fd/0", "etc/passwd", "~/.ssh/id"),
        *("file:///etc/passwd", "//host/share", "\\\\host\\share", "C:\\Windows\\win.ini", "/etc/passwd\0.png", "a\0b"),
        *(str(secret), f"{folder}/../secret.txt", f"{folder}/%2e%2e/secret.txt", str(folder), f"{folder}/", "."),
        *("http://example.com/a.png", "https://127.0.0.1:1/", "//example.com/a.png", "HTTP://example.com/a.png"),
        *("data:image/png;base64,AAAA", "\ud800", "a" * 10_000, 7, True, ["/etc/passwd"], {"path": "/etc/passwd"}),
    ]


def test_an_upload_becomes_a_ticket_that_is_used_once(own: TestClient, uploads: Uploads) -> None:
    path = uploaded(own, b"a picture", "../../Ünï/face.png")
    assert Path(path).name == "face.png"
    assert not Path(path).exists()
    message = passed(own.post(JOIN, json=event(file_data(path, url="http://127.0.0.1:7860/x", orig_name="face.png"))))
    assert set(message) == {"data", "fn_index", "session_hash", "trigger_id"}
    assert message["data"][1:] == ["newest", 0.5, False, False, False]
    (ticket,) = message["data"][0].values()
    assert uploads.take(ticket) == b"a picture"
    assert uploads.take(ticket) is None


def test_uploads_belong_to_the_visitor_that_sent_them(visitor: Callable[[], TestClient], guard: Guard) -> None:
    own, stranger, newcomer = visitor(), visitor(), visitor()
    guard.pictures.per_minute = 100
    path = uploaded(own)
    uploaded(stranger, b"a picture")  # the same content
    for other in (stranger, newcomer):
        assert other.get(f"{API}/file={path}").status_code == 403
        assert other.post(JOIN, json=event(file_data(path))).status_code == 403
    other = visitor()
    other.cookies.set("emotion_ai_7860", "x" * 32)
    assert other.get(f"{API}/file={path}").status_code == 403
    shown = own.get(f"{API}/file={path}")
    assert (shown.status_code, shown.content) == (200, b"a picture")
    assert shown.headers["content-disposition"] == "attachment", "it is no picture, so it is not shown"
    assert "set-cookie" not in shown.headers


def test_windows_belong_to_the_visitor_that_opened_them(visitor: Callable[[], TestClient]) -> None:
    own, stranger = visitor(), visitor()
    for client in (own, stranger):
        cookie = client.get("/").headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
    names = []
    for client in (own, own, stranger):
        name = passed(client.post(JOIN, json=event(None)))["session_hash"]
        assert client.get(f"{API}/queue/data?session_hash=window1").json()["query"] == f"session_hash={name}"
        assert client.get(f"{API}/heartbeat/window1").json()["path"] == f"{API}/heartbeat/{name}"
        cancel = {"session_hash": "window1", "fn_index": READ, "event_id": "e"}
        assert passed(client.post(f"{API}/cancel", json=cancel))["session_hash"] == name
        names.append(name)
    assert names[0] == names[1] != names[2]
    assert stranger.get(f"{API}/queue/data?session_hash={names[0]}").status_code == 404


def test_a_visitor_has_one_upload_at_most(own: TestClient) -> None:
    first, second = uploaded(own, b"one"), uploaded(own, b"two")
    assert own.get(f"{API}/file={first}").status_code == 403
    assert own.get(f"{API}/file={second}").content == b"two"


def test_cookies_of_other_pages_on_this_host_do_no_harm(own: TestClient) -> None:
    path = uploaded(own)
    cookie = f"emotion_ai_7860={own.cookies['emotion_ai_7860']}"
    own.cookies.clear()
    for other in ('settings={"a": 1}', "a b=c", "$x", "=", "path=/x; domain", 'q="', "a=\xff", "a=b; " * 3000):
        for header in (f"{other}; {cookie}", f"{cookie}; {other}"):
            answer = own.get(f"{API}/file={path}", headers={b"cookie": header.encode("latin-1")})
            assert answer.status_code == 200, header[:80]


def test_a_stranger_displaces_only_what_it_sent_itself(guard: Guard, uploads: Uploads) -> None:
    guard.pictures.per_minute = 1000
    own = TestClient(guard, base_url="http://127.0.0.1:7860", client=("10.0.0.1", 1))
    path = uploaded(own)
    (ticket,) = passed(own.post(JOIN, json=event(file_data(path))))["data"][0].values()
    for _ in range(15):
        stranger = TestClient(guard, base_url="http://127.0.0.1:7860", client=("10.0.0.2", 1))
        other = uploaded(stranger, bytes(MAX_BYTES))
        assert stranger.post(JOIN, json=event(file_data(other))).status_code == 200
    assert uploads.total <= 2 * 256 * 2**20
    assert own.get(f"{API}/file={path}").status_code == 200
    assert uploads.take(ticket) == b"a picture"


def test_a_stranger_fills_only_its_share_of_the_bodies() -> None:
    receiver = Receiver(max_bytes_each=10)

    def sent(*chunks: bytes) -> Any:
        waiting = list(chunks)

        async def receive() -> Any:
            if not waiting:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or len(chunks) == 1}

        return receive

    async def receive_all() -> None:
        stalled = asyncio.create_task(receiver.body(sent(b"12345678"), 16, "a"))
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="busy"):
            await receiver.body(sent(b"12345", b""), 5, "a")
        assert await receiver.body(sent(b"12345", b""), 5, "b") == b"12345"
        stalled.cancel()
        await asyncio.wait([stalled])
        assert await receiver.body(sent(b"12345", b""), 5, "a") == b"12345"

    asyncio.run(receive_all())


def test_a_preview_is_computed_once(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []

    def count(content: bytes) -> tuple[bytes, str]:
        computed.append(content)
        return content, "image/png"

    monkeypatch.setattr("emotion_ai.web.guard.preview", count)
    path = uploaded(own)
    assert [own.get(f"{API}/file={path}").content for _ in range(3)] == [b"a picture"] * 3
    assert computed == [b"a picture"]


def test_pictures_are_sent_in_pieces(guard: Guard, own: TestClient) -> None:
    path, sizes = uploaded(own, bytes(10**6)), []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sizes.append(len(message.get("body", b"")))

    headers = {"host": "127.0.0.1:7860", "cookie": f"emotion_ai_7860={own.cookies['emotion_ai_7860']}"}
    scope = {"type": "http", "method": "GET", "path": f"{API}/file={path}", "query_string": b"", "scheme": "http"}
    scope |= {"headers": [(n.encode(), v.encode()) for n, v in headers.items()], "server": ("127.0.0.1", 7860)}
    asyncio.run(guard({**scope, "client": ("127.0.0.1", 1)}, receive, send))
    assert sum(sizes) == 10**6
    assert max(sizes) <= 2**16, "a connection that is not read holds little"


def test_requests_for_handlers_are_limited(own: TestClient, guard: Guard) -> None:
    guard.events.per_minute = 2
    assert [own.post(JOIN, json=event(None)).status_code for _ in range(3)] == [200, 200, 429]


def test_uploads_expire(own: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = uploaded(own), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 21)
    assert own.get(f"{API}/file={path}").status_code == 403
    assert own.post(JOIN, json=event(file_data(path))).status_code == 403


NESTED: dict[str, Callable[[Any], Any]] = {
    "itself": lambda file: file,
    "list": lambda file: [file],
    "deep": lambda file: {"a": [{"b": file}]},
    "value": lambda file: {"value": file},
    "stream": lambda file: {**file, "is_stream": True} if isinstance(file, dict) else file,
}


@pytest.mark.parametrize("nest", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("number", [READ, LIVE])
def test_no_input_names_anything_but_an_upload(
    own: TestClient, uploads: Uploads, guard: Guard, number: int, nest: Callable[[Any], Any]
) -> None:
    guard.pictures.per_minute = guard.frames.per_minute = 10_000
    paths = outside(uploads.folder)
    for position in range(4):
        for path in paths if nest is NESTED["itself"] else paths[::4]:
            for file in (file_data(path), {"path": path}, {"url": path}, {"path": "", "url": path}):
                if str(file.get("url")).startswith("data:") and not file.get("path"):
                    continue  # a picture in the request itself
                body = event(None, number)
                body["data"][position] = nest(file)
                answer = own.post(JOIN, content=json.dumps(body), headers={"content-type": "application/json"})
                assert answer.status_code == 403, (position, file)
                assert "add the picture again" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"/etc/passwd"',
        b"\xff{",
        b"[" * 100_000,
        b'{"data":' + b"[" * 900,
        b'{"data": [' + b"[]," * 2000 + b"1]}",
        b'{"a": ' + b"9" * 5000 + b"}",
        json.dumps(event(None, 99)).encode(),
        json.dumps(event(None, 1)).encode(),
        json.dumps(event(None) | {"fn_index": "4"}).encode(),
        json.dumps(event(None) | {"fn_index": True}).encode(),
        json.dumps(event(None) | {"data": [None]}).encode(),
        json.dumps(event(None) | {"data": {}}).encode(),
        json.dumps(event(None) | {"session_hash": "../x"}).encode(),
        json.dumps(event(None) | {"session_hash": None}).encode(),
        json.dumps(event('{"path": "/etc/passwd"}')).encode(),
        json.dumps(event(None) | {"data": [None, "x" * 300, True, 0, False, False, False]}).encode(),
        json.dumps(event(None) | {"data": [None, "x", float("nan"), False, False, False]}).encode(),
        json.dumps(event(None) | {"data": [None, "x", "0", False, False, False]}).encode(),
        json.dumps(event(None) | {"data": [None, None, 0, False, False, False]}).encode(),
        json.dumps(event(None) | {"data": [None, "x", 0, None, False, False]}).encode(),
        json.dumps(event(None) | {"data": [None, "\ud800", 0, False, False, False]}).encode(),
        json.dumps(event(None) | {"data": [None, "a\nb", 0, False, False, False]}).encode(),
    ],
)
def test_what_the_page_does_not_send_is_refused(own: TestClient, body: bytes) -> None:
    started = time.monotonic()
    assert own.post(JOIN, content=body, headers={"content-type": "application/json"}).status_code == 400
    assert time.monotonic() - started < 1


def test_what_was_not_checked_is_not_passed_on(own: TestClient) -> None:
    forged = file_data("/etc/passwd")
    message = passed(own.post(JOIN, json=event(None, event_data=forged, extra=[forged], batched=True, event_id="/etc")))
    assert message.keys() == {"data", "fn_index", "session_hash", "trigger_id"}
    twice = '{"data": [' + json.dumps(forged) + ', "a", 0, false, false, false], ' + json.dumps(event(None))[1:]
    json_type = {"content-type": "application/json"}
    assert passed(own.post(JOIN, content=twice, headers=json_type))["data"][0] is None
    twice = json.dumps(event(None))[:-1] + ', "data": [' + json.dumps(forged) + ', "a", 0, false, false, false]}'
    assert own.post(JOIN, content=twice, headers=json_type).status_code == 403
    frame = passed(own.post(f"{API}/stream/{'a' * 32}", json=event(None, LIVE)))
    assert frame["data"] == [None, None, "newest", 0.5]
    forwarded = {"x-forwarded-host": "evil", "forwarded": "for=1.2.3.4", "x-real-ip": "1.2.3.4", "x-gradio-server": "e"}
    answer = own.get("/?deep_link=../../etc/passwd&view=api", headers=forwarded).json()
    assert answer["query"] == ""
    assert not {*forwarded, "cookie"} & answer["headers"].keys()


def test_pictures_in_requests_count_as_uploads_do(own: TestClient, uploads: Uploads) -> None:
    picture = {"url": data_url(b"a picture"), "path": None, "meta": {"_type": "gradio.FileData"}}
    tickets = [passed(own.post(JOIN, json=event(picture)))["data"][0]["path"] for _ in range(2)]
    assert uploads.take(tickets[0]) is None, "a window has one picture that waits"
    assert uploads.take(tickets[1]) == b"a picture"
    assert uploads.take(tickets[0]) is None, "also after the newer one's turn"
    with pytest.raises(LookupError):
        uploads.take("a window that sent none")
    uploaded(own)
    assert own.post(JOIN, json=event(picture)).status_code == 429
    assert own.post(f"{API}/upload", files={"files": ("a.png", b"x")}).status_code == 429
    for _ in range(5):
        assert own.post(JOIN, json=event(picture, LIVE)).status_code == 200
    for path in (JOIN, f"{API}/stream/{'a' * 32}"):
        answer = own.post(path, json=event(picture, LIVE))
        assert answer.status_code == 429
        assert answer.json()["detail"] == "Too many pictures in a minute; wait a moment."


def test_pictures_in_requests_are_as_small_as_uploads(own: TestClient, guard: Guard) -> None:
    guard.pictures.per_minute = guard.frames.per_minute = 100
    large, frame = bytes(MAX_BYTES), bytes(2 * 2**20)
    assert own.post(JOIN, json=event({"url": data_url(large)})).status_code == 200
    assert own.post(JOIN, json=event({"url": data_url(large + b"more")})).status_code == 413
    assert own.post(JOIN, json=event({"url": data_url(frame)}, LIVE)).status_code == 200
    assert own.post(JOIN, json=event({"url": data_url(frame + b"more")}, LIVE)).status_code == 413
    assert own.post(JOIN, content=bytes(2 * MAX_BYTES)).status_code == 413
    path = uploaded(own, large)
    assert len(own.get(f"{API}/file={path}").content) == MAX_BYTES
    for size in (MAX_BYTES + 1, 2 * MAX_BYTES):
        answer = own.post(f"{API}/upload", files={"files": ("a.png", bytes(size))})
        assert answer.status_code == 413
        assert answer.text == "This picture is too large; one may have at most 20 MB."
    for url in ("data:image/png,abc", "data:;base64,***", "data:image/png;base64", "data:text/html;base64,A"):
        assert own.post(JOIN, json=event({"url": url})).status_code == 400


def test_all_pictures_together_are_bounded(guard: Guard, uploads: Uploads, visitor: Callable[[], TestClient]) -> None:
    guard.pictures.per_minute = 1000
    for _ in range(15):
        client = visitor()
        path = uploaded(client, bytes(MAX_BYTES))
        assert client.post(JOIN, json=event(file_data(path))).status_code == 200
    assert uploads.total <= 2 * 256 * 2**20


def test_damaged_uploads_are_refused(own: TestClient, guard: Guard) -> None:
    guard.pictures.per_minute = 100
    two = [("files", ("a.png", b"x")), ("files", ("b.png", b"x"))]
    assert own.post(f"{API}/upload", files=two).status_code == 400
    assert own.post(f"{API}/upload", data={"files": "no file"}).status_code == 415
    for body, kind in ((b"", "multipart/form-data"), (b"x", "multipart/form-data; boundary=x"), (b"x", "image/png")):
        answer = own.post(f"{API}/upload", content=body, headers={"content-type": kind})
        assert answer.status_code in (400, 415), (body, kind)


def test_the_limit_of_an_address_cannot_be_dodged(visitor: Callable[[], TestClient]) -> None:
    for n in range(4):
        headers = {"x-forwarded-for": f"10.0.0.{n}", "x-real-ip": f"10.0.0.{n}", "forwarded": f"for=10.0.0.{n}"}
        answer = visitor().post(f"{API}/upload", files={"files": ("a.png", b"x")}, headers=headers)
        assert answer.status_code == (200 if n < 3 else 429)
    limit = RateLimit(2)
    assert [limit.exceeded(f"2001:db8:0:1::{n:x}") for n in range(3)] == [False, False, True]
    assert [limit.exceeded(address) for address in ("1.2.3.4", "::ffff:1.2.3.4", "1.2.3.4")] == [False, False, True]
    assert not limit.exceeded("2001:db8:0:2::1")


@pytest.mark.parametrize(
    "path", ["file=/etc/passwd", "file=etc/passwd", "file=", "file=/", "file=a%00b", "file=%2e%2e/x"]
)
def test_only_uploads_are_served(own: TestClient, path: str) -> None:
    assert own.get(f"{API}/{path}").status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        *("proxy=http://127.0.0.1:1/", "file//etc/passwd", "custom_component/a/b/c/d.js", "deep_link", "dev/reload"),
        *("monitoring", "run-history/buckets", "runs", "info", "openapi.json", "call/read/1", "component_server"),
        *("stream/a/b/c/playlist.m3u8", "queue/status", "token", "vibe-code", "profiling/traces", "upload"),
        *("/monitoring/summary", "/login", "/docs", "/openapi.json", "/svelte/x.js", "/static/../../x", "/static/.env"),
        *("/assets/%2e%2e/%2e%2e/x", "/assets/..%2fx", "/assets//etc/passwd", "/file=/etc/passwd"),
        *("/static/a\\..\\b", "/pwa_icon/1", "/config/", "/queue/data", "/gradio_api/gradio_api/file=/x"),
    ],
)
def test_what_the_page_does_not_request_is_refused(own: TestClient, path: str) -> None:
    url = path if path.startswith("/") else f"{API}/{path}"
    assert own.get(url).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *("run/predict", "api/predict", "call/read", "call/v2/read", "process_recording", "vibe-edit", "queue/data"),
        *("component_server", "run-history/connect", "upload/", "queue/join/", "stream/x"),
    ],
)
def test_other_posts_than_those_of_the_page_are_refused(own: TestClient, path: str) -> None:
    assert own.post(f"{API}/{path}", json=event(file_data("/etc/passwd"))).status_code == 404


def test_methods_and_bodies(own: TestClient) -> None:
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "GET_"):
        assert own.request(method, JOIN).status_code == 405
    assert own.post(JOIN, content=iter([b"x"])).status_code == 411
    assert own.post(f"{API}/upload", content=iter([b"x"])).status_code == 411
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""):
        assert own.post(JOIN, content=json.dumps(event(None)), headers={"content-type": kind}).status_code == 415
    with pytest.raises(WebSocketDisconnect) as refused, own.websocket_connect("/"):
        pass
    assert refused.value.code == 1008


def test_responses_are_strict(own: TestClient) -> None:
    answer = own.get("/", headers={"origin": "http://127.0.0.1:7860"})
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers
    assert "max-age" in own.get("/assets/x.js").headers["cache-control"]


def test_requests_from_other_origins_are_refused(own: TestClient) -> None:
    page = {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    assert own.post(JOIN, json=event(None), headers=page).status_code == 200
    assert own.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200, "a link"
    for origin in ("http://127.0.0.1:8000", "http://127.0.0.1", "http://localhost:3000", "https://example.com", "null"):
        assert own.post(JOIN, json=event(None), headers={"origin": origin}).status_code == 403
        assert own.get("/config", headers={"origin": origin}).status_code == 403
    for site in ("same-site", "cross-site"):
        assert own.get(f"{API}/queue/data?session_hash=a", headers={"sec-fetch-site": site}).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:7860", 200), ("localhost:7860", 200), ("[::1]:7860", 200), ("faces.example.org", 200)),
        *(("FACES.example.org:443", 200), ("evil.example.org", 400), ("127.0.0.1.evil.org", 400), ("", 400)),
        *(("evil@127.0.0.1", 400), ("127.0.0.1@evil", 400), ("10.0.0.1", 400), ("faces.example.org.evil", 400)),
    ],
)
def test_the_page_is_served_under_its_own_names(guard: Guard, host: str, status: int) -> None:
    guard.hosts = Hosts("127.0.0.1", allowed_hosts(["faces.example.org", "Team.Example.org:8443"]))
    client = TestClient(guard, base_url="http://127.0.0.1:7860")
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == status
    assert status == 200 or "--allowed-host" in answer.json()["detail"]


def test_a_proxy_may_serve_the_page_under_its_own_name(own: TestClient, guard: Guard) -> None:
    guard.hosts = Hosts("127.0.0.1", allowed_hosts(["faces.example.org", "team.example.org:8443"]))
    for origin in ("https://faces.example.org", "https://team.example.org:8443"):
        for host in (origin.partition("//")[2], "127.0.0.1:7860"):  # of proxies that pass the name on, and that do not
            assert own.post(JOIN, json=event(None), headers={"origin": origin, "host": host}).status_code == 200
    for name, host in (("faces.example.org", "faces.example.org"), ("example.org", "127.0.0.1:7860")):
        assert own.get("/", headers={"x-forwarded-host": name}).json()["headers"]["host"] == host
    for origin in ("https://faces.example.org:444", "https://team.example.org", "https://example.org"):
        assert own.post(JOIN, json=event(None), headers={"origin": origin}).status_code == 403


def test_on_the_network_the_page_is_served_by_address(guard: Guard) -> None:
    guard.hosts = Hosts("0.0.0.0")
    client = TestClient(guard, base_url="http://10.0.0.7:7860")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "rebound.example.org:7860"}).status_code == 400
