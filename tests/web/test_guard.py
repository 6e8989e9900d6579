"""Hostile requests to the page: nothing but uploads is ever read."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from emotion_ai.web.guard import Guard
from tests.web.conftest import Site, start, stop

JOIN = "/gradio_api/queue/join"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    (folder / "abc").mkdir(parents=True)
    (folder / "abc" / "face.png").write_bytes(b"a picture")
    return folder


@pytest.fixture
def guarded(folder: Path) -> TestClient:
    return TestClient(Guard(PlainTextResponse("here"), folder, uploads=3))


def forged(path: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def outside(folder: Path) -> list[Any]:
    """Paths that are not uploads, in every spelling."""
    secret = folder.parent / "secret.txt"
    secret.write_text("secret")
    secret.chmod(0o600)
    (folder / "link.png").symlink_to(secret)
    (folder / "linked").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe.png")
    return [
        *("/etc/passwd", "/dev/zero", "/proc/self/environ", "etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd"),
        *(str(secret), f"{folder}/../secret.txt", f"{folder}/abc/../../secret.txt", str(folder / "link.png")),
        *(str(folder / "linked" / "secret.txt"), str(folder / "pipe.png"), str(folder), str(folder / "gone.png")),
        *("http://example.com/a.png", "//example.com/a.png", "data:image/png;base64,AAAA", "a\0b", 7, ["/etc/passwd"]),
    ]


def test_the_guard_limits_and_forbids(guarded: TestClient) -> None:
    answer = guarded.get("/")
    assert answer.text == "here"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert "max-age" in guarded.get("/assets/x.js").headers["cache-control"]
    assert [guarded.post("/gradio_api/upload", content=b"x").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert guarded.post(JOIN, content=bytes(21 * 2**20)).status_code == 413
    assert guarded.post(JOIN, content=iter([b"x"])).status_code == 411


@pytest.mark.parametrize("place", [lambda file: [file], lambda file: [0.5, file], lambda file: [{"a": [{"b": file}]}]])
def test_only_uploads_may_be_named_in_a_request(guarded: TestClient, folder: Path, place: Any) -> None:
    upload = forged(str(folder / "abc" / "face.png"))
    assert guarded.post(JOIN, json={"data": place(upload)}).status_code == 200
    for path in outside(folder):
        for file in (forged(path), {"path": path}, {"path": path, "url": "/file", "orig_name": "face.png"}):
            assert guarded.post(JOIN, json={"data": place(file)}).status_code == 403, path


def test_only_uploads_are_served(guarded: TestClient, folder: Path) -> None:
    assert guarded.get(f"/gradio_api/file={folder}/abc/face.png").status_code == 200
    for path in outside(folder):
        assert guarded.get(f"/gradio_api/file={str(path).replace(chr(0), '%00')}").status_code in (403, 404), path
    for path in ("proxy=http://127.0.0.1:1/", "file//etc/passwd", "custom_component/a/b/c/../../../etc/passwd"):
        assert guarded.get(f"/gradio_api/{path}").status_code == 404


def test_other_posts_than_those_of_the_page_are_refused(guarded: TestClient) -> None:
    for path in ("run/predict", "api/predict", "call/read", "call/v2/read", "process_recording", "vibe-edit"):
        assert guarded.post(f"/gradio_api/{path}", json={"data": []}).status_code == 404
    assert guarded.post(JOIN, content=b"[" * 100_000).status_code == 400
    assert guarded.post(JOIN, content=b"\xff{").status_code == 400
    with pytest.raises(WebSocketDisconnect) as refused, guarded.websocket_connect("/"):
        pass
    assert refused.value.code == 1008


def test_requests_from_other_origins_are_refused(guarded: TestClient) -> None:
    own = {"origin": "http://testserver"}
    assert guarded.post(JOIN, json={}, headers=own).status_code == 200
    for origin in ("http://testserver:8000", "http://127.0.0.1:3000", "https://example.com", "null"):
        assert guarded.post(JOIN, json={}, headers={"origin": origin}).status_code == 403


@pytest.fixture(scope="module")
def page() -> Iterator[Site]:
    """The page without a reachable server."""
    site = start("--server", "http://127.0.0.1:9")
    yield site
    stop(site)


def handlers(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requests.get(f"{site.url}/config", timeout=30).json()["dependencies"]
    return found


def test_no_input_of_the_page_reads_a_file_that_was_not_uploaded(page: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"the secret")
    secret.chmod(0o600)
    tried = 0
    for handler in handlers(page):
        for position in range(len(handler["inputs"])):
            for path in (str(secret), "/etc/passwd", "/dev/zero"):
                data: list[Any] = [None] * len(handler["inputs"])
                data[position] = forged(path)
                body = {"data": data, "fn_index": handler["id"], "session_hash": "stranger"}
                answer = requests.post(page.url + JOIN, json=body, timeout=30)
                assert answer.status_code == 403, (handler["id"], position)
                tried += 1
    assert tried > 60
    assert [file for file in page.folder.rglob("*") if file.is_file() and file != page.upload] == []


def test_an_upload_is_read(page: Site) -> None:
    sent = requests.post(f"{page.url}/gradio_api/upload", files={"files": ("b.png", b"no picture")}, timeout=30)
    (path,) = sent.json()
    assert Path(path).is_relative_to(page.folder)
    assert requests.get(f"{page.url}/gradio_api/file={path}", timeout=30).content == b"no picture"
    handler = next(h for h in handlers(page) if len(h["inputs"]) == 6)
    data = [forged(path), "newest", 0, False, False, False]
    body = {"data": data, "fn_index": handler["id"], "session_hash": "own"}
    assert requests.post(page.url + JOIN, json=body, timeout=30).status_code == 200
    with requests.get(f"{page.url}/gradio_api/queue/data?session_hash=own", stream=True, timeout=60) as stream:
        messages = [json.loads(line.removeprefix(b"data: ")) for line in stream.iter_lines() if line]
    (done,) = [message for message in messages if message["msg"] == "process_completed"]
    assert "This picture cannot be read" in done["output"]["data"][0]
