"""Which model a client reads with, and what a transport does for it."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from emotion_ai.contract import SERVABLES, Servable
from emotion_ai.errors import ConfigError

Inputs = list[bytes] | NDArray[np.float32] | NDArray[np.int32]
"""Of one request: PNG or JPEG files, crops (N, 96, 96, 1), 0-255, or any numbers (N,) to ask for the classes."""


@dataclass(frozen=True)
class Connection:
    """A served model, and how to reach it.

    Attributes:
        url: http(s)://HOST:PORT of the REST API, or grpc(s)://HOST:PORT. A user and password in it are kept in `login`
            only, so that no message shows them.
        model: "face", "keypoints" or "emotion".
        version: a version's number.
        label: a version's label, such as "stable"; without version and label the server's newest version is used.
        timeout: seconds to connect, and for a whole request with its retries.
        retries: attempts after a failed or broken connection or a 503 (UNAVAILABLE); time-outs and rejected requests
            are not retried.
        login: user and password for HTTP basic authentication.

    Raises:
        ConfigError: a value is invalid, or both version and label are given.
    """

    url: str
    model: Servable = "face"
    version: int | None = None
    label: str | None = None
    timeout: tuple[float, float] = (3.05, 30.0)
    retries: int = 2
    login: tuple[str, str] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        parts = _checked(self.url.rstrip("/"))
        if parts.username is not None or parts.password is not None:
            object.__setattr__(self, "login", (unquote(parts.username or ""), unquote(parts.password or "")))
        object.__setattr__(self, "url", parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
        if self.model not in SERVABLES:
            raise ConfigError(f"`model` must be one of {', '.join(SERVABLES)}, got {self.model!r}")
        if self.version is not None and self.label is not None:
            raise ConfigError(f"give `version` or `label`, not both (got {self.version} and {self.label!r})")
        if self.label is not None and not re.fullmatch(r"[A-Za-z0-9_]+", self.label):
            raise ConfigError(f"`label` may contain letters, digits and _ only, got {self.label!r}")
        if len(self.timeout) != 2 or not all(0 < seconds < math.inf for seconds in self.timeout):
            raise ConfigError(f"`timeout` must be finite and > 0 seconds, got {self.timeout}")
        if self.retries < 0:
            raise ConfigError(f"`retries` must be >= 0, got {self.retries}")

    @property
    def scheme(self) -> str:
        """http, https, grpc or grpcs."""
        return self._parts.scheme

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self._parts.netloc

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine, which proxies do not reach."""
        return self._parts.hostname in ("127.0.0.1", "localhost", "::1")

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
    """Sends requests to one served model; every method but `close` raises ClientError."""

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


def without_login(url: str) -> str:
    """A URL, well-formed or not, without user and password."""
    head, at, rest = url.rpartition("@")
    return f"{head[: head.find('://') + 3] if '://' in head else ''}{rest}" if at else url


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.hostname or (parts.port or 1) < 1:
            raise ValueError("not a server's address")
        if parts.scheme.startswith("grpc") and (parts.port is None or parts.path.strip("/")):
            raise ValueError("gRPC needs a port and takes no path")
    except ValueError as error:
        raise ConfigError(
            f"server {without_login(url)!r}: write it as http://HOST:PORT or grpc://HOST:PORT, such as "
            "http://127.0.0.1:8501"
        ) from error
    return parts
