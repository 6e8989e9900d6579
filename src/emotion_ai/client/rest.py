"""TensorFlow Serving's REST API; its errors become ours."""

import base64
import json
import os
import threading
from typing import Any

import numpy as np
import requests
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay, wait_exponential

from emotion_ai.client.bounded import BUDGET, BoundedAdapter, Budget
from emotion_ai.client.transport import Connection, Inputs, Prediction
from emotion_ai.errors import (
    ConfigError,
    ModelNotFoundError,
    RequestRejectedError,
    ServerFailureError,
    ServerUnavailableError,
    ServerUnreachableError,
)

MAX_RESPONSE, MAX_RESPONSE_PER_FACE = 4 * 2**20, 2**14
"""Bytes of a response, decompressed; a face's numbers take 2 kB."""


class RestTransport:
    """A `Transport` over kept-alive HTTP connections."""

    def __init__(self, connection: Connection, session: requests.Session | None = None) -> None:
        self._connection = connection
        self._path = self._model_path = f"/v1/models/{connection.model}"
        if connection.version is not None:
            self._path += f"/versions/{connection.version}"
        elif connection.label is not None:
            self._path += f"/labels/{connection.label}"
        self._given, self._process = session, os.getpid()
        self._session = session or _new_session(connection)
        self._retries = connection.retries if session is None else 0

    def close(self) -> None:
        """Closes the connections, unless the session was given."""
        if self._given is None:
            self._session.close()

    def predict(self, signature: str, inputs: Inputs, outputs: tuple[str, ...]) -> Prediction:
        """The outputs as lists; the server returns one output as bare values, several as objects."""
        if isinstance(inputs, list):
            instances: list[Any] = [{"b64": base64.b64encode(file).decode()} for file in inputs]
        else:
            whole = np.rint(inputs)  # written as 77, which is shorter than 77.0
            instances = (whole.astype(int) if np.array_equal(whole, inputs) else inputs).tolist()
        body = {"signature_name": signature, "instances": instances}
        rows = self._request("POST", f"{self._path}:predict", body, len(inputs)).get("predictions")
        url, model = self._connection.url, self._connection.model
        if not isinstance(rows, list) or len(rows) != len(instances):
            got = len(rows) if isinstance(rows, list) else "no"
            raise ServerFailureError(f"{url}: {got} predictions for {len(instances)} instances")
        rows = [row if isinstance(row, dict) else {outputs[0]: row} for row in rows]
        try:
            return Prediction({name: [row[name] for row in rows] for name in outputs}, self._connection.version)
        except KeyError as error:
            names = " and ".join(outputs)
            raise ServerFailureError(f"{url}: the response of {model} lacks {names} ({error!r})") from error

    def metadata(self) -> dict[str, Any]:
        """The served version's number and signatures."""
        return self._request("GET", f"{self._path}/metadata")

    def status(self) -> Any:
        """The state of each version."""
        return self._request("GET", self._model_path).get("model_version_status")

    def _open(self) -> requests.Session:
        """The session; another one in a forked process, which must not share the connections of the first."""
        if self._process != os.getpid():
            if self._given is not None:
                raise ConfigError("a session was passed on by a fork; create session and client in the new process")
            self._session, self._process = _new_session(self._connection), os.getpid()
        return self._session

    def _request(self, method: str, path: str, body: Any = None, faces: int = 0) -> dict[str, Any]:
        """The JSON object of a response, within the time-out, retries included."""
        seconds = self._connection.timeout[1]
        budget = Budget(self._connection.url + path, seconds, MAX_RESPONSE + faces * MAX_RESPONSE_PER_FACE)
        retrying = Retrying(
            stop=stop_after_attempt(self._retries + 1) | stop_before_delay(seconds),
            wait=wait_exponential(0.2, max=2.0),  # seconds; never as long as a server's Retry-After
            retry=retry_if_exception_type((_Unreachable, _Busy)),
            reraise=True,
        )
        token = BUDGET.set(budget)
        try:
            return retrying(self._respond, budget, method, path, body)
        finally:
            BUDGET.reset(token)

    def _respond(self, budget: Budget, method: str, path: str, body: Any) -> dict[str, Any]:
        connecting, where = min(self._connection.timeout[0], budget.left()), budget.where
        options = {"json": body, "auth": self._connection.login, "allow_redirects": False, "stream": True}
        try:
            timeout = (connecting, budget.left())
            with self._open().request(method, budget.where, timeout=timeout, **options) as response:
                content = _read(response, budget) if self._given is None else _read_given(response, budget)
        except requests.Timeout as error:
            raise budget.timeout(connecting if isinstance(error, requests.ConnectTimeout) else None) from error
        except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:
            kind = "the proxy" if isinstance(error, requests.exceptions.ProxyError) else "TLS"
            raise ServerUnreachableError(f"{where}: {kind} failed ({_plain(str(error), 200)})") from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            if budget.over:
                raise budget.timeout() from error
            if isinstance(error, requests.ConnectionError):
                raise _Unreachable(f"{where}: no server answers; start one with: emotion-ai serve") from error
            raise _Unreachable(f"{where}: the connection broke before the response was complete") from error
        except requests.RequestException as error:
            raise ServerFailureError(f"{where}: the request failed ({_plain(str(error), 200)})") from error
        return _parsed(where, response, content)


