"""TensorFlow Serving's REST API; its errors become ours."""

import base64
from typing import Any, Self

import numpy as np
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError
from urllib3.util.retry import Retry

from emotion_ai.client.transport import Connection, Inputs
from emotion_ai.errors import (
    ModelNotFoundError,
    RequestRejectedError,
    ServerFailureError,
    ServerTimeoutError,
    ServerUnavailableError,
    ServerUnreachableError,
)

_UNAVAILABLE = (502, 503, 504)


class RestTransport:
    """A `Transport` over kept-alive HTTP connections."""

    def __init__(self, connection: Connection, session: requests.Session | None = None) -> None:
        self._connection = connection
        self._path = self._model_path = f"/v1/models/{connection.model}"
        if connection.version is not None:
            self._path += f"/versions/{connection.version}"
        elif connection.label is not None:
            self._path += f"/labels/{connection.label}"
        self._owned = session is None
        self._session = session or requests.Session()
        if session is None:
            self._session.trust_env = not connection.local  # proxy settings do not apply to the machine itself
            for scheme in ("http://", "https://"):
                self._session.mount(scheme, HTTPAdapter(max_retries=_retry(connection.retries)))

    def close(self) -> None:
        """Closes the connections, unless the session was given."""
        if self._owned:
            self._session.close()

    def predict(self, signature: str, inputs: Inputs, outputs: tuple[str, ...]) -> dict[str, Any]:
        """The outputs by name, as lists; the server returns one output as bare values, several as objects."""
        if isinstance(inputs, list):
            instances: list[Any] = [{"b64": base64.b64encode(file).decode()} for file in inputs]
        else:
            whole = np.rint(inputs)  # written as 77, which is shorter than 77.0
            instances = (whole.astype(int) if np.array_equal(whole, inputs) else inputs).tolist()
        body = {"signature_name": signature, "instances": instances}
        rows = self._request("POST", f"{self._path}:predict", body).get("predictions")
        url, model = self._connection.url, self._connection.model
        if not isinstance(rows, list) or len(rows) != len(instances):
            got = len(rows) if isinstance(rows, list) else "no"
            raise ServerFailureError(f"{url}: {got} predictions for {len(instances)} instances")
        rows = [row if isinstance(row, dict) else {outputs[0]: row} for row in rows]
        try:
            return {name: [row[name] for row in rows] for name in outputs}
        except KeyError as error:
            names = " and ".join(outputs)
            raise ServerFailureError(f"{url}: the response of {model} lacks {names} ({error!r})") from error

    def metadata(self) -> dict[str, Any]:
        """The served version's number and signatures."""
        return self._request("GET", f"{self._path}/metadata")

    def status(self) -> Any:
        """The state of each version."""
        return self._request("GET", self._model_path).get("model_version_status")

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        where, timeout = self._connection.url + path, self._connection.timeout
        try:
            response = self._session.request(
                method, where, json=body, timeout=timeout, auth=self._connection.login, allow_redirects=False
            )
        except requests.Timeout as error:
            seconds = timeout[0 if isinstance(error, requests.ConnectTimeout) else 1]
            raise ServerTimeoutError(f"{where}: no answer within {seconds:g} s; is the server overloaded?") from error
        except requests.ConnectionError as error:
            raise ServerUnreachableError(f"{where}: no server answers; start one with: emotion-ai serve") from error
        except requests.RequestException as error:
            raise ServerFailureError(f"{where}: the request failed ({error})") from error
        try:
            content = response.json()
        except ValueError as error:
            if response.status_code in _UNAVAILABLE:
                raise ServerUnavailableError(f"{where}: {response.status_code}; try again later") from error
            message = f"{where}: returned {response.status_code} without JSON; is this TensorFlow Serving?"
            raise ServerFailureError(message) from error
        if response.status_code == 200 and isinstance(content, dict):
            return content
        text = str(content.get("error", content) if isinstance(content, dict) else content)
        message = f"{where}: {response.status_code}, {text}"
        # the server returns 400 for an unknown label, 404 for an unknown version
        if response.status_code == 404 or text.startswith("Unrecognized servable version label"):
            raise ModelNotFoundError(message)
        if 400 <= response.status_code < 500:
            raise RequestRejectedError(message)
        raise (ServerUnavailableError if response.status_code in _UNAVAILABLE else ServerFailureError)(message)


class _Retry(Retry):
    def increment(self, *args: Any, **kwargs: Any) -> Self:
        error = kwargs.get("error")
        if isinstance(error, ReadTimeoutError):  # a retry makes a slow server slower
            raise error
        return super().increment(*args, **kwargs)


def _retry(times: int) -> Retry:
    """Predictions change nothing on the server, so POST may be repeated."""
    return _Retry(times, status_forcelist=[503], allowed_methods=None, backoff_factor=0.2, raise_on_status=False)
