"""TensorFlow Serving's REST API; its errors become ours."""

import base64
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import BadStatusLine, RemoteDisconnected
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import requests

from emotion_ai.client import failures, probe
from emotion_ai.client.address import without_login
from emotion_ai.client.bounded import BUDGET, Budget
from emotion_ai.client.certificates import own_files, trust_context, trusted_file
from emotion_ai.client.failures import TransientError, plain
from emotion_ai.client.proxies import proxy_failure, proxy_of
from emotion_ai.client.retrying import seconds_to_wait, with_retries
from emotion_ai.client.sessions import Sessions
from emotion_ai.client.transport import Connection, Inputs, Prediction
from emotion_ai.errors import ClientError, ConfigError, ConnectionSettingsError, ServerFailureError

MAX_RESPONSE, MAX_RESPONSE_PER_FACE = 4 * 2**20, 2**14
"""Bytes of a response, decompressed; a face's numbers take 2 kB."""


_PLAIN_ON_TLS = re.compile(r"\b(HTTPS|SSL-enabled) (server|port)", re.IGNORECASE)
_NO_CERTIFICATE = "SSL certificate"  # nginx: "No required SSL certificate was sent", "The SSL certificate error"


class RestTransport:
    """A `Transport` over kept-alive HTTP connections."""

    def __init__(self, connection: Connection, session: requests.Session | None = None) -> None:
        self._connection = connection
        self._path = self._model_path = f"/v1/models/{quote(connection.model, safe='')}"
        if connection.version is not None:
            self._path += f"/versions/{connection.version}"
        elif connection.label is not None:
            self._path += f"/labels/{connection.label}"
        self._trusted = trusted_file(connection.ca_file) if connection.secure else None
        self._own = own_files(connection.cert)
        self._sessions = Sessions(connection, session)
        self._retries = connection.retries if session is None else 0
        self._options = _options(connection, self._trusted, given=session is not None)
        if self._own:
            self._options["cert"] = self._own

    def __reduce__(self) -> tuple[type["RestTransport"], tuple[Connection, requests.Session | None]]:
        return RestTransport, (self._connection, self._sessions.given)

    def close(self) -> None:
        """Closes the connections, unless the session was given."""
        self._sessions.close()

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

    def _request(self, method: str, path: str, body: Any = None, faces: int = 0) -> dict[str, Any]:
        """The JSON object of a response, within the time-out, retries included."""
        size = MAX_RESPONSE + faces * MAX_RESPONSE_PER_FACE
        budget = Budget(self._connection.url + path, self._connection.timeout[1], size)
        token = BUDGET.set(budget)
        try:
            with budget.aborting(budget.abort):
                return with_retries(lambda: self._respond(budget, method, body), self._retries, budget)
        except TransientError as failed:
            if self._sessions.given is not None:
                raise failed.error from failed
            trust = trust_context(self._trusted, self._own)
            raise probe.explained(failed, self._connection, budget.where, trust) from failed
        finally:
            BUDGET.reset(token)

    def _respond(self, budget: Budget, method: str, body: Any) -> dict[str, Any]:
        timeout = min(self._connection.timeout[0], budget.left()), budget.left()
        with (
            self._errors(budget, timeout[0]),
            self._sessions.borrow(budget) as session,
            session.request(method, budget.where, json=body, timeout=timeout, **self._options) as response,
        ):
            content = _read(response, budget) if self._sessions.given is None else _read_given(response, budget)
        return _parsed(budget.where, response, content)

    @contextmanager
    def _errors(self, budget: Budget, connecting: float) -> Iterator[None]:
        """Errors of requests in the block become ours."""
        where = budget.where
        try:
            yield
        except requests.Timeout as error:
            budget.check_cancelled()
            if budget.socket is not None:
                raise budget.timeout() from error
            raise TransientError(budget.timeout(connecting), unexplained=True) from error  # nothing was sent yet
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            budget.check_cancelled()
            if budget.over:
                raise budget.timeout() from error
            cause: BaseException | str = _root(error)
            if isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected):
                cause = "the response is not HTTP"
            proxy = proxy_of(self._connection)
            if isinstance(error, requests.exceptions.ProxyError) or (proxy and cause == "the response is not HTTP"):
                raise proxy_failure(where, proxy, cause) from error
            if isinstance(error, requests.exceptions.SSLError) or isinstance(cause, ssl.SSLError):
                raise failures.tls_failure(where, str(cause)) from error
            raise failures.no_connection(where, str(cause)) from error
        except requests.exceptions.InvalidSchema as error:
            kind = plain(str(error), 200)
            raise ConfigError(f"{where}: the proxy cannot be used ({kind}); give one as http://HOST:PORT") from error
        except requests.exceptions.InvalidURL:  # its text has parts of a malformed password
            raise ConfigError(f"{where}: the proxy's address is malformed; write it as http://HOST:PORT") from None
        except requests.exceptions.ContentDecodingError as error:
            message = "the response cannot be decompressed; is a proxy before the server broken?"
            raise ServerFailureError(f"{where}: {message}") from error
        except requests.RequestException as error:
            raise ServerFailureError(f"{where}: the request failed ({plain(str(error), 200)})") from error
        except ValueError:  # from the target of a redirect, which may hold a password
            message = "redirects to a malformed address; is this TensorFlow Serving?"
            raise ServerFailureError(f"{where}: the response {message}") from None


