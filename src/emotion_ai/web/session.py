"""What the page computes, without a browser: faces detected, read by a server, and two versions compared."""

import threading
import time
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.client import FaceClient
from emotion_ai.contract import BYTES_SIGNATURE, FULL_SIGNATURE, KEYPOINTS, UNCERTAINTY_SIGNATURE
from emotion_ai.errors import ClientError, ModelNotFoundError, ServerFailureError
from emotion_ai.extras import optional_imports
from emotion_ai.inference.pipeline import DetectedFace, detect_faces, read_faces
from emotion_ai.inference.results import FaceReading
from emotion_ai.published import checkpoint_file
from emotion_ai.vision.crops import crop
from emotion_ai.vision.photo import Photo, load_photo
from emotion_ai.web.version_info import read_version_info

if TYPE_CHECKING:
    from emotion_ai.inference.answer_log import AnswerLog
    from emotion_ai.models import FaceNetwork

MAX_SHOWN_PX = 1280
"""Longer side of the picture that is drawn on."""

MAX_KEPT_PX = 16_000_000
"""Pixels of a photo that is kept; a larger one is shrunk."""

_DECODING = threading.BoundedSemaphore(2)  # photos of 64 megapixels take 300 MB each

LABELS = ("stable", "canary")
NEWEST = "newest"

REFRESH_SECONDS = 2.0
"""How long the version behind a label, or the newest, is taken to be the same."""


@dataclass(frozen=True)
class DetectedFaces:
    """The faces detected in a photo, and all that is kept of the photo between two requests.

    Attributes:
        rgb: uint8 (H, W, 3), the photo as it is shown.
        scale: pixels of `rgb` per pixel of the photo.
        gray: uint8 (H, W), the photo, shrunk if it is larger than `MAX_KEPT_PX`.
        gray_scale: pixels of `gray` per pixel of the photo.
        faces: from left to right, in pixels of `gray`.
        seconds: time that detection took.
    """

    rgb: NDArray[np.uint8]
    scale: float
    gray: NDArray[np.uint8]
    gray_scale: float
    faces: list[DetectedFace]
    seconds: float

    @property
    def nbytes(self) -> int:
        """Memory that the pictures take."""
        return self.rgb.nbytes + self.gray.nbytes

    def crop(self, face: FaceReading) -> NDArray[np.uint8]:
        """The crop of a face that was read, uint8 (96, 96)."""
        return crop(self.gray, in_shown_pixels([face], self.gray_scale)[0].box)


@dataclass(frozen=True)
class VersionReadings:
    """The faces as one served version reads them; `seconds` is the time from request to response."""

    faces: list[FaceReading]
    version: int
    seconds: float


def detect(content: bytes) -> DetectedFaces:
    """Detects the faces in an encoded picture.

    Raises:
        ImageError: the picture cannot be decoded.
        NoFaceError: it shows no face.
    """
    started = time.perf_counter()
    with _DECODING:
        photo, gray_scale = _kept(load_photo(content))
        faces = detect_faces(photo)
        shown, shown_scale = _shown(photo)
    return DetectedFaces(shown, shown_scale * gray_scale, photo.gray, gray_scale, faces, time.perf_counter() - started)


def preview(content: bytes) -> NDArray[np.uint8]:
    """An encoded picture as it is shown, uint8 (H, W, 3).

    Raises:
        ImageError: the picture cannot be decoded.
    """
    with _DECODING:
        return _shown(load_photo(content))[0]


def _kept(photo: Photo) -> tuple[Photo, float]:
    """The photo, shrunk if it is too large to keep, and the scale."""
    height, width = photo.gray.shape
    scale = (MAX_KEPT_PX / (height * width)) ** 0.5
    if scale >= 1:
        return photo, 1.0
    rgb = Image.fromarray(photo.rgb).resize((int(width * scale), int(height * scale)), Image.Resampling.BOX)
    return replace(photo, rgb=np.asarray(rgb), gray=np.asarray(rgb.convert("L"))), rgb.width / width


