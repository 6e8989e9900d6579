"""Asking TensorFlow Serving over REST or gRPC; needs neither TensorFlow nor PyTorch."""

import re
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np
import requests
from numpy.typing import NDArray

from emotion_ai.client.rest import RestTransport
from emotion_ai.contract import (
    BYTES_INPUT,
    BYTES_SIGNATURE,
    DEVIATIONS,
    EMOTIONS,
    INPUTS,
    KEYPOINTS,
    SERVABLES,
    Servable,
    outputs,
)
from emotion_ai.errors import ClientError, ConfigError, ImageError, ServerFailureError
from emotion_ai.inference.pipeline import read_photo
from emotion_ai.inference.results import CropReadings, Crops, FaceReading, check_threshold
from emotion_ai.vision.crops import resize_to_crop
from emotion_ai.vision.photo import Photo, Source, encode_png

if TYPE_CHECKING:
    from emotion_ai.client.rpc import GrpcTransport

BATCH = 32
_SHAPES = {"keypoints": (len(KEYPOINTS), 2), DEVIATIONS: (len(KEYPOINTS), 2), "probabilities": (len(EMOTIONS),)}


class FaceClient:
    """Reads faces with a served model; a context manager, with kept-alive connections.

    Args:
        url: http://HOST:PORT of the REST API, or grpc://HOST:PORT (grpcs:// with TLS), which needs the extra [grpc].
        model: "face", "keypoints" or "emotion".
        version: a version's number; the server's newest without it.
        label: instead of a version, a label such as "stable".
        signature: "serving_bytes" sends PNG, "serving_default" pixels, "serving_uncertainty" PNG and is answered with
            the points' standard deviations as well.
        timeout: seconds to connect, and between bytes of an answer; over gRPC the second is the deadline.
        retries: after a failed connection or a 503 (UNAVAILABLE), never after a time-out or a rejected request.
        uncertain_below: confidence below which an emotion is called uncertain; the model card says which is worth what.
        session: of REST, to be used as it is, without retries of ours; the caller closes it.

    Raises:
        ConfigError: settings that contradict each other or cannot be meant.
        MissingExtraError: gRPC without its extra.
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
        uncertain_below: float = 0.0,
        session: requests.Session | None = None,
    ) -> None:
        scheme, host, address = _place(url)
        if model not in SERVABLES:
            raise ConfigError(f"model={model!r}: choose one of {', '.join(SERVABLES)}")
        if version is not None and label is not None:
            raise ConfigError(f"version={version} and label={label!r} contradict each other; give one of them")
        if label is not None and not re.fullmatch(r"[A-Za-z0-9_]+", label):
            raise ConfigError(f"label={label!r}: a label has letters, digits and _ only")
        _check_signature(model, signature)
        self.url, self.model, self.version, self.signature = url.rstrip("/"), model, version, signature
        self.uncertain_below = check_threshold(uncertain_below)
        local = host in ("127.0.0.1", "localhost", "::1")
        self._transport: RestTransport | GrpcTransport
        if scheme.startswith("grpc"):
            from emotion_ai.client import rpc

            if session is not None:
                raise ConfigError(f"session= is for REST; {url} is asked over gRPC")
            secure = scheme == "grpcs"
            self._transport = rpc.GrpcTransport(address, secure, local, model, version, label, timeout, retries)
        else:
            self._transport = RestTransport(self.url, local, model, version, label, timeout, retries, session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints and probabilities of faces that are already cropped, of any size; order is kept.

        They travel without loss, at most 32 in a request.

        Raises:
            ImageError: a crop that is not uint8 (H, W).
            ClientError: the server cannot be asked, or does not answer as the contract says.
        """
        found = {name: np.full((len(images), *shape), np.nan, np.float32) for name, shape in _SHAPES.items()}
        for start in range(0, len(images), BATCH):
            crops = [_checked(start + i, image) for i, image in enumerate(images[start : start + BATCH])]
            if INPUTS[self.signature] == BYTES_INPUT:
                answer = self.predict([encode_png(crop) for crop in crops])
            else:
                answer = self.predict(np.stack([resize_to_crop(crop) for crop in crops])[..., None])
            for name, values in answer.items():
                found[name][start : start + BATCH] = values
        deviations = found[DEVIATIONS] if DEVIATIONS in outputs(self.model, self.signature) else None
        return CropReadings(found["keypoints"], found["probabilities"], deviations)

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        """The faces of a photograph, from left to right.

        Raises:
            ImageError: the picture cannot be read.
            NoFaceError: it shows no face.
            ClientError: the server cannot be asked, or does not answer as the contract says.
        """
        return read_photo(photo, self, self.uncertain_below)

    def predict(
        self, inputs: Sequence[bytes] | NDArray[np.float32], signature: str | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """One request: the model's outputs by name, float32 with as many rows as inputs.

        Args:
            inputs: frames (N, 96, 96, 1), 0-255, for "serving_default", PNG or JPEG files for the other signatures.
            signature: instead of the client's own.

        Raises:
            ClientError: the server cannot be asked, or does not answer as the contract says.
        """
        signature = signature or self.signature
        _check_signature(self.model, signature)
        names = outputs(self.model, signature)
        values = list(inputs) if INPUTS[signature] == BYTES_INPUT else np.asarray(inputs, np.float32)
        answer = self._transport.predict(signature, values, names)
        found = {}
        for name in names:
            try:
                found[name] = np.array(answer[name], np.float32)
            except (KeyError, TypeError, ValueError) as error:
                raise ServerFailureError(f"{self.url}: {self.model} does not answer {name} ({error!r})") from error
            wanted = (len(values), *_SHAPES[name])
            if found[name].shape != wanted:
                raise ServerFailureError(f"{self.url}: {name} came as {found[name].shape}; wanted is {wanted}")
            if not np.isfinite(found[name]).all():
                raise ServerFailureError(f"{self.url}: {name} holds numbers that are not finite; the model is broken")
        return found

    def metadata(self) -> dict[str, Any]:
        """The served version's number and signatures, as TensorFlow Serving describes them in JSON.

        Raises:
            ClientError: the server cannot be asked, or does not serve the model.
        """
        return self._transport.metadata()

    def status(self) -> list[dict[str, Any]]:
        """What the server says of every version it has seen: `version`, `state`, and a `status` with its error.

        Raises:
            ClientError: the server cannot be asked, or has not seen the model.
        """
        status = self._transport.status()
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


def _checked(position: int, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 2 or not image.size:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"crop {position}: is {got}; wanted is uint8 (H, W), gray")
    return image


def _check_signature(model: Servable, signature: str) -> None:
    known = [name for name in INPUTS if outputs(model, name)]
    if signature not in known:
        raise ConfigError(f"signature={signature!r}: {model} has {', '.join(known)}; choose one")


def _place(url: str) -> tuple[str, str, str]:
    """Scheme, host, and HOST:PORT."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.hostname or (parts.port or 1) < 1:
            raise ValueError("no address of a server")
        if parts.scheme.startswith("grpc") and (parts.port is None or parts.path.strip("/")):
            raise ValueError("gRPC needs a port and takes no path")
    except ValueError as error:
        raise ConfigError(
            f"server {url!r}: write it as http://HOST:PORT or grpc://HOST:PORT, such as http://127.0.0.1:8501"
        ) from error
    return parts.scheme, parts.hostname, parts.netloc.rpartition("@")[2]
