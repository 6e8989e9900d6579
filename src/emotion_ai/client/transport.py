"""Which model a client reads with, and what a transport does for it."""

import base64
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from emotion_ai.client.address import SCHEMES, ClientCertificate, check_headers, split_address, split_proxy
from emotion_ai.contract import Servable
from emotion_ai.errors import ConfigError

LABEL = re.compile("[A-Za-z0-9_]+")
"""A label that can stand in an address."""

Inputs = list[bytes] | NDArray[np.float32] | NDArray[np.int32]
"""Of one request: PNG or JPEG files, crops (N, 96, 96, 1), 0-255, or any numbers (N,) to ask for the classes."""


@dataclass(frozen=True)
class Connection:
    """A served model, and how to reach it. What is secret is in no message and no repr.

    Attributes:
        url: http(s)://HOST:PORT of the REST API, or grpc(s)://HOST:PORT. A user and password in it are kept in `login`
            only.
        model: "face", "keypoints" or "emotion"; states and labels are also those of other models.
        version: a version's number.
        label: a version's label, such as "stable"; without version and label the server's newest version is used.
        timeout: seconds to connect, and for a whole request with its retries.
        retries: further attempts of a request that fails for a while. By default, until the time-out if the server is
            overloaded, and 2 if there is no connection or it breaks.
        ca_file: PEM file with the certificates to trust; by default that of REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or
            SSL_CERT_FILE, or the usual authorities.
        headers: sent with each request, over gRPC as metadata.
        proxy: http://HOST:PORT; by default that of the environment, which does not apply to this machine.
        cert: PEM file with the client's own certificate and its key, or a pair of files.
        login: user and password for HTTP basic authentication.

    Raises:
        ConfigError: a value is invalid, or two contradict each other.
    """

    url: str
    model: Servable = "face"
    version: int | None = None
    label: str | None = None
    timeout: tuple[float, float] = (3.05, 30.0)
    retries: int | None = None
    ca_file: str | os.PathLike[str] | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    cert: ClientCertificate | None = None
    login: tuple[str, str] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        parts = split_address(self.url.rstrip("/"))
        if parts.username is not None or parts.password is not None:
            object.__setattr__(self, "login", (unquote(parts.username or ""), unquote(parts.password or "")))
        object.__setattr__(self, "url", parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
        if self.version is not None and self.label is not None:
            raise ConfigError(f"give `version` or `label`, not both (got {self.version} and {self.label!r})")
        if self.label is not None and not LABEL.fullmatch(self.label):
            raise ConfigError(f"`label` may contain letters, digits and _ only, got {self.label!r}")
        if len(self.timeout) != 2 or not all(0 < seconds < math.inf for seconds in self.timeout):
            raise ConfigError(f"`timeout` must be finite and > 0 seconds, got {self.timeout}")
        if self.retries is not None and self.retries < 0:
            raise ConfigError(f"`retries` must be >= 0, got {self.retries}")
        for name, value in (("ca_file", self.ca_file), ("cert", self.cert)):
            if value is not None and not self.secure:
                raise ConfigError(f"{self.url}: `{name}` is for https:// and grpcs:// addresses; leave it out")
        names = [name.lower() for name, _ in check_headers(self.headers or {})]
        if self.login is not None and "authorization" in names:
            raise ConfigError(f"{self.url}: give a user and password or an Authorization header, not both")
        if self.proxy is not None:
            split_proxy(self.proxy, ("http",) if self.grpc else ("http", "https"))

    @property
    def scheme(self) -> str:
        """http, https, grpc or grpcs."""
        return self._parts.scheme

    @property
    def grpc(self) -> bool:
        """Whether the address is one of gRPC."""
        return self.scheme.startswith("grpc")

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme.endswith("s")

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self._parts.netloc

    @property
    def host(self) -> str:
        """Name or IP address of the server, without brackets."""
        return unquote(self._parts.hostname or "")

    @property
    def port(self) -> int:
        """The port, that of the scheme by default."""
        return self._parts.port or SCHEMES[self.scheme] or 0

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine, which proxies of the environment do not reach."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Headers of each request in lower case, the login among them."""
        found = [(name.lower(), value) for name, value in (self.headers or {}).items()]
        if self.login is not None:
            login = base64.b64encode(":".join(self.login).encode()).decode()
            found.append(("authorization", f"Basic {login}"))
        return tuple(found)

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A response to a predict request.

    Attributes:
        outputs: by name, arrays or nested lists of numbers.
        version: the version that answered, if the response names it.
    """

    outputs: dict[str, Any]
    version: int | None = None


class Transport(Protocol):
    """Sends requests to one served model, for several threads at once; every method but `close` raises ClientError."""

    def predict(self, signature: str, inputs: Inputs, outputs: tuple[str, ...]) -> Prediction:
        """The named outputs, as far as the response has them."""
        ...

    def metadata(self) -> dict[str, Any]:
        """The served version's number and signatures, as the REST API writes them."""
        ...

    def status(self) -> Any:
        """The state of each version, as the REST API writes it."""
        ...

    def close(self) -> None: ...
