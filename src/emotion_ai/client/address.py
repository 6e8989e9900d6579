"""The address of a server, and what it takes to reach it: certificates, headers and a proxy."""

import os
import re
from collections.abc import Mapping
from typing import Self
from urllib.parse import SplitResult, urlsplit

from emotion_ai.errors import ConfigError

SCHEMES = {"http": 80, "https": 443, "grpc": None, "grpcs": None}
"""Schemes of addresses, with the port that each has by default."""

ClientCertificate = str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]]
"""PEM file with a certificate and its key, or the two files."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(%[^\[\]\s]+)?\]|[^\[\]:\s\\<>\"{}|^`]+)(:\d+)?")
_HEADER_NAME, _HEADER_VALUE = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]+"), re.compile(r"[\x20-\x7e]*")
_RESERVED = {"host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "te"}


class ServerAddress(str):
    """A server's address, and what it takes to reach it. As text it has no user and password, so messages may show it.

    Attributes:
        url: http(s)://HOST:PORT or grpc(s)://HOST:PORT, with user and password if they were given.
        ca_file: PEM file with the certificates to trust.
        cert: PEM file with the client's own certificate and its key, or a pair of files.
        headers: sent with each request, over gRPC as metadata.
        proxy: http://HOST:PORT.
    """

    url: str
    ca_file: str | os.PathLike[str] | None
    headers: Mapping[str, str] | None
    proxy: str | None
    cert: ClientCertificate | None

    def __new__(
        cls,
        url: str,
        ca_file: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        cert: ClientCertificate | None = None,
    ) -> Self:
        address = super().__new__(cls, without_login(url))
        address.url, address.ca_file, address.headers, address.proxy = url, ca_file, headers, proxy
        address.cert = cert
        return address

    def at(self, scheme: str, port: int) -> "ServerAddress":
        """The same machine at another port, reached the same way."""
        parts = urlsplit(self.url)
        login, at, host = parts.netloc.rpartition("@")
        bare = host if host.endswith("]") else host.rpartition(":")[0] or host
        ca_file, cert = (self.ca_file, self.cert) if scheme.endswith("s") else (None, None)
        return ServerAddress(f"{scheme}://{login}{at}{bare}:{port}", ca_file, self.headers, self.proxy, cert)


def without_login(url: str) -> str:
    """A URL, well-formed or not, without user and password."""
    head, at, rest = url.rpartition("@")
    return f"{head[: head.find('://') + 3] if '://' in head else ''}{rest}" if at else url


def split_address(url: str) -> SplitResult:
    """The parts of a server's URL.

    Raises:
        ConfigError: it is none, or of another scheme.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not _is_host(parts):
            raise ValueError("not a server's address")
        if parts.scheme.startswith("grpc") and (parts.port is None or parts.path.strip("/")):
            raise ValueError("gRPC needs a port and takes no path")
        if parts.query or parts.fragment:
            raise ValueError("no query")
        if "/v1/models" in parts.path:
            raise ValueError("the path is added")
    except ValueError as error:
        shown = without_login(url)
        example = "http://127.0.0.1:8501"
        if shown.rpartition("//")[2].count(":") > 1 and "[" not in shown:
            example = "http://[::1]:8501 (an IPv6 address stands in brackets)"
        message = f"server {shown!r}: write it as http://HOST:PORT or grpc://HOST:PORT, such as {example}"
        raise ConfigError(message) from error
    return parts


def split_proxy(proxy: str, schemes: tuple[str, ...], source: str = "`proxy`") -> SplitResult:
    """The parts of a proxy's URL, which may lack http://.

    Args:
        proxy: the URL.
        schemes: that the transport can use.
        source: where the URL comes from, for messages.

    Raises:
        ConfigError: it is none, or of another scheme.
    """
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if parts.scheme not in schemes or not _is_host(parts):
            raise ValueError("not a proxy's address")
    except ValueError:
        shown, choices = without_login(proxy), " or ".join(f"{scheme}://HOST:PORT" for scheme in schemes)
        raise ConfigError(f"{source} must be {choices}, got {shown!r}") from None  # the cause would show a password
    return parts


def check_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers as pairs, fit for HTTP and for gRPC.

    Raises:
        ConfigError: a name or value is not; no message shows a value.
    """
    for name, value in headers.items():
        lower = name.lower() if isinstance(name, str) and _HEADER_NAME.fullmatch(name) else ""
        if not lower or lower in _RESERVED or lower.startswith("grpc-") or lower.endswith("-bin"):
            raise ConfigError(f"header {name!r}: no name that can be given; use one such as Authorization")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value) or value != value.strip():
            raise ConfigError(f"header {name}: the value must be printable ASCII on one line, without blanks around it")
    if len({name.lower() for name in headers}) < len(headers):
        raise ConfigError(f"headers {', '.join(headers)}: a name is given twice")
    return tuple(headers.items())


def _is_host(parts: SplitResult) -> bool:
    """Raises ValueError, too, for a port that is none, and for an empty or too long part of a name."""
    fits = _HOST.fullmatch(parts.netloc.rpartition("@")[2]) and parts.port != 0
    return bool(fits and (parts.hostname or "").encode("idna"))
