"""Who may send requests: host names, origins, and the cookie that tells visitors apart."""

import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from emotion_ai.errors import ConfigError
from emotion_ai.web.messages import RefusedError

_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Hosts:
    """The host names under which the page may be requested; others could be a rebound name of another site.

    Attributes:
        listening: the address that the page listens on.
        allowed: names that a proxy serves the page under, with a port unless it is the scheme's default.
    """

    listening: str = "127.0.0.1"
    allowed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in self.allowed:
            if _host_name(name) is None:
                raise ConfigError(f"--allowed-host {name!r}: write it as NAME or NAME:PORT, such as faces.example.org")

    def check(self, headers: Headers, path: str) -> None:
        """Raises RefusedError for a request under another name, or one that a page of another origin makes."""
        host = headers.get("host", "").lower()
        name = _host_name(host)
        if name is None or not self._serves(name):
            raise RefusedError(f"The page is not served as {name or host!r}; allow it with --allowed-host NAME.", 400)
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] not in {host, *self.allowed}:
            raise RefusedError("Requests from other pages are refused.", 403)
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and path != "/":  # a link may lead to the page
            raise RefusedError("Requests from other pages are refused.", 403)

    def forwarded(self, headers: Headers) -> str | None:
        """The name that a proxy serves the page under, from X-Forwarded-Host, if it is an allowed one."""
        name = headers.get("x-forwarded-host", "").lower()
        return name if name in self.allowed else None

    def _serves(self, name: str) -> bool:
        if name in _LOCAL or name in {_host_name(allowed) for allowed in self.allowed}:
            return True
        if self.listening in _LOCAL:
            return False
        return _is_address(name) or name in (socket.gethostname().lower(), socket.getfqdn().lower())


def allowed_hosts(names: Iterable[str]) -> frozenset[str]:
    """Names as `Hosts` compares them."""
    return frozenset(name.strip().lower().rstrip(".") for name in names)


def trusted_proxies(addresses: Iterable[str]) -> list[str]:
    """Addresses or networks whose forwarded headers are used, checked.

    Raises:
        ConfigError: one is not an IP address or network.
    """
    found = []
    for address in addresses:
        try:
            found.append(str(ipaddress.ip_network(address.strip(), strict=False)))
        except ValueError as error:
            raise ConfigError(
                f"--trusted-proxy {address!r}: write an IP address or a network, such as 127.0.0.1 or 10.0.0.0/8"
            ) from error
    return found


def visitor(headers: Headers, cookie: str) -> str | None:
    """The visitor that a cookie names; None without a valid one."""
    value = cookie_parser(headers.get("cookie", "")).get(cookie, "")  # whatever other cookies of this host look like
    return value if re.fullmatch(r"[A-Za-z0-9_-]{32,64}", value) else None


def new_visitor() -> str:
    """A name that nobody can guess."""
    return secrets.token_urlsafe(24)


def _host_name(host: str) -> str | None:
    """The name without its port; None if it is malformed."""
    if not re.fullmatch(r"[a-z0-9._-]+(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?", host):
        return None
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") or None
    except ValueError:  # no address in brackets
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
