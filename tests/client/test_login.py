"""A user and password in a server's address: sent to the server, shown to nobody."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from emotion_ai.client import FaceClient
from emotion_ai.client.address import without_login
from emotion_ai.client.transport import Connection
from emotion_ai.errors import ClientError, ConfigError

PASSWORD = "p@ss:word/1"


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """Refuses every request, and remembers how it was authorised."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            authorised.append(self.headers.get("authorization", ""))
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    authorised: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.authorised = authorised  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_password_is_sent_and_not_shown(server: HTTPServer) -> None:
    address = f"127.0.0.1:{server.server_port}"
    with FaceClient(f"http://reader:p%40ss%3Aword%2F1@{address}", retries=0) as client:
        assert client.connection.url == f"http://{address}"
        assert "word" not in repr(client.connection)
        for request in (client.versions, client.metadata):
            with pytest.raises(ClientError) as error:
                request()
            assert address in str(error.value)
            assert "word" not in str(error.value)
            assert "reader" not in str(error.value)
    sent = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
    assert server.authorised == [f"Basic {sent}"] * 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url",
    ["http://reader:s3cret@host:port", "ftp://reader:s3cret@host", "reader:s3cret@host:8501", "http://reader:s3/cr@t@"],
)
def test_a_malformed_address_is_shown_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        Connection(url)
    assert "s3" not in str(error.value)
    assert "reader" not in str(error.value)


def test_other_addresses_stay_as_they_are() -> None:
    for url in ("http://127.0.0.1:8501", "grpc://[::1]:8500", "nowhere", ""):
        assert without_login(url) == url
    assert Connection("http://HOST:1/base/").url == "http://HOST:1/base"
    assert Connection("grpc://reader:s3cret@host:8500").address == "host:8500"
