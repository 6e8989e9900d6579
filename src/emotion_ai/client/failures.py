"""What a failed request means: the same error for the same situation, over REST and gRPC."""

import re

from emotion_ai.errors import (
    AccessDeniedError,
    ClientError,
    ConnectionSettingsError,
    ModelNotFoundError,
    RequestRejectedError,
    ServerFailureError,
    ServerTimeoutError,
    ServerUnavailableError,
    ServerUnreachableError,
)

STATUS_OF_CODE = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""The HTTP status with the meaning of a gRPC code, as TensorFlow Serving's REST API has it; 500 for other codes."""

_DISTRUST = re.compile(
    r"(?i)certificate[ _]verify[ _]failed: (.*?)(?: \(_ssl|: Invalid cert|: OK|$)|hostname verification check failed"
)
_OWN = re.compile(
    r"(?i)certificate[ _]required|SSL certificate$"
    r"|alert[ _](bad[ _]certificate|unknown[ _]ca|certificate[ _](expired|revoked|unknown))"
)
_NO_TLS = re.compile(r"(?i)wrong.version.number|http.request|record.layer.failure")


class TransientError(Exception):
    """A failure that another attempt may not meet.

    Args:
        error: raised if there is no further attempt.
        overloaded: whether there is a server, which cannot take the request now.
        unexplained: whether it takes another look at the address to see why there is no connection.
        retry_after: seconds that the server asks to wait.
    """

    def __init__(
        self, error: ClientError, *, overloaded: bool = False, unexplained: bool = False, retry_after: float = 0.0
    ) -> None:
        super().__init__(str(error))
        self.error, self.overloaded, self.unexplained, self.retry_after = error, overloaded, unexplained, retry_after


def failure(
    where: str, status: int, said: str, text: str = "", *, foreign: str = "", retry_after: float = 0.0
) -> ClientError | TransientError:
    """The error of a response that is none.

    Args:
        where: the request's address.
        status: HTTP's.
        said: the status or code as the server has it.
        text: the server's own words, on one line.
        foreign: what it is if not in TensorFlow Serving's format, such as "without JSON"; perhaps a proxy sent it.
        retry_after: seconds that the server asks to wait.
    """
    message = f"{where}: {said}, {text}" if text else f"{where}: {said}"
    if status == 401:
        advice = "give it as http://USER:SECRET@HOST:PORT or as a header (--header, headers=)"
        return AccessDeniedError(f"{message}; the server wants a login or token; {advice}")
    if status == 403:
        return AccessDeniedError(f"{message}; access is denied; use another user or token")
    if status == 407:
        return AccessDeniedError(f"{message}; the proxy wants a login (http://USER:SECRET@PROXY:PORT)")
    if status == 413:
        advice = "send fewer or smaller images at once, or raise the limit of the server or the proxy before it"
        return RequestRejectedError(f"{message}; the request is too large; {advice}")
    if status in (429, 503):
        error = ServerUnavailableError(f"{message}; the server is overloaded or not ready; try again later")
        return TransientError(error, overloaded=True, retry_after=retry_after)
    if status == 502:
        return TransientError(
            ServerUnavailableError(f"{message}; the proxy does not reach the server; try again later")
        )
    if status == 504:
        late = f"{message}; is the server overloaded?"
        return ServerUnavailableError(late) if foreign else ServerTimeoutError(late)
    if foreign:
        return ServerFailureError(f"{where}: returned {status} {foreign}; is this TensorFlow Serving?")
    if status == 501:
        return ServerFailureError(f"{message}; is this TensorFlow Serving?")
    # the server returns 400 for an unknown label, 404 for an unknown version
    if status == 404 or text.startswith("Unrecognized servable version label"):
        return ModelNotFoundError(message)
    if 400 <= status < 500 and status != 499:
        return RequestRejectedError(message)
    return ServerFailureError(message)


def no_connection(where: str, reason: str) -> TransientError:
    """The failure of a connection that could not be made, or broke."""
    error = ServerUnreachableError(f"{where}: no connection, or it broke ({plain(reason, 200)})")
    return TransientError(error, unexplained=True)


def tls_failure(where: str, reason: str) -> ConnectionSettingsError | TransientError:
    """The failure of a TLS handshake, from what OpenSSL or BoringSSL says."""
    if found := _DISTRUST.search(reason):
        return untrusted(where, plain(found[1] or "the certificate is for another name", 200))
    if error := wants_certificate(where, reason):
        return error
    if _NO_TLS.search(reason):
        error = ConnectionSettingsError(f"{where}: this port speaks no TLS; write http:// or grpc://")
        return TransientError(error, unexplained=True)
    return no_connection(where, f"TLS failed: {reason}")


def wants_certificate(where: str, reason: str) -> ConnectionSettingsError | None:
    """The error of a server that wants a certificate of the client, if that is what a failed handshake says."""
    if not (found := _OWN.search(reason)):
        return None
    said = plain(found[0], 200).replace("_", " ").lower()
    return ConnectionSettingsError(
        f"{where}: the server wants a certificate of the client, or another one ({said}); give it and its key with "
        "--client-cert and --client-key, or cert="
    )


def untrusted(where: str, reason: str) -> ConnectionSettingsError:
    """The error of a certificate that the client does not trust."""
    return ConnectionSettingsError(
        f"{where}: the server's certificate is not trusted ({reason}); give the file of its authority with --ca-file, "
        "ca_file= or REQUESTS_CA_BUNDLE, and use the name that is in it"
    )


def plain(text: str, length: int) -> str:
    """A server's text on one line, without control characters, cut to a length."""
    text = " ".join(text[: 2 * length].split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)[:length]
