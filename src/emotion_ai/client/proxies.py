"""The proxy between a client and its server: the given one, or that of the environment."""

import os
import re
import socket
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy, should_bypass_proxies

from emotion_ai.client.address import split_proxy, without_login
from emotion_ai.client.failures import TransientError, plain
from emotion_ai.client.transport import Connection
from emotion_ai.errors import AccessDeniedError, ClientError, ServerUnavailableError, ServerUnreachableError

_ADVICE = "check --proxy, proxy=, HTTP_PROXY and HTTPS_PROXY, or name the server in NO_PROXY"
TUNNEL_CODE = re.compile(r"(?:failed: |response code )(\d{3})")
"""The status with which a proxy refuses, in the texts of http.client and of gRPC."""

_NO_GRPC_PROXY = "no_grpc_proxy"
_GRPC_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")


def proxy_of(connection: Connection) -> str | None:
    """The proxy that requests go through, with its password if it has one; None without one.

    Without a given one, REST takes that of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY and gRPC that of grpc_proxy,
    https_proxy or http_proxy, as its own library does, except for servers on this machine and in NO_PROXY.

    Raises:
        ConfigError: gRPC cannot use the environment's.
    """
    if connection.proxy is not None:
        return split_proxy(connection.proxy, ("http", "https")).geturl()
    if connection.local:
        return None
    if not connection.grpc:
        found = select_proxy(connection.url, get_environ_proxies(connection.url))
        return str(found) if found else None
    if should_bypass_proxies(connection.url, no_proxy=os.environ.get(_NO_GRPC_PROXY)):
        return None
    name = next((name for name in _GRPC_VARIABLES if os.environ.get(name)), None)
    return None if name is None else split_proxy(os.environ[name], ("http",), name).geturl()


def proxy_failure(where: str, proxy: str | None, cause: object) -> ClientError | TransientError:
    """The error of a request that its proxy did not let through.

    Args:
        where: the request's address.
        proxy: the proxy's, if it is known.
        cause: what went wrong: an exception, or the text of one.
    """
    text, name = plain(str(cause), 200), f"the proxy {without_login(proxy)}" if proxy else "the proxy"
    code = int(found[1]) if (found := TUNNEL_CODE.search(text)) else 0
    if code == 407:
        return AccessDeniedError(f"{where}: {name} wants a login (407); write it as http://USER:SECRET@HOST:PORT")
    if code in (401, 403, 405):
        return AccessDeniedError(f"{where}: {name} refuses the connection ({code}); {_ADVICE}")
    if code in (429, 502, 503, 504):
        return TransientError(ServerUnavailableError(f"{where}: {name} does not reach the server ({code}); {_ADVICE}"))
    if code:
        return ServerUnreachableError(f"{where}: {name} makes no connection ({code}); is it an HTTP proxy? {_ADVICE}")
    reason = text
    if isinstance(cause, socket.gaierror):
        reason = "its name is unknown"
    elif isinstance(cause, ConnectionRefusedError):
        reason = "connection refused"
    return TransientError(ServerUnreachableError(f"{where}: {name} does not answer ({reason}); {_ADVICE}"))


def proxy_problem(proxy: str, seconds: float) -> OSError | None:
    """Why a proxy takes no connection; None if it does."""
    parts = urlsplit(proxy)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=seconds).close()
    except OSError as error:
        return error
    return None
