"""Why no connection comes about: what listens at an address, found out with a few bytes after a request failed."""

import contextlib
import socket
import ssl
from dataclasses import dataclass

from emotion_ai.client.failures import TransientError, plain, untrusted, wants_certificate
from emotion_ai.client.proxies import proxy_of
from emotion_ai.client.transport import Connection
from emotion_ai.errors import ClientError, ConnectionSettingsError, ServerTimeoutError, ServerUnreachableError

SECONDS = 1.0
"""Of each of the two or three attempts, at most."""

_ALERT_SECONDS = 0.5
_TLS_ALERT, _SETTINGS_FRAME = b"\x15\x03", b"\x04"  # the frame's type follows its length of 3 bytes


@dataclass(frozen=True)
class Listener:
    """What listens at an address.

    Attributes:
        tls: whether it speaks TLS.
        protocol: "HTTP", "gRPC" (or another use of HTTP/2), or "" if it is neither or says nothing.
        problem: why its certificate is not trusted, or the handshake fails.
    """

    tls: bool = False
    protocol: str = ""
    problem: str = ""


def explained(failed: TransientError, connection: Connection, where: str, trust: ssl.SSLContext) -> ClientError:
    """The error of a request that gets no further attempt: what a look at the address adds, if that can be taken.

    Args:
        failed: the last attempt.
        connection: without a proxy in between.
        where: the request's address.
        trust: with the certificates that the client trusts.
    """
    if not failed.unexplained or proxy_of(connection):
        return failed.error
    late = isinstance(failed.error, ServerTimeoutError)
    try:
        found = listener(connection, trust)
    except OSError as error:
        return failed.error if late else _unreachable(error, connection, where)
    if connection.secure and found.problem and found.protocol:
        return untrusted(where, found.problem)
    if wanted := wants_certificate(where, found.problem):
        return wanted
    if problem := _mismatch(connection, found):
        return ConnectionSettingsError(f"{where}: {problem}")
    if late:
        return failed.error
    advice = "did the server stop, or is the request too large for a proxy before it?"
    return ServerUnreachableError(f"{where}: the connection broke before the response was complete; {advice}")


def _unreachable(error: OSError, connection: Connection, where: str) -> ServerUnreachableError:
    if isinstance(error, socket.gaierror):
        advice = "check its spelling and the network (DNS)"
        return ServerUnreachableError(f"{where}: the name {connection.host} is unknown; {advice}")
    if isinstance(error, ConnectionRefusedError):
        advice = "no server answers; start one with: emotion-ai serve, or check host and port"
        return ServerUnreachableError(f"{where}: port {connection.port} refuses the connection: {advice}")
    reason = error.strerror or plain(str(error), 200) or type(error).__name__
    return ServerUnreachableError(f"{where}: no connection ({reason}); check the address and the network")


def listener(connection: Connection, trust: ssl.SSLContext, seconds: float = SECONDS) -> Listener:
    """What listens at a server's address.

    Raises:
        OSError: no connection can be made.
    """
    problem = ""
    for context in (trust, _unverified()):
        for alpn in ("h2", "http/1.1") if connection.grpc else ("http/1.1", "h2"):
            context.set_alpn_protocols([alpn])
            try:
                if protocol := _protocol(connection, seconds, context):
                    return Listener(True, protocol, problem)
            except _RefusedError as error:
                return Listener(True, "", str(error))
            except ssl.SSLCertVerificationError as error:
                problem = error.verify_message or str(error)
                break  # see what it is without verification
            except ssl.SSLError as error:
                return _plain(connection, seconds, error.reason or str(error))
            except (OSError, ValueError):
                return _plain(connection, seconds)
        else:
            break
    return Listener(True, "", problem)


def _plain(connection: Connection, seconds: float, problem: str = "") -> Listener:
    protocol = _protocol(connection, seconds)
    return Listener(True, "", f"handshake failed: {problem}") if protocol == "TLS" else Listener(False, protocol)


def _protocol(connection: Connection, seconds: float, tls: ssl.SSLContext | None = None) -> str:
    """What a request of HTTP/1.1 meets: "HTTP", "gRPC", "TLS" where none was offered, or ""."""
    host = connection.host.partition("%")[0]  # without the interface of a link-local address
    with (
        socket.create_connection((connection.host, connection.port), timeout=seconds) as raw,
        tls.wrap_socket(raw, server_hostname=host) if tls else raw as stream,
    ):
        h2 = isinstance(stream, ssl.SSLSocket) and stream.selected_alpn_protocol() == "h2"
        start = _first_words(stream, min(seconds, _ALERT_SECONDS)) if tls else b""
        if h2 and start == b"":  # gRPC closes without a word
            raise _RefusedError("closed after the handshake: certificate required?")
        if h2:
            return "gRPC"
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
    return ""


def _first_words(stream: socket.socket, seconds: float) -> bytes | None:
    """What a server says before any request: settings of HTTP/2, or None for nothing.

    Raises:
        _RefusedError: it wants another certificate of the client, which TLS 1.3 tells only now.
    """
    stream.settimeout(seconds)
    try:
        return stream.recv(64)
    except OSError as error:
        if isinstance(error, ssl.SSLError) and wants_certificate("", error.reason or ""):
            raise _RefusedError(error.reason) from error
        return None


class _RefusedError(Exception):
    """A server does not accept the client's certificate, or that there is none."""


def _unverified() -> ssl.SSLContext:
    """Only to see what is there: nothing secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _mismatch(connection: Connection, found: Listener) -> str:
    """How the address must be changed, or nothing."""
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
