"""Each situation is the same class of error and the same words over REST and gRPC, in a table."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from emotion_ai import errors
from tests.client.networks import Network, network, proxy, refusing_port, server_tls, silence, talking
from tests.client.test_faults import SITUATIONS, failure


@dataclass
class Both:
    """The addresses of a situation, of REST and of gRPC, and how a client reaches them."""

    urls: tuple[str, str]
    settings: dict[str, Any] = field(default_factory=dict)


def at(port: int, secure: bool = False, host: str = "127.0.0.1", **settings: Any) -> Both:
    s = "s" if secure else ""
    return Both((f"http{s}://{host}:{port}", f"grpc{s}://{host}:{port}"), settings)


def http2_page(status: int) -> Callable[[socket.socket], None]:
    """A proxy that answers a request of HTTP/2 with a page."""

    def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
        return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content

    def serve(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        stream.read(24)  # the preface
        connection.sendall(frame(4, 0, 0) + frame(4, 1, 0))  # settings, and that the client's were read
        kind = 0
        while kind != 1:  # the headers of the request
            size, kind = int.from_bytes(stream.read(3), "big"), stream.read(1)[0]
            stream.read(5 + size)
        header = b"\x08\x03" + str(status).encode()  # ":status", as a literal
        connection.sendall(frame(1, 4, 1, header) + frame(0, 1, 1, b"<html>secret page</html>"))
        while stream.read(1):
            pass

    return serve


def http1_page(status: int) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(2**16)
        body = b"<html>secret page</html>"
        head = f"HTTP/1.1 {status} Page\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode() + body)

    return serve


@dataclass
class World:
    """What situations are made of."""

    net: Network
    demanding: Network
    stack: ExitStack

    def of(self, case: str) -> Both:
        kind, _, detail = case.partition(" ")
        return getattr(self, kind)(detail)

    def response(self, name: str) -> Both:
        self.net.faults, self.net.lasting = [SITUATIONS[name][0]], True
        return Both(self.net.both())

    def page(self, status: str) -> Both:
        rest = self.stack.enter_context(talking(http1_page(int(status))))
        rpc = self.stack.enter_context(talking(http2_page(int(status))))
        return Both((f"http://127.0.0.1:{rest}", f"grpc://127.0.0.1:{rpc}"))

    def refused(self, _: str) -> Both:
        return at(refusing_port())

    def unknown(self, _: str) -> Both:
        return at(1, host="no-such-host.invalid")

    def silent(self, secure: str) -> Both:
        return at(self.stack.enter_context(silence()), bool(secure), timeout=(0.3, 0.6))

    def closing(self, secure: str) -> Both:
        port = self.stack.enter_context(talking(lambda stream: None, server_tls(self.net) if secure else None))
        return at(port, bool(secure), ca_file=self.net.ca if secure else None)

    def other(self, secure: str) -> Both:
        """A server that greets first, and one that waits."""

        def serve(stream: socket.socket) -> None:
            if not secure:
                stream.recv(2**16)
            stream.sendall(b"-ERR unknown command\r\n")

        port = self.stack.enter_context(talking(serve, server_tls(self.net) if secure else None))
        return at(port, bool(secure), ca_file=self.net.ca if secure else None)

    def untrusted(self, _: str) -> Both:
        return Both(self.net.both("secure"))

    def plain(self, _: str) -> Both:
        return Both(tuple(url.replace("://", "s://") for url in self.net.both()))  # type: ignore[arg-type]

    def encrypted(self, _: str) -> Both:
        return Both(tuple(url.replace("s://", "://") for url in self.net.both("secure")))  # type: ignore[arg-type]

    def demanded(self, _: str) -> Both:
        return Both(self.demanding.both("secure"), {"ca_file": self.demanding.ca})

    def proxy(self, detail: str) -> Both:
        settings: dict[str, Any] = {"ca_file": self.net.ca}
        if detail == "dead":
            return Both(self.net.both("secure"), settings | {"proxy": f"127.0.0.1:{refusing_port()}"})
        if detail == "unknown":
            return Both(self.net.both("secure"), settings | {"proxy": "no-such-host.invalid:1"})
        login, refuse = ("me:x", 0) if detail == "login" else (None, int(detail))
        port, _ = self.stack.enter_context(proxy(login, refuse))
        return Both(self.net.both("secure"), settings | {"proxy": f"127.0.0.1:{port}"})


CASES: dict[str, tuple[type[Exception], str]] = {
    **{f"response {name}": (kind, text) for name, (_, kind, text) in SITUATIONS.items()},
    "page 401": (errors.AccessDeniedError, "wants a login or token"),
    "page 403": (errors.AccessDeniedError, "access is denied"),
    "page 404": (errors.ServerFailureError, "is this TensorFlow Serving?"),
    "page 413": (errors.RequestRejectedError, "the request is too large"),
    "page 429": (errors.ServerUnavailableError, "try again later"),
    "page 500": (errors.ServerFailureError, "is this TensorFlow Serving?"),
    "page 502": (errors.ServerUnavailableError, "the proxy does not reach the server"),
    "page 503": (errors.ServerUnavailableError, "try again later"),
    "page 504": (errors.ServerUnavailableError, "is the server overloaded?"),
    "refused": (errors.ServerUnreachableError, "no server answers; start one with"),
    "unknown": (errors.ServerUnreachableError, "check its spelling and the network"),
    "silent": (errors.ServerTimeoutError, "no answer within 0."),
    "silent secure": (errors.ServerTimeoutError, "no answer within 0."),
    "closing": (errors.ServerUnreachableError, "the connection broke before the response was complete"),
    "closing secure": (errors.ServerUnreachableError, "the connection broke before the response was complete"),
    "other": (errors.ConnectionSettingsError, "this port speaks neither HTTP nor gRPC"),
    "other secure": (errors.ConnectionSettingsError, "this port speaks neither HTTP nor gRPC"),
    "untrusted": (errors.ConnectionSettingsError, "the server's certificate is not trusted"),
    "plain": (errors.ConnectionSettingsError, "this port speaks no TLS"),
    "encrypted": (errors.ConnectionSettingsError, "this port speaks TLS"),
    "demanded": (errors.ConnectionSettingsError, "the server wants a certificate of the client"),
    "proxy dead": (errors.ServerUnreachableError, "does not answer (connection refused)"),
    "proxy unknown": (errors.ServerUnreachableError, "does not answer (its name is unknown)"),
    "proxy login": (errors.AccessDeniedError, "wants a login (407)"),
    "proxy 403": (errors.AccessDeniedError, "refuses the connection (403)"),
    "proxy 502": (errors.ServerUnavailableError, "does not reach the server (502)"),
    "proxy 500": (errors.ServerUnreachableError, "makes no connection (500)"),
}


@pytest.fixture(scope="module")
def demanding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder: Path = tmp_path_factory.mktemp("demanding")
    with network(folder, ("secure",), clients=folder / "cert.pem") as found:
        yield found


def words(message: str) -> str:
    """A message without address, status and details in brackets, which are each library's own."""
    text = re.sub(r"^\S+: ", "", message)
    text = re.sub(r"^(\d{3}( Page)?|HTTP \d{3}|[A-Z_]+)(?=[,;])", "STATUS", text)
    text = re.sub(r"\([^)]*\)|\d+", "#", text)
    return re.sub(r"without (JSON|gRPC)", "without #", text.replace("grpc", "http"))


@pytest.mark.parametrize("case", CASES)
def test_rest_and_grpc_say_the_same(case: str, network: Network, demanding: Network) -> None:
    kind, text = CASES[case]
    with ExitStack() as stack:
        both = World(network, demanding, stack).of(case)
        found = [failure(url, **both.settings) for url in both.urls]
    assert [type(error) for error in found] == [kind, kind], found
    assert all(text in str(error) for error in found), found
    assert "secret page" not in str(found)
    rest, rpc = (words(str(error)) for error in found)
    assert rest == rpc.replace("no answer within # s", "STATUS, late" if "late" in rest else "no answer within # s")