def _options(connection: Connection, trusted: str | None, given: bool) -> dict[str, Any]:
    """Arguments of each request; they win over the settings of a session and over the environment."""
    headers = dict(connection.headers or {})
    options: dict[str, Any] = {"headers": headers, "allow_redirects": False, "stream": True}
    if connection.login is not None:
        options["auth"] = connection.login
    elif any(name.lower() == "authorization" for name in headers):
        options["auth"] = lambda request: request  # keeps .netrc from replacing the header
    if connection.proxy is not None:
        proxy = proxy_of(connection)
        options["proxies"] = {"http": proxy, "https": proxy}
    if trusted is not None and not (given and connection.ca_file is None):
        options["verify"] = trusted
    return options


def _root(error: BaseException) -> BaseException:
    """What an error of requests or urllib3 goes back to."""
    for inner in (getattr(error, "reason", None), *error.args, error.__cause__, error.__context__):
        if isinstance(inner, Exception):
            return _root(inner)
    return error


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


def _parsed(where: str, response: requests.Response, content: bytes) -> dict[str, Any]:
    """The object in a response.

    Raises:
        ClientError: another status than 200, or no JSON object.
        TransientError: the server is overloaded, or a proxy does not reach it.
    """
    status = response.status_code
    if 300 <= status < 400:
        raise _redirected(where, status, response.headers.get("location", ""))
    text, foreign = "", "without JSON"
    problem: Exception | None = None
    try:
        # error texts quote requests, and may cut a character
        text = content.decode("utf-8", "strict" if status == 200 else "replace")
        parsed = json.loads(text, object_pairs_hook=_unique)
    except _RepeatedKeyError as error:
        foreign, problem = f"with JSON in which {error}", error
    except RecursionError as error:
        foreign, problem = "with JSON that is nested too deeply", error
    except ValueError as error:
        problem = error
    else:
        if status == 200 and isinstance(parsed, dict):
            return parsed
        said = parsed.get("error") if isinstance(parsed, dict) else None
        if status != 200 and isinstance(said, str):
            raise failures.failure(where, status, str(status), plain(said, 2000), retry_after=_retry_after(response))
        foreign = "with other JSON"
    if status == 400 and _PLAIN_ON_TLS.search(text):
        raise ConnectionSettingsError(f"{where}: this port speaks TLS; write https:// instead of http://")
    if status == 400 and _NO_CERTIFICATE in text and (wanted := failures.wants_certificate(where, _NO_CERTIFICATE)):
        raise wanted
    reason = f"{status} {plain(response.reason or '', 200)}".strip()
    raise failures.failure(where, status, reason, foreign=foreign, retry_after=_retry_after(response)) from problem


def _retry_after(response: requests.Response) -> float:
    return seconds_to_wait(response.headers.get("retry-after"))


def _redirected(where: str, status: int, location: str) -> ClientError:
    """The error of a redirect; login, query and fragment of its target may be secret."""
    target, here = plain(re.split("[?#]", without_login(location))[0], 200) or "nowhere", urlsplit(where)
    secure = rf"https://{re.escape(here.netloc.rpartition('@')[2].removesuffix(f':{here.port}'))}(:\d+)?(/.*)?"
    if here.scheme == "http" and re.fullmatch(secure, target, re.IGNORECASE):
        return ConnectionSettingsError(f"{where}: {status}, redirects to {target}; write https:// instead of http://")
    advice = "redirects are not followed, so give the server's own address; is a login page before it?"
    return ServerFailureError(f"{where}: {status}, redirects to {target}; {advice}")


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedKeyError("a key occurs twice")
    return found