def _shown(photo: Photo) -> tuple[NDArray[np.uint8], float]:
    """The photo as it is shown, uint8 (H, W, 3), and the scale."""
    scale = min(MAX_SHOWN_PX / max(photo.gray.shape), 1.0)
    shown = Image.fromarray(photo.rgb)
    if scale < 1:
        size = (max(round(shown.width * scale), 1), max(round(shown.height * scale), 1))
        shown = shown.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(shown), scale


@dataclass(frozen=True)
class _ServedVersion:
    """The version behind a choice, the signature to use, and when the server last confirmed it."""

    number: int
    signature: str
    confirmed: float


class ModelSession:
    """Reads faces with any version of one server; connections are kept.

    Args:
        url: http://HOST:PORT or grpc://HOST:PORT.
        timeout: seconds to connect, and for a response.
        log: gets the answers for the faces of each picture.

    Attributes:
        shown_url: the address without its password, for messages.

    Raises:
        ConfigError: the address is not valid.
    """

    def __init__(self, url: str, timeout: tuple[float, float] = (3.05, 30.0), log: "AnswerLog | None" = None) -> None:
        self.url, self._timeout, self._log = url, timeout, log
        self._clients: dict[tuple[int | None, str | None, str], FaceClient] = {}
        self._versions: dict[str, _ServedVersion] = {}
        self.shown_url = self._client().connection.url  # without a password

    @property
    def log_folder(self) -> str | None:
        """Where the answers are logged, if they are."""
        return None if self._log is None else str(self._log.folder)

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients.values():
            client.close()

    def choices(self) -> list[tuple[str, str]]:
        """The versions and labels to choose from: text to show, and the name that `read` takes.

        Raises:
            ClientError: the request fails.
        """
        states = self._client().versions()
        found = [("newest", NEWEST)]
        for label in LABELS:
            try:
                found.append((f"{label} (version {self._resolve(label).number})", label))
            except ModelNotFoundError:
                continue
        served = sorted((number for number, state in states.items() if state == "AVAILABLE"), reverse=True)
        return [*found, *((f"version {number}", str(number)) for number in served)]

    def served(self, choice: str) -> tuple[int, str]:
        """The version that a choice has now, and the signature to read it with.

        Raises:
            ClientError: the request fails, or the server does not have the version.
        """
        found = self._resolve(choice)
        return found.number, found.signature

    def read(self, detected: DetectedFaces, choice: str = NEWEST) -> VersionReadings:
        """Reads the faces, with standard deviations if the version has them.

        Args:
            detected: the faces.
            choice: "newest", a label or a version number. A label that moves is followed within `REFRESH_SECONDS`.

        Raises:
            ClientError: a request fails, or the server does not have the version.
        """
        started = time.perf_counter()
        served = self._cached(choice)
        if served is None:
            served = self._resolve(choice)
            faces = self._read(detected, served, choice)
        else:
            try:
                faces = self._read(detected, served, choice)
            except ModelNotFoundError:  # unloaded since
                served = self._resolve(choice)
                faces = self._read(detected, served, choice)
        return VersionReadings(faces, served.number, time.perf_counter() - started)

    def _read(self, detected: DetectedFaces, served: _ServedVersion, choice: str) -> list[FaceReading]:
        client = self._client(version=served.number, signature=served.signature)
        read = partial(read_faces, detected.gray, detected.faces, client)
        if self._log is None:
            faces = read()
        else:
            faces = self._log.read(read, version=served.number, label=choice if choice in LABELS else None)
        return in_shown_pixels(faces, 1 / detected.gray_scale)

    def _cached(self, choice: str) -> _ServedVersion | None:
        """The version that a choice had at the last request for metadata, unless that is too long ago."""
        served = self._versions.get(choice)
        if served is None or choice.isdecimal() or time.monotonic() < served.confirmed + REFRESH_SECONDS:
            return served
        return None

    def _resolve(self, choice: str) -> _ServedVersion:
        """Requests the version that a choice has now, and its signatures."""
        confirmed = time.monotonic()
        if choice.isdecimal():
            client = self._client(version=int(choice))
        else:
            client = self._client(label=None if choice == NEWEST else choice)
        try:
            metadata = client.metadata()
            signatures = metadata["metadata"]["signature_def"]["signature_def"]
            number = int(metadata["model_spec"]["version"])
        except ClientError:
            self._versions.pop(choice, None)
            raise
        except (KeyError, TypeError, ValueError) as error:
            message = f"{self.shown_url}: the metadata is not TensorFlow Serving's ({error!r})"
            raise ServerFailureError(message) from error
        known = (FULL_SIGNATURE, UNCERTAINTY_SIGNATURE)
        signature = next((name for name in known if name in signatures), BYTES_SIGNATURE)
        self._versions[choice] = _ServedVersion(number, signature, confirmed)
        return self._versions[choice]

    def _client(
        self, version: int | None = None, label: str | None = None, signature: str = BYTES_SIGNATURE
    ) -> FaceClient:
        key = (version, label, signature)
        if key not in self._clients:
            self._clients[key] = FaceClient(
                self.url, version=version, label=label, signature=signature, timeout=self._timeout
            )
        return self._clients[key]


