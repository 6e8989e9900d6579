"""Why no connection comes about: what listens at an address, found out with a few bytes after a request failed."""

import contextlib
import socket
import ssl
from base64 import b64encode
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from emotion_ai.client.failures import TransientError, plain, untrusted, wants_certificate
from emotion_ai.client.proxies import proxy_failure, proxy_of
from emotion_ai.client.transport import Connection
from emotion_ai.errors import ClientError, ConnectionSettingsError, ServerTimeoutError, ServerUnreachableError

SECONDS = 1.0
"""Of each of the two or three attempts, at most."""

_ALERT_SECONDS = 0.5
_CLOSED = "closed after the handshake"
_WANTED = "certificate required"
_CERTIFICATE_REQUEST = 13  # a message of the handshake
_TLS_ALERT, _SETTINGS_FRAME = b"\x15\x03", b"\x04"  # the frame's type follows its length of 3 bytes


@dataclass(frozen=True)
class Listener:
    """What listens at an address.

    Attributes:
        tls: whether it speaks TLS.
        protocol: "HTTP", "gRPC" (or another use of HTTP/2), "other", or "" if it says nothing.
        problem: why its certificate is not trusted, or the handshake fails.
    """

    tls: bool = False
    protocol: str = ""
    problem: str = ""


def explained(failed: TransientError, connection: Connection, where: str, trust: ssl.SSLContext) -> ClientError:
    """The error of a request that gets no further attempt: what a look at the address adds, if that can be taken.

    Args:
        failed: the last attempt.
        connection: the server's.
        where: the request's address.
        trust: with the certificates that the client trusts.
    """
    proxy = proxy_of(connection)
    tunnel = proxy is not None and proxy.startswith("http://") and (connection.secure or connection.grpc)
    if not failed.unexplained or (proxy and not tunnel):
        return failed.error
    late = isinstance(failed.error, ServerTimeoutError)
    try:
        found = listener(connection, trust)
    except (OSError, HTTPException) as error:
        if late:
            return failed.error
        if proxy:
            refused = proxy_failure(where, proxy, error)
            return refused.error if isinstance(refused, TransientError) else refused
        return _unreachable(error, connection, where)
    if connection.secure and found.problem and found.protocol:
        return untrusted(where, found.problem)
    if wanted := wants_certificate(where, found.problem):
        return wanted
    if problem := _mismatch(connection, found):
        return ConnectionSettingsError(f"{where}: {problem}")
    if late or proxy:
        return failed.error
    advice = "did the server stop, or is the request too large for a proxy before it?"
    return ServerUnreachableError(f"{where}: the connection broke before the response was complete; {advice}")


def _unreachable(error: Exception, connection: Connection, where: str) -> ServerUnreachableError:
    if isinstance(error, socket.gaierror):
        advice = "check its spelling and the network (DNS)"
        return ServerUnreachableError(f"{where}: the name {connection.host} is unknown; {advice}")
    if isinstance(error, ConnectionRefusedError):
        advice = "no server answers; start one with: emotion-ai serve, or check host and port"
        return ServerUnreachableError(f"{where}: port {connection.port} refuses the connection: {advice}")
    reason = getattr(error, "strerror", None) or plain(str(error), 200) or type(error).__name__
    return ServerUnreachableError(f"{where}: no connection ({reason}); check the address and the network")


def listener(connection: Connection, trust: ssl.SSLContext, seconds: float = SECONDS) -> Listener:
    """What listens at a server's address.

    Raises:
        OSError: no connection can be made.
    """
    problem = ""
    for context in (trust, _unverified()):
        wanted = _certificate_wanted(context)
        for alpn in ("h2", "http/1.1") if connection.grpc else ("http/1.1", "h2"):
            context.set_alpn_protocols([alpn])
            try:
                protocol = _protocol(connection, seconds, context)
                if protocol == _CLOSED:
                    asked = "gRPC" if connection.grpc else "HTTP"
                    return Listener(True, "", _WANTED) if wanted else Listener(True, asked, problem)
                if protocol:
                    return Listener(True, protocol, problem)
            except ssl.SSLCertVerificationError as error:
                problem = error.verify_message or str(error)
                break  # see what it is without verification
            except (OSError, ValueError) as error:
                said = str(getattr(error, "reason", None) or "")
                if wanted and not isinstance(error, TimeoutError):
                    # TLS 1.2 has no alert for it, and gRPC closes without one
                    return Listener(True, "", said if wants_certificate("", said) else _WANTED)
                return _plain(connection, seconds, said)
        else:
            break
    return Listener(True, "", problem)


