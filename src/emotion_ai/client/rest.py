"""TensorFlow Serving's REST API as a way to ask; its errors as ours."""

import base64
from typing import Any, Self

import numpy as np
import requests
from numpy.typing import NDArray
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError
from urllib3.util.retry import Retry

from emotion_ai.errors import (
    ModelNotFoundError,
    RequestRejectedError,
    ServerFailureError,
    ServerTimeoutError,
    ServerUnreachableError,
)


class RestTransport:
    """Asks one model (a version, a label, or the newest) over kept-alive HTTP connections."""

    def __init__(
        self,
        url: str,
        local: bool,
        model: str,
        version: int | None,
        label: str | None,
        timeout: tuple[float, float],
        retries: int,
        session: requests.Session | None,
    ) -> None:
        choice = f"/versions/{version}" if version is not None else f"/labels/{label}" if label is not None else ""
        self.url, self._model, self._timeout = url, model, timeout
        self._path = f"/v1/models/{model}{choice}"
        self._owned = session is None
        self._session = session or requests.Session()
        if session is None:
            self._session.trust_env = not local  # a machine's proxy settings are not meant for the machine itself
            for scheme in ("http://", "https://"):
                self._session.mount(scheme, HTTPAdapter(max_retries=_retry(retries)))

    def close(self) -> None:
        if self._owned:
            self._session.close()

    def predict(self, signature: str, values: list[bytes] | NDArray[Any], outputs: tuple[str, ...]) -> dict[str, Any]:
        """The answer's values by output name, as lists: one output alone comes as bare values, several as objects."""
        if isinstance(values, list):
            instances: Any = [{"b64": base64.b64encode(value).decode()} for value in values]
        else:
            whole = np.rint(values)  # written as 77, which is shorter than 77.0
            instances = (whole.astype(int) if np.array_equal(whole, values) else values).tolist()
        answer = self._ask("POST", f"{self._path}:predict", {"signature_name": signature, "instances": instances})
        rows = answer.get("predictions")
        if not isinstance(rows, list) or len(rows) != len(instances):
            got = len(rows) if isinstance(rows, list) else "no"
            raise ServerFailureError(f"{self.url}: {got} predictions for {len(instances)} instances")
        rows = [row if isinstance(row, dict) else {outputs[0]: row} for row in rows]
        try:
            return {name: [row[name] for row in rows] for name in outputs}
        except KeyError as error:
            wanted = " and ".join(outputs)
            raise ServerFailureError(f"{self.url}: {self._model} does not answer {wanted} ({error!r})") from error

    def metadata(self) -> dict[str, Any]:
        return self._ask("GET", f"{self._path}/metadata")

    def status(self) -> Any:
        return self._ask("GET", f"/v1/models/{self._model}").get("model_version_status")

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        where = self.url + path
        try:
            response = self._session.request(method, where, json=body, timeout=self._timeout, allow_redirects=False)
        except requests.Timeout as error:
            seconds = self._timeout[0 if isinstance(error, requests.ConnectTimeout) else 1]
            raise ServerTimeoutError(f"{where}: no answer within {seconds:g} s; is the server overloaded?") from error
        except requests.ConnectionError as error:
            raise ServerUnreachableError(f"{where}: no server answers; start one with: emotion-ai serve") from error
        except requests.RequestException as error:
            raise ServerFailureError(f"{where}: cannot be asked ({error})") from error
        try:
            answer = response.json()
        except ValueError as error:
            message = f"{where}: answered {response.status_code} without JSON; is this TensorFlow Serving?"
            raise ServerFailureError(message) from error
        if response.status_code == 200 and isinstance(answer, dict):
            return answer
        text = str(answer.get("error", answer) if isinstance(answer, dict) else answer)
        message = f"{where}: {response.status_code}, {text}"
        # an unknown label is 400 to the server, unlike an unknown version
        if response.status_code == 404 or text.startswith("Unrecognized servable version label"):
            raise ModelNotFoundError(message)
        if 400 <= response.status_code < 500:
            raise RequestRejectedError(message)
        raise ServerFailureError(message)


class _Retry(Retry):
    def increment(self, *args: Any, **kwargs: Any) -> Self:
        error = kwargs.get("error")
        if isinstance(error, ReadTimeoutError):  # asking a slow server again makes it slower
            raise error
        return super().increment(*args, **kwargs)


def _retry(times: int) -> Retry:
    """Asking for a prediction changes nothing, so POST may be repeated."""
    return _Retry(times, status_forcelist=[503], allowed_methods=None, backoff_factor=0.2, raise_on_status=False)