def activation_maps(models: Path, detected: DetectedFaces, readings: VersionReadings) -> NDArray[np.float32]:
    """Grad-CAM of the version's emotion network, float32 (N, 96, 96) from 0 to 1, over the crops of the faces.

    TensorFlow Serving has no gradients, so PyTorch computes them from the checkpoint inside the version.

    Raises:
        CheckpointError: the version has no checkpoint.
        MissingExtraError: the extra [train] is not installed.
    """
    network = _emotion_network(models / "face" / str(readings.version) / checkpoint_file("emotion"))
    with optional_imports():
        from emotion_ai.evaluation import explain

        return explain.activation_maps(network, [detected.crop(face) for face in readings.faces])


@lru_cache(2)
def _emotion_network(checkpoint: Path) -> "FaceNetwork":
    with optional_imports():
        from emotion_ai.models import load_network

        return load_network(checkpoint, "emotion")[0]


def stored_threshold(models: Path | None, version: int, signature: str) -> float | None:
    """The threshold of a version's checkpoint, if the signature serves none; None without."""
    return None if models is None or signature == FULL_SIGNATURE else _stored_threshold(models, version)


def with_own_threshold(readings: VersionReadings, models: Path | None) -> VersionReadings:
    """The readings with the threshold of their version; if it serves none, as old ones do, its checkpoint's."""
    if models is None or any(face.uncertain_below or face.class_thresholds is not None for face in readings.faces):
        return readings
    return with_threshold(readings, _stored_threshold(models, readings.version))


@lru_cache(8)
def _stored_threshold(models: Path, version: int) -> float:
    return read_version_info(models, version).uncertain_below


def with_threshold(readings: VersionReadings, uncertain_below: float) -> VersionReadings:
    """The same readings with another threshold of confidence than the version's own."""
    return replace(readings, faces=[face.with_threshold(uncertain_below) for face in readings.faces])


def in_shown_pixels(faces: list[FaceReading], scale: float) -> list[FaceReading]:
    """The same readings in pixels of the shown picture, to draw them on it."""
    return faces if scale == 1 else [face.scaled(scale) for face in faces]


@dataclass(frozen=True)
class Difference:
    """How two versions differ on one face; distances are in pixels of the photo.

    Attributes:
        keypoint: the one that differs most.
        distance: its distance between the two versions.
        mean_distance: over all keypoints.
        emotion: the one whose probability differs most.
        probability_change: of that emotion, second minus first.
        same_emotion: whether both versions predict the same emotion.
    """

    keypoint: str
    distance: float
    mean_distance: float
    emotion: str
    probability_change: float
    same_emotion: bool


def differences(first: VersionReadings, second: VersionReadings) -> list[Difference]:
    """Compares two versions' readings of the same faces, face by face."""
    found = []
    for one, other in zip(first.faces, second.faces, strict=True):
        distances = np.linalg.norm(one.points - other.points, axis=-1)
        before, after = one.by_class, other.by_class
        changes = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in (*before, *after)}
        point, emotion = int(distances.argmax()), max(changes, key=lambda name: abs(changes[name]))
        found.append(
            Difference(
                KEYPOINTS[point],
                float(distances[point]),
                float(distances.mean()),
                emotion,
                changes[emotion],
                one.emotion == other.emotion,
            )
        )
    return found