def _plain(connection: Connection, seconds: float, problem: str = "") -> Listener:
    protocol = _protocol(connection, seconds)
    return Listener(True, "", f"handshake failed: {problem}") if protocol == "TLS" else Listener(False, protocol)


def _protocol(connection: Connection, seconds: float, tls: ssl.SSLContext | None = None) -> str:
    """What a request of HTTP/1.1 meets: "HTTP", "gRPC", "other", `_CLOSED`, "TLS" where none was offered, or ""."""
    host = connection.host.partition("%")[0]  # without the interface of a link-local address
    with (
        _connected(connection, seconds) as raw,
        tls.wrap_socket(raw, server_hostname=host) if tls else raw as stream,
    ):
        h2 = isinstance(stream, ssl.SSLSocket) and stream.selected_alpn_protocol() == "h2"
        start = _first_words(stream, min(seconds, _ALERT_SECONDS)) if tls else b""
        if h2:
            if not start:
                return _CLOSED if start == b"" else "gRPC"
            return "gRPC" if start[3:4] == _SETTINGS_FRAME else "other"
        with contextlib.suppress(OSError):
            if not start:
                stream.settimeout(seconds)
                stream.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                start = stream.recv(64)
            if start.startswith(b"HTTP/"):
                return "HTTP"
            if start.startswith(_TLS_ALERT):
                return "TLS"
            if start[3:4] == _SETTINGS_FRAME:
                return "gRPC"
    return "other" if start else ""


def _first_words(stream: socket.socket, seconds: float) -> bytes | None:
    """What a server says before any request: settings of HTTP/2, or None for nothing.

    Raises:
        OSError: it ends the connection, as TLS 1.3 does only now if it wants another certificate of the client.
    """
    stream.settimeout(seconds)
    try:
        return stream.recv(64)
    except TimeoutError:
        return None


def _connected(connection: Connection, seconds: float) -> socket.socket:
    """A connection to the server, through its proxy if it has one."""
    proxy = proxy_of(connection)
    if proxy is None:
        return socket.create_connection((connection.host, connection.port), timeout=seconds)
    parts = urlsplit(proxy)
    through = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=seconds)
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    headers = {"Proxy-Authorization": f"Basic {b64encode(login.encode()).decode()}"} if parts.username else {}
    through.set_tunnel(connection.host, connection.port, headers)
    through.connect()
    return through.sock


def _certificate_wanted(context: ssl.SSLContext) -> list[int]:
    """Gets an item for each request of a server for the client's certificate, also where none is sent then."""
    found: list[int] = []

    def read(_: Any, direction: str, version: Any, content: Any, kind: int, data: bytes) -> None:
        if direction == "read" and kind == _CERTIFICATE_REQUEST:
            found.append(kind)

    context._msg_callback = read  # type: ignore[attr-defined]  # the only way to see it, from Python 3.8 on
    return found


def _unverified() -> ssl.SSLContext:
    """Only to see what is there: nothing secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _mismatch(connection: Connection, found: Listener) -> str:
    """How the address must be changed, or nothing."""
    if found.protocol == "other":
        return "this port speaks neither HTTP nor gRPC, so it is another service's; check host and port"
    wanted = "grpc" if connection.grpc else "http"
    spoken = {"HTTP": "http", "gRPC": "grpc"}.get(found.protocol, wanted)
    scheme = f"{spoken}{'s' if found.tls else ''}"
    if spoken != wanted:
        ports = "the gRPC port, usually 8500" if connection.grpc else "the REST port, usually 8501"
        names = {"http": "REST (HTTP/1.1)", "grpc": "gRPC (HTTP/2)"}
        return f"this port speaks {names[spoken]}, not {names[wanted]}; write {scheme}://, or use {ports}"
    if found.tls != connection.secure and (found.tls or found.protocol):
        return (
            f"this port speaks {'TLS' if found.tls else 'no TLS'}; write {scheme}:// instead of {connection.scheme}://"
        )
    if found.tls and not found.protocol:
        return f"TLS failed ({found.problem})" if found.problem else f"this port speaks TLS, but not {wanted}"
    return ""
