"""`FaceClient`: reads faces with a served model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import requests
from numpy.typing import NDArray

from emotion_ai.client.calls import Call, CallObserver, observed
from emotion_ai.client.checks import SHAPES, check_inputs, check_metadata, check_output, check_status
from emotion_ai.client.request_limits import split
from emotion_ai.client.rest import RestTransport
from emotion_ai.client.signatures import SignatureChooser, check_signature
from emotion_ai.client.transport import Connection, Inputs, Transport
from emotion_ai.contract import (
    BYTES_INPUT,
    DEVIATIONS,
    EXPRESSIONS,
    FULL_SIGNATURE,
    INPUTS,
    MAX_CROP_PIXELS,
    MAX_CROP_SIDE,
    UNCERTAIN_BELOW,
    Servable,
    outputs,
)
from emotion_ai.errors import ClientError, ConfigError
from emotion_ai.inference.pipeline import read_photo
from emotion_ai.inference.results import CropReadings, Crops, FaceReading, check_crops, check_threshold
from emotion_ai.vision.crops import resize_to_crop, shrink
from emotion_ai.vision.photo import Photo, Source, encode_png

if TYPE_CHECKING:
    from emotion_ai.inference.answer_log import AnswerLog

BATCH = 32

Outputs = dict[str, NDArray[np.float32]]
"""Outputs by name, one row per input."""


class FaceClient:
    """Reads faces with a served model.

    A context manager; connections are kept alive until `close`.

    Args:
        url: http(s)://HOST:PORT of the REST API, or grpc(s)://HOST:PORT, which needs the extra [grpc].
        model: "face", "keypoints" or "emotion".
        version: a version's number; without it the server's newest version is used.
        label: a version's label, such as "stable", instead of its number.
        signature: by default the fullest that the version has: "serving_full", otherwise "serving_uncertainty" or
            "serving_bytes". These send PNG files, "serving_default" sends pixels.
        timeout: seconds to connect, and for a whole request with its retries, as one number or a pair.
        retries: attempts after a failed or broken connection or a 503 (UNAVAILABLE), after 0.2, 0.4, ... at most 2
            seconds, whatever the server's Retry-After says; time-outs and rejected requests are not retried.
        uncertain_below: confidence below which an emotion counts as uncertain, 0 for none; by default the threshold
            of the version that answers, or none from a version without "serving_full".
        session: used for REST requests as it is, without our retries; `close` leaves it open. Its adapters decide how
            long a server may take for the headers of a response.
        log: a folder to which a row per face is appended, as Parquet files, or an `AnswerLog`; needs the extra
            [record]. A folder is closed with the client, a log stays open.

    Raises:
        ConfigError: an argument is invalid, or two contradict each other.
        MissingExtraError: gRPC without the extra [grpc].
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8501",
        *,
        model: Servable = "face",
        version: int | None = None,
        label: str | None = None,
        signature: str | None = None,
        timeout: float | tuple[float, float] = (3.05, 30.0),
        retries: int = 2,
        uncertain_below: float | None = None,
        session: requests.Session | None = None,
        log: "AnswerLog | str | os.PathLike[str] | None" = None,
    ) -> None:
        pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self.connection = Connection(url, model, version, label, pair, retries)
        if signature is not None:
            check_signature(model, signature)
        self.signature = signature
        self.uncertain_below = None if uncertain_below is None else check_threshold(uncertain_below)
        self._chooser: SignatureChooser[Outputs] = SignatureChooser(model, fixed=version is not None)
        self._transport = _transport(self.connection, session)
        self._observers: tuple[CallObserver, ...] = ()
        if log is not None:
            self._observers = (_call_log(log, self.connection, session),)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()
        for observer in self._observers:
            observer.close()

    def read_crops(self, images: Crops) -> CropReadings:
        """Keypoints and probabilities of crops, of any size, in their order.

        Crops are sent without loss, at most 32 in a request; those of more than 4 megapixels are shrunk to that.

        Raises:
            ImageError: a crop is not gray, uint8 (H, W).
            ClientError: the request fails, or the response breaks the contract.
        """
        with observed(self._observers, self.connection, "read_crops", images) as call:
            call.result = self._read_crops(images, call)
        return call.result

    def _read_crops(self, images: Crops, call: Call) -> CropReadings:
        images = check_crops(images)
        parts: list[Outputs] = []
        for start in range(0, len(images), BATCH):
            crops = images[start : start + BATCH]
            if self.signature is None or INPUTS[self.signature] == BYTES_INPUT:
                parts += self._requests(
                    [encode_png(shrink(crop, MAX_CROP_PIXELS, MAX_CROP_SIDE)) for crop in crops], self.signature, call
                )
            else:
                pixels = np.stack([resize_to_crop(crop) for crop in crops])[..., None]
                parts += self._requests(pixels, self.signature, call)
        found, count = _joined(parts), len(images)
        thresholds = [part.get(UNCERTAIN_BELOW, np.full(_length(part), np.nan, np.float32)) for part in parts]
        if self.uncertain_below is not None:
            thresholds = [np.full(count, self.uncertain_below, np.float32)]
        return CropReadings(
            found.get("keypoints", np.full((count, *SHAPES["keypoints"]), np.nan, np.float32)),
            found.get("probabilities", np.full((count, *SHAPES["probabilities"]), np.nan, np.float32)),
            found.get(DEVIATIONS),
            found.get(EXPRESSIONS),
            np.concatenate([np.zeros(0, np.float32), *thresholds]),
        )

    def read(self, photo: Source | Photo) -> list[FaceReading]:
        """Detects and reads the faces of a photo, from left to right.

        Raises:
            ImageError: the photo cannot be decoded.
            NoFaceError: it shows no face.
            ClientError: the request fails, or the response breaks the contract.
        """
        with observed(self._observers, self.connection, "read", photo) as call:
            call.result = read_photo(photo, _PartOfCall(self, call))
        return call.result

    def predict(
        self, inputs: Sequence[bytes] | NDArray[np.float32], signature: str | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """The model's outputs by name, float32, one row per input.

        More inputs than one request may hold are sent in several.

        Args:
            inputs: crops (N, 96, 96, 1), 0-255, for "serving_default"; PNG or JPEG files for the other signatures.
            signature: replaces the client's.

        Raises:
            ImageError: the inputs are neither, or a file has more than 4 megapixels.
            ClientError: a request fails, or a response breaks the contract.
        """
        signature = signature or self.signature
        if signature is not None:
            check_signature(self.connection.model, signature)
        with observed(self._observers, self.connection, "predict", inputs) as call:
            checked = check_inputs(signature or FULL_SIGNATURE, inputs)
            call.result = _joined(self._requests(checked, signature, call))
        return call.result

    def _requests(self, inputs: Inputs, signature: str | None, call: Call) -> list[Outputs]:
        """The outputs of as many requests as the inputs need."""
        if signature is not None:
            return [self._predict(values, call, signature) for values in split(inputs)]
        return [self._chooser.request(partial(self._predict, values, call)) for values in split(inputs)]

    def _predict(self, inputs: Inputs, call: Call, signature: str) -> Outputs:
        names = outputs(self.connection.model, signature)
        with call.request(signature, len(inputs)) as versions:
            response = self._transport.predict(signature, inputs, names)
            versions.append(response.version)
            found = response.outputs
            return {name: check_output(name, found.get(name), len(inputs), self.connection) for name in names}

    def metadata(self) -> dict[str, Any]:
        """The served version's number and signatures, as TensorFlow Serving describes them in JSON.

        Raises:
            ClientError: the request fails, or the server does not serve the model.
        """
        return check_metadata(self._transport.metadata(), self.connection)

    def status(self) -> list[dict[str, Any]]:
        """The server's record of each version it has loaded or tried to: `version`, `state`, and `status`.

        Raises:
            ClientError: the request fails, or the server has no such model.
        """
        return check_status(self._transport.status(), self.connection)

    def versions(self) -> dict[int, str]:
        """The state of each version on the server, such as {2: "AVAILABLE", 1: "END"}.

        Raises:
            ClientError: as `status`.
        """
        return {int(entry["version"]): entry["state"] for entry in self.status()}

    def ready(self) -> bool:
        """Whether the client's version, or any version without one, is AVAILABLE."""
        try:
            versions = self.versions()  # the status path returns 200 in every state
        except ClientError:
            return False
        version = self.connection.version
        return "AVAILABLE" in (versions.values() if version is None else [versions.get(version)])


@dataclass(frozen=True)
class _PartOfCall:
    """Reads crops as a part of a call of `read`."""

    client: FaceClient
    call: Call

    def read_crops(self, images: Crops) -> CropReadings:
        return self.client._read_crops(images, self.call)


def _transport(connection: Connection, session: requests.Session | None) -> Transport:
    if not connection.scheme.startswith("grpc"):
        return RestTransport(connection, session)
    if session is not None:
        raise ConfigError(f"`session` is for REST, but {connection.url} uses gRPC; leave it out")
    from emotion_ai.client.rpc import GrpcTransport

    return GrpcTransport(connection)


def _call_log(
    log: "AnswerLog | str | os.PathLike[str]", connection: Connection, session: requests.Session | None
) -> CallObserver:
    from emotion_ai.client.call_log import CallLog  # imports pyarrow

    return CallLog(log, connection, partial(_transport, session=session))


def _length(part: Outputs) -> int:
    return len(next(iter(part.values())))


def _joined(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of several requests, in order; without those that one of them lacks, if the version changed."""
    names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
