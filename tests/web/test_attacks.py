"""Raw requests to a running page: nothing but a visitor's own uploads is read, named or copied."""

import http.client
import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from emotion_ai.vision.photo import PORTRAITS
from emotion_ai.web import backend
from emotion_ai.web.connections import MAX_FROM_ADDRESS
from tests.web.conftest import Site, start, stop
from tests.web.visitor import API, READ_OPTIONS, Visitor, picture

PASSWORD = "pass%2Fword"


@pytest.fixture(scope="module")
def page() -> Iterator[Site]:
    """The page with an address of a server that does not respond, and with a password in it."""
    site = start("--server", f"http://reader:{PASSWORD}@127.0.0.1:9", "--allowed-host", "faces.example.org")
    yield site
    log = stop(site)
    assert "word" not in log
    assert "Traceback" not in log


@pytest.fixture
def own(page: Site) -> Visitor:
    return Visitor(page.url, address="127.0.0.2")


@pytest.fixture
def fetched() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server, and the requests that it got."""
    listener, found = socket.create_server(("127.0.0.1", 0)), list[bytes]()

    def accept() -> None:
        while True:
            try:
                with listener.accept()[0] as connection:
                    found.append(connection.recv(100))
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", found
    listener.close()


def files_of(site: Site) -> list[Path]:
    return [file for file in site.folder.rglob("*") if not file.is_dir()]


def test_no_input_reads_a_file_that_was_not_uploaded(
    page: Site, own: Visitor, tmp_path: Path, fetched: tuple[str, list[bytes]]
) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"the secret")
    secret.chmod(0o600)
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(3 * 2**30)
    address, requested = fetched
    tried = [
        *(
            picture(str(secret)),
            picture("/dev/zero"),
            picture(str(tmp_path / "pipe.png")),
            picture("/proc/self/environ"),
        ),
        *(picture(str(tmp_path / "large.png")), picture(f"{address}/a.png"), picture(None, url=f"{address}/a.png")),
        *(picture(f"{page.folder}/../x"), [picture(str(secret))], {"a": picture(str(secret), is_stream=True)}),
    ]
    count, before = 0, time.monotonic()
    for handler in own.handlers():
        for position in range(len(handler["inputs"])):
            for value in tried if position == 0 else tried[:3]:
                data: list[Any] = [None] * len(handler["inputs"])
                data[position] = value
                assert own.join(handler["id"], data).status_code == 403, (handler["id"], position, value)
                count += 1
    assert count > 300
    assert requested == []
    assert files_of(page) == []
    assert time.monotonic() - before < 30


def test_no_visitor_gets_at_the_upload_or_the_window_of_another(page: Site, own: Visitor) -> None:
    stranger = Visitor(page.url, window=own.window, address="127.0.0.3")
    content = PORTRAITS[1].read_bytes()
    path, number = own.uploaded(content), own.reader()
    stranger.uploaded(content)
    for handler in own.handlers():
        for position in range(len(handler["inputs"])):
            data: list[Any] = [None] * len(handler["inputs"])
            data[position] = picture(path)
            assert stranger.join(handler["id"], data).status_code == 403
    assert stranger.session.get(f"{page.url}{API}/file={path}", timeout=30).status_code == 403
    assert own.session.get(f"{page.url}{API}/file={path}", timeout=30).content == content
    assert own.join(number, [picture(path), *READ_OPTIONS]).status_code == 200
    messages = f"{page.url}{API}/queue/data?session_hash={own.window}"
    assert stranger.session.get(messages, timeout=30).status_code == 404
    with own.session.get(messages, stream=True, timeout=30) as stream:
        assert b"The server cannot be reached" in b"".join(stream.iter_lines())


def test_no_values_of_a_stranger_end_in_a_traceback(page: Site) -> None:
    """The log is checked when the page has stopped."""
    stranger = Visitor(page.url, address="127.0.0.5")
    inline = {"url": "data:image/png;base64,AAAA", "path": None}
    wrong: list[list[Any]] = [[None] * 6, ["\ud800", True, 0, False, False, False], ["newest", None, 0, *[False] * 3]]
    for options in wrong:
        assert stranger.join(stranger.reader(), [inline, *options]).status_code == 400
    for threshold in (None, -5, 5e5, 1e-300):
        message = stranger.run(stranger.reader(), [inline, "newest", False, threshold, *[False] * 3])
        assert "It is not a readable picture" in message["output"]["data"][0]
    for handler in stranger.handlers():
        nothing = [None] * len(handler["inputs"])
        if not handler["backend_fn"] or len(nothing) > 2:  # it runs in the browser, or has an option
            assert stranger.join(handler["id"], nothing).status_code == 400
        else:
            assert stranger.run(handler["id"], nothing)["success"]


def test_no_address_takes_all_connections(page: Site) -> None:
    host, port = page.url.removeprefix("http://").split(":")
    place = {"timeout": 5, "source_address": ("127.0.0.6", 0)}
    silent = [socket.create_connection((host, int(port)), **place) for _ in range(MAX_FROM_ADDRESS)]  # type: ignore[arg-type]
    with socket.create_connection((host, int(port)), **place) as one_too_many:  # type: ignore[arg-type]
        assert one_too_many.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert Visitor(page.url, address="127.0.0.7").handlers()
    for connection in silent:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        *("/../../etc/passwd", "//etc/passwd", "/gradio_api/../etc/passwd", "/gradio_api/file=/etc/passwd"),
        *("/gradio_api/file=../../etc/passwd", "/gradio_api/file=%2fetc%2fpasswd", "/gradio_api//file=/etc/passwd"),
        *("/gradio_api/file=/proc/self/environ", "/gradio_api/file=file:///etc/passwd", "/gradio_api/file=/dev/zero"),
        *("/static/../../../../../etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/static//etc/passwd"),
        *("/assets/..%2f..%2f..%2fetc/passwd", "/assets/....//etc/passwd", "/assets/%252e%252e/x", "/assets/a/../b"),
        *("/gradio_api/custom_component/../../etc/passwd", "/gradio_api/proxy=http://127.0.0.1:9/", "/theme.css/../x"),
        *("/gradio_api/stream/../file=/etc/passwd", "/config/../gradio_api/file=/etc/passwd", "/./gradio_api/info"),
        *("/gradio_api/file=/etc/passwd?x=/upload", "/gradio_api/file%3d/etc/passwd", "http://127.0.0.1:9/etc/passwd"),
        *("/monitoring", "/gradio_api/deep_link?session_hash=a", "/gradio_api/info", "/gradio_api/call/read/x"),
    ],
)
def test_no_address_of_the_page_reads_a_file(page: Site, path: str) -> None:
    for method in ("GET", "HEAD"):
        connection = http.client.HTTPConnection(page.url.removeprefix("http://"), timeout=30)
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status in (400, 403, 404)
        assert b"root:" not in answer.read()
        connection.close()


@pytest.mark.parametrize(
    "head",
    [
        "POST {api}/queue/join HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
        "POST {api}/queue/join HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}",
        "POST {api}/queue/join HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}",
        "POST {api}/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999999\r\n\r\n",
        "POST {api}/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: rebound.example.org\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [:::]\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: http://[\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {host}\r\n\r\n",
        "GET {api}/queue/data?session_hash=a HTTP/1.1\r\nHost: {host}\r\nOrigin: http://127.0.0.1:1\r\n\r\n",
        "DELETE {api}/upload HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ],
)
def test_odd_requests_are_refused_at_once(page: Site, head: str) -> None:
    host, port = page.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.format(api=API, host=f"{host}:{port}").encode())
        status = connection.recv(1000).split(b" ")[1]
    assert status in (b"400", b"403", b"405", b"411", b"413")


def test_forwarded_headers_do_not_dodge_the_limit(page: Site) -> None:
    visitor = Visitor(page.url, address="127.0.0.4")
    answers = [
        visitor.upload(b"x", **{"X-Forwarded-For": f"10.0.0.{n}", "Forwarded": f"for=10.0.0.{n}", "X-Real-IP": str(n)})
        for n in range(31)
    ]
    assert [answer.status_code for answer in answers] == [200] * 30 + [429]
    inline = {"url": "data:image/png;base64,AAAA", "path": None}
    assert visitor.join(visitor.reader(), [inline, *READ_OPTIONS]).status_code == 429


def test_the_password_of_the_server_is_shown_to_nobody(page: Site, own: Visitor) -> None:
    texts = [own.session.get(page.url + path, timeout=30).text for path in ("/", "/config")]
    texts.append(own.read(own.uploaded(PORTRAITS[1].read_bytes()), own.reader()))
    assert "The server cannot be reached" in texts[-1]
    status = max(handler["id"] for handler in own.handlers() if len(handler["inputs"]) == 1 + len(READ_OPTIONS))
    texts.append(json.dumps(own.run(status, ["", *READ_OPTIONS])))
    texts.append(own.join(10_000, []).text)
    for text in texts:
        assert "word" not in text.replace("password", "").replace("keyword", "").replace("word-", "")
        assert "reader:" not in text
    assert "127.0.0.1:9" in texts[0]


def test_large_pictures_of_phones_are_read(own: Visitor) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2300, 2300, 3), np.uint8)
    Image.fromarray(noise).save(file := io.BytesIO(), "PNG", compress_level=0)
    assert len(file.getvalue()) > 15 * 2**20
    assert "No face found" in own.read(own.uploaded(file.getvalue()), own.reader())
    refused = own.upload(file.getvalue() + bytes(6 * 2**20))
    assert (refused.status_code, refused.text) == (413, "This picture is too large; one may have at most 20 MB.")


def test_formats_that_browsers_do_not_show_are_shown_as_jpeg(page: Site, own: Visitor) -> None:
    with Image.open(PORTRAITS[1]) as portrait:
        portrait.save(file := io.BytesIO(), "TIFF")
    for content, kind in ((file.getvalue(), "image/jpeg"), (b"<script>alert(1)</script>", "application/octet-stream")):
        answer = own.session.get(f"{page.url}{API}/file={own.uploaded(content)}", timeout=30)
        assert answer.headers["content-type"] == kind


def test_a_proxy_may_serve_the_page_under_its_own_name(page: Site) -> None:
    for name, status in (("faces.example.org", 200), ("other.example.org", 400)):
        answer = requests.get(page.url, headers={"Host": name}, timeout=30)
        assert answer.status_code == status
    assert "--allowed-host" in answer.json()["detail"]


def test_pages_that_are_killed_leave_nothing_and_pages_end_at_once() -> None:
    """One page is killed; the next removes its folder, trusts a proxy, and ends although requests hang."""
    with socket.socket() as silent, ThreadPoolExecutor() as pool:  # once it listens, it accepts and never responds
        silent.bind(("127.0.0.1", 0))
        starting = pool.submit(start, "--server", "http://127.0.0.1:9")
        server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        other = start("--server", server, "--trusted-proxy", "127.0.0.0/8")
        killed = starting.result()
        (killed.folder / "left.png").write_bytes(b"behind")
        with backend.private_folder():
            pass
        assert (killed.folder / "left.png").exists(), "the folder of a page that runs stays"
        killed.process.kill()
        killed.process.communicate()
        with backend.private_folder():  # as the next page does
            assert not killed.folder.exists()
            assert other.folder.exists()
        visitor = Visitor(other.url)
        answers = [visitor.upload(b"x", **{"X-Forwarded-For": f"10.0.0.{n}"}).status_code for n in range(35)]
        assert answers == [200] * 35
        silent.listen(50)
        number = visitor.reader()
        for _ in range(3):
            path = visitor.uploaded(PORTRAITS[1].read_bytes())
            assert visitor.join(number, [picture(path), *READ_OPTIONS]).status_code == 200
        time.sleep(0.3)
        before = time.monotonic()
        stop(other)
        assert time.monotonic() - before < 10
        assert not other.folder.exists()
