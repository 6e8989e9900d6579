"""`FaceClient`: reads faces with a served model."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import requests
from numpy.typing import NDArray

from emotion_ai.client.address import ClientCertificate, ServerAddress
from emotion_ai.client.answers import class_names, crop_readings, is_mixed, joined
from emotion_ai.client.calls import Call, CallObserver, observed
from emotion_ai.client.checks import Outputs, check_inputs, check_metadata, check_outputs, check_status
from emotion_ai.client.parallel import in_parallel
from emotion_ai.client.request_limits import split
from emotion_ai.client.rest import RestTransport
from emotion_ai.client.signatures import SignatureChooser, check_signature, is_unknown_signature
from emotion_ai.client.transport import Connection, Inputs, Transport
from emotion_ai.contract import (
    BYTES_INPUT,
    CLASSES_SIGNATURE,
    EMOTIONS,
    FULL_SIGNATURE,
    INPUTS,
    MAX_CROP_PIXELS,
    MAX_CROP_SIDE,
    SERVABLES,
    Servable,
    outputs,
)
from emotion_ai.errors import ClientError, ConfigError, RequestRejectedError, ServerFailureError
from emotion_ai.inference.pipeline import read_photo
from emotion_ai.inference.results import CropReadings, Crops, FaceReading, check_crops, check_threshold
from emotion_ai.vision.crops import resize_to_crop, shrink
from emotion_ai.vision.photo import Photo, Source, encode_png

if TYPE_CHECKING:
    from emotion_ai.inference.answer_log import AnswerLog

BATCH = 32

_ATTEMPTS = 3  # to read all crops of a call with the same classes


class FaceClient:
    """Reads faces with a served model.

    A context manager; connections are kept alive until `close`. Threads may share one client: each request has a
    connection of its own, and what is remembered of the server is the same for all of them. A forked process makes
    REST requests over connections of its own; for gRPC it needs a client of its own.

    Args:
        url: http(s)://HOST:PORT of the REST API, or grpc(s)://HOST:PORT, which needs the extra [grpc]; or a
            `ServerAddress`, which has `ca_file`, `headers`, `proxy` and `cert` as well.
        model: "face", "keypoints" or "emotion".
        version: a version's number; without it the server's newest version is used.
        label: a version's label, such as "stable", instead of its number.
        signature: by default the fullest that the version has: "serving_full", otherwise "serving_uncertainty" or
            "serving_bytes". These send PNG files, "serving_default" sends pixels.
        timeout: seconds to connect, and for a whole request with its retries, as one number or a pair.
        retries: further attempts of a request while the server is overloaded (429, 503, RESOURCE_EXHAUSTED,
            UNAVAILABLE), or while no connection can be made or it breaks. By default, until the time-out if the server
            is overloaded, and 2 if there is no connection. The waits are random, up to 0.2, 0.4, ... at most 2
            seconds, and at least as long as the server's Retry-After; time-outs and rejected requests are not retried.
        uncertain_below: confidence below which a class counts as uncertain, 0 for none; by default the thresholds of
            the version that answers, or none from a version without "serving_full".
        ca_file: PEM file with the certificates to trust; by default that of REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or
            SSL_CERT_FILE, otherwise the usual authorities.
        headers: sent with each request, such as {"Authorization": "Bearer ..."}; over gRPC as metadata.
        proxy: http://HOST:PORT, also with USER:PASSWORD@; by default that of the environment (HTTP_PROXY, HTTPS_PROXY
            and NO_PROXY; for gRPC grpc_proxy, https_proxy, http_proxy and no_proxy), which does not apply to servers
            on this machine.
        cert: PEM file with the client's own certificate and its key, or a pair of files, for a server that demands it.
        concurrency: requests at once, at most, of a call with many faces.
        session: used for REST requests as it is, one at a time and without our retries; `close` leaves it open. Its
            adapters decide how long a server may take for the headers of a response.
        log: a folder to which a row per face is appended, as Parquet files, or an `AnswerLog`; needs the extra
            [record]. A folder is closed with the client, a log stays open.

    Raises:
        ConfigError: an argument is invalid, or two contradict each other; also from the methods, once it is closed.
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
        retries: int | None = None,
        uncertain_below: float | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        cert: ClientCertificate | None = None,
        concurrency: int = 4,
        session: requests.Session | None = None,
        log: "AnswerLog | str | os.PathLike[str] | None" = None,
    ) -> None:
        pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        server = url if isinstance(url, ServerAddress) else ServerAddress(url, ca_file, headers, proxy, cert)
        if server is url and any(value is not None for value in (ca_file, headers, proxy, cert)):
            raise ConfigError(f"{url}: give `ca_file`, `headers`, `proxy` and `cert` in the ServerAddress")
        if model not in SERVABLES:
            raise ConfigError(f"`model` must be one of {', '.join(SERVABLES)}, got {model!r}")
        access = (server.ca_file, server.headers, server.proxy, server.cert)
        self.connection = Connection(server.url, model, version, label, pair, retries, *access)
        if concurrency < 1:
            raise ConfigError(f"`concurrency` must be >= 1, got {concurrency}")
        self.concurrency = concurrency
        if signature is not None:
            check_signature(model, signature)
        self.signature = signature
        self.uncertain_below = None if uncertain_below is None else check_threshold(uncertain_below)
        self._chooser: SignatureChooser[Outputs] = SignatureChooser(model, fixed=version is not None)
        self._transport = open_transport(self.connection, session)
        self._classes: tuple[str, ...] | None = None
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
        """Readings whose classes are those of the version that answered; again if a label moved in between."""
        images = check_crops(images)
        for _ in range(_ATTEMPTS):
            before = self._names_apart()
            parts = self._crop_outputs(images, call)
            if not is_mixed(parts) and before == (before and self._names_apart()):
                return crop_readings(parts, len(images), self.uncertain_below, before)
        raise ServerFailureError(
            f"{self.connection.url}: versions of {self.connection.model} with different classes answered in turn; give "
            "a version, or try again once the label stays"
        )

    def _names_apart(self) -> tuple[str, ...] | None:
        """The classes, if the client's signature does not name them itself."""
        named = self.signature in (None, FULL_SIGNATURE) or self.connection.model == "keypoints"
        return None if named else self.class_names()

    def _crop_outputs(self, images: list[NDArray[np.uint8]], call: Call) -> list[Outputs]:
        as_files = self.signature is None or INPUTS[self.signature] == BYTES_INPUT

        def read(crops: Sequence[NDArray[np.uint8]]) -> list[Outputs]:
            if as_files:
                files = [encode_png(shrink(crop, MAX_CROP_PIXELS, MAX_CROP_SIDE)) for crop in crops]
                return self._requests(files, self.signature, call, 1)
            pixels = np.stack([resize_to_crop(crop) for crop in crops])[..., None]
            return self._requests(pixels, self.signature, call, 1)

        batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return [part for batch in in_parallel(read, batches, self.concurrency) for part in batch]

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

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of `expressions`; the five emotions from a version that names none.

        Raises:
            ConfigError: the model has no classes.
            ClientError: the request fails, or the response breaks the contract.
        """
        if self.connection.model == "keypoints":
            raise ConfigError("the model 'keypoints' has no classes; use 'face' or 'emotion'")
        if self._classes is not None:
            return self._classes
        try:
            part = self._predict(np.zeros(1, np.int32), Call(), CLASSES_SIGNATURE)
            names = class_names(part) or EMOTIONS
        except RequestRejectedError as error:
            if not is_unknown_signature(CLASSES_SIGNATURE, error):
                raise
            names = EMOTIONS
        if self.connection.version is not None:  # a version's classes never change, a label's do
            self._classes = names
        return names

    def predict(self, inputs: Sequence[bytes] | NDArray[Any], signature: str | None = None) -> Outputs:
        """The model's outputs by name, one row per input: float32, and `classes` as texts.

        More inputs than one request may hold are sent in several.

        Args:
            inputs: crops (N, 96, 96, 1), 0-255, for "serving_default"; any integers (N,) for "serving_classes"; PNG or
                JPEG files for the other signatures.
            signature: replaces the client's.

        Raises:
            ImageError: the inputs are neither, or a file has more than 4 megapixels.
            ClientError: a request fails, or a response breaks the contract.
        """
        signature = signature or self.signature
        if signature is not None:
            check_signature(self.connection.model, signature, crops=False)
        with observed(self._observers, self.connection, "predict", inputs) as call:
            checked = check_inputs(signature or FULL_SIGNATURE, inputs)
            call.result = joined(self._requests(checked, signature, call, self.concurrency))
        return call.result

    def _requests(self, inputs: Inputs, signature: str | None, call: Call, threads: int) -> list[Outputs]:
        """The outputs of as many requests as the inputs need, in at most so many threads."""

        def send(values: Inputs) -> Outputs:
            if signature is not None:
                return self._predict(values, call, signature, True)
            return self._chooser.request(partial(self._predict, values, call))

        return in_parallel(send, list(split(inputs)), threads)

    def _predict(self, inputs: Inputs, call: Call, signature: str, any_classes: bool = False) -> Outputs:
        names = outputs(self.connection.model, signature)
        with call.request(signature, len(inputs)) as versions:
            response = self._transport.predict(signature, inputs, names)
            versions.append(response.version)
            return check_outputs(names, response.outputs, len(inputs), self.connection, any_classes)

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
        """Whether the client's version or label, or any version without them, can be called."""
        try:
            versions = self.versions()  # the status path returns 200 in every state, and knows no labels
            if self.connection.label is not None:
                self.metadata()
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


def open_transport(connection: Connection, session: requests.Session | None = None) -> Transport:
    """What sends the requests of a connection: REST, or gRPC with the extra [grpc]."""
    if not connection.grpc:
        return RestTransport(connection, session)
    if session is not None:
        raise ConfigError(f"`session` is for REST, but {connection.url} uses gRPC; leave it out")
    from emotion_ai.client.rpc import GrpcTransport

    return GrpcTransport(connection)


def _call_log(
    log: "AnswerLog | str | os.PathLike[str]", connection: Connection, session: requests.Session | None
) -> CallObserver:
    from emotion_ai.client.call_log import CallLog  # imports pyarrow

    return CallLog(log, connection, partial(open_transport, session=session))
