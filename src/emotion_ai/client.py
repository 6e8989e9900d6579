"""Asking TensorFlow Serving over REST; needs neither TensorFlow nor PyTorch."""

import base64
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import requests
from numpy.typing import NDArray
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError
from urllib3.util.retry import Retry

from emotion_ai.contract import BYTES_SIGNATURE, EMOTIONS, IMAGES_SIGNATURE, KEYPOINTS, OUTPUTS, SERVABLES, Servable
from emotion_ai.errors import (
    ClientError,
    ConfigError,
    ImageError,
    ModelNotFoundError,
    RequestRejectedError,
    ServerFailureError,
    ServerTimeoutError,
    ServerUnreachableError,
)
from emotion_ai.framing import to_frame
from emotion_ai.photo import Source
from emotion_ai.png import encode_png
from emotion_ai.readings import CropReadings, Crops, FaceReading, read_photo

BATCH = 32
_SHAPES = {"keypoints": (len(KEYPOINTS), 2), "probabilities": (len(EMOTIONS),)}


class FaceClient:
    """Reads faces with a served model; a context manager, with kept-alive connections.

    Args:
        url: of the REST API, such as http://127.0.0.1:8501.
        model: "face", "keypoints" or "emotion".
        version: a version's number; the server's newest without it.
        label: instead of a version, a label such as "stable".
        signature: "serving_bytes" sends PNG, "serving_default" pixels as JSON.
        timeout: seconds to connect, and between bytes of an answer.
        retries: after a failed connection or a 503, never after a time-out or a rejected request.
        session: to be used as it is, without retries of ours; the caller closes it.

    Raises:
        ConfigError: settings that contradict each other or cannot be meant.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8501",
        *,
        model: Servable = "face",
        version: int | None = None,
        label: str | None = None,
        signature: str = BYTES_SIGNATURE,
        timeout: tuple[float, float] = (3.05, 30.0),
        retries: int = 2,
        session: requests.Session | None = None,
    ) -> None:
        host = _host(url)
        if model not in SERVABLES:
            raise ConfigError(f"model={model!r}: choose one of {', '.join(SERVABLES)}")
        if version is not None and label is not None:
            raise ConfigError(f"version={version} and label={label!r} contradict each other; give one of them")
        if label is not None and not re.fullmatch(r"[A-Za-z0-9_]+", label):
            raise ConfigError(f"label={label!r}: a label has letters, digits and _ only")
        if signature not in (BYTES_SIGNATURE, IMAGES_SIGNATURE):
            raise ConfigError(f"signature={signature!r}: choose {BYTES_SIGNATURE} or {IMAGES_SIGNATURE}")
        choice = f"/versions/{version}" if version is not None else f"/labels/{label}" if label is not None else ""
        self.url, self.model, self.version, self.signature = url.rstrip("/"), model, version, signature
        self.timeout = timeout
        self._path = f"/v1/models/{model}{choice}"
        self._owned = session is None
        self._session = session or requests.Session()
        if session is None:
            # a machine's proxy settings are not meant for a server on the machine itself
            self._session.trust_env = host not in ("127.0.0.1", "localhost", "::1")
            for scheme in ("http://", "https://"):
                self._session.mount(scheme, HTTPAdapter(max_retries=_retry(retries)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        if self._owned:
            self._session.close()

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints and probabilities of faces that are already cropped, of any size; order is kept.

        They travel without loss, at most 32 in a request.

        Raises:
            ImageError: a crop that is not uint8 (H, W).
            ClientError: the server cannot be asked, or does not answer as the contract says.
        """
        found = {name: np.full((len(images), *shape), np.nan, np.float32) for name, shape in _SHAPES.items()}
        for start in range(0, len(images), BATCH):
            instances = [self._instance(start + i, image) for i, image in enumerate(images[start : start + BATCH])]
            for name, values in self._outputs(self.predict(instances)).items():
                found[name][start : start + BATCH] = values
        return CropReadings(found["keypoints"], found["probabilities"])

    def read(self, photo: Source) -> list[FaceReading]:
        """The faces of a photograph, from left to right.

        Raises:
            ImageError: the picture cannot be read.
            NoFaceError: it shows no face.
            ClientError: the server cannot be asked, or does not answer as the contract says.
        """
        return read_photo(photo, self.read_crops)

    def predict(self, instances: Sequence[Any], signature: str | None = None) -> list[Any]:
        """The server's `predictions` for JSON `instances` in row form, as they come; as many as instances.

        Raises:
            ClientError: the server cannot be asked, or its answer has not that many predictions.
        """
        body = {"signature_name": signature or self.signature, "instances": list(instances)}
        predictions = self._ask("POST", f"{self._path}:predict", body).get("predictions")
        if not isinstance(predictions, list) or len(predictions) != len(instances):
            got = len(predictions) if isinstance(predictions, list) else "no"
            raise ServerFailureError(f"{self.url}: {got} predictions for {len(instances)} instances")
        return predictions

    def metadata(self) -> dict[str, Any]:
        """The served version's signatures, as TensorFlow Serving describes them.

        Raises:
            ClientError: the server cannot be asked, or does not serve the model.
        """
        return self._ask("GET", f"{self._path}/metadata")

    def status(self) -> list[dict[str, Any]]:
        """What the server says of every version it has seen: `version`, `state`, and a `status` with its error.

        Raises:
            ClientError: the server cannot be asked, or has not seen the model.
        """
        status = self._ask("GET", f"/v1/models/{self.model}").get("model_version_status")
        if not isinstance(status, list):
            raise ServerFailureError(f"{self.url}: the answer has no model_version_status; is this TensorFlow Serving?")
        return status

    def versions(self) -> dict[int, str]:
        """State of each version that the server has seen, such as {2: "AVAILABLE", 1: "END"}.

        Raises:
            ClientError: as `status`.
        """
        try:
            return {int(entry["version"]): str(entry["state"]) for entry in self.status()}
        except (KeyError, TypeError, ValueError) as error:
            raise ServerFailureError(f"{self.url}: the status is not TensorFlow Serving's ({error!r})") from error

    def ready(self) -> bool:
        """Whether the asked version, or any, is AVAILABLE: the status path answers 200 in every state."""
        try:
            versions = self.versions()
        except ClientError:
            return False
        states = versions.values() if self.version is None else [versions.get(self.version)]
        return "AVAILABLE" in states

    def _instance(self, position: int, image: NDArray[np.uint8]) -> Any:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 2 or not image.size:
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ImageError(f"crop {position}: is {got}; wanted is uint8 (H, W), gray")
        if self.signature == BYTES_SIGNATURE:
            return {"b64": base64.b64encode(encode_png(image)).decode()}
        return to_frame(image)[..., None].tolist()

    def _outputs(self, predictions: list[Any]) -> dict[str, NDArray[np.float32]]:
        names = OUTPUTS[self.model]
        try:
            rows = [row if isinstance(row, dict) else {names[0]: row} for row in predictions]
            values = {name: np.array([row[name] for row in rows], np.float32) for name in names}
        except (KeyError, TypeError, ValueError) as error:
            wanted = " and ".join(names)
            raise ServerFailureError(f"{self.url}: {self.model} does not answer {wanted} ({error!r})") from error
        for name, value in values.items():
            shape = (len(predictions), *_SHAPES[name])
            if value.shape != shape:
                raise ServerFailureError(f"{self.url}: {name} came as {value.shape}; wanted is {shape}")
            if not np.isfinite(value).all():
                raise ServerFailureError(f"{self.url}: {name} holds numbers that are not finite; the model is broken")
        return values

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        where = self.url + path
        try:
            response = self._session.request(method, where, json=body, timeout=self.timeout, allow_redirects=False)
        except requests.Timeout as error:
            seconds = self.timeout[0 if isinstance(error, requests.ConnectTimeout) else 1]
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


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1:
            raise ValueError("no http address")
    except ValueError as error:
        raise ConfigError(f"server {url!r}: write it as http://HOST:PORT, such as http://127.0.0.1:8501") from error
    return parts.hostname