def _read(response: requests.Response, budget: Budget) -> bytes:
    parts, size = [], 0
    for part in response.iter_content(2**16):
        size += len(part)
        budget.check(size)
        parts.append(part)
    return b"".join(parts)


def _read_given(response: requests.Response, budget: Budget) -> bytes:
    """`_read` of a session with other adapters than ours."""
    timer = threading.Timer(budget.left(), response.raw.shutdown)
    timer.start()
    try:
        content = _read(response, budget)
    finally:
        timer.cancel()
    budget.left()
    return content


def _new_session(connection: Connection) -> requests.Session:
    session = requests.Session()
    session.trust_env = not connection.local  # proxy settings do not apply to the machine itself
    for scheme in ("http://", "https://"):
        session.mount(scheme, BoundedAdapter())
    return session


class _Unreachable(ServerUnreachableError):
    """Worth another attempt."""


class _Busy(ServerUnavailableError):
    """Worth another attempt: predictions change nothing on the server, so POST may be repeated."""


def _parsed(where: str, response: requests.Response, content: bytes) -> dict[str, Any]:
    """The object in a response.

    Raises:
        ClientError: another status than 200, or no JSON object.
    """
    status = response.status_code
    if 300 <= status < 400:
        target = _plain(response.headers.get("location", "nowhere"), 200)
        raise ServerFailureError(f"{where}: {status}, redirects to {target}; redirects are not followed")
    unavailable = {502: ServerUnavailableError, 503: _Busy, 504: ServerUnavailableError}.get(status)
    try:
        # error texts quote requests, and may cut a character
        text = content.decode("utf-8", "strict" if status == 200 else "replace")
        parsed = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if unavailable:
            raise unavailable(f"{where}: {status} {_plain(response.reason or '', 200)}; try again later") from error
        reason = "with JSON that is nested too deeply" if isinstance(error, RecursionError) else "without JSON"
        if isinstance(error, _RepeatedKeyError):
            reason = f"with JSON in which {error}"
        raise ServerFailureError(f"{where}: returned {status} {reason}; is this TensorFlow Serving?") from error
    if status == 200 and isinstance(parsed, dict):
        return parsed
    error_text = parsed.get("error") if isinstance(parsed, dict) else None
    text = _plain(error_text if isinstance(error_text, str) else text, 2000)
    message = f"{where}: {status}, {text}"
    # the server returns 400 for an unknown label, 404 for an unknown version
    if status == 404 or text.startswith("Unrecognized servable version label"):
        raise ModelNotFoundError(message)
    if 400 <= status < 500:
        raise RequestRejectedError(message)
    raise unavailable(message) if unavailable else ServerFailureError(message)


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedKeyError("a key occurs twice")
    return found


def _plain(text: str, length: int) -> str:
    """A server's text on one line, without control characters, cut to a length."""
    text = " ".join(text[: 2 * length].split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)[:length]
