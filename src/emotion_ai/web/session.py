"""What the page computes, without a browser: faces found, the server asked, two versions compared."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.client import FaceClient
from emotion_ai.contract import BYTES_SIGNATURE, EMOTIONS, KEYPOINTS, UNCERTAINTY_SIGNATURE
from emotion_ai.errors import ClientError, ModelNotFoundError
from emotion_ai.extras import load as stage
from emotion_ai.inference.pipeline import DetectedFace, detect_faces, read_faces
from emotion_ai.inference.results import FaceReading
from emotion_ai.vision.crops import Box, crop
from emotion_ai.vision.photo import load_photo

SHOWN = 1280  # pixels of the longer side of what is drawn
LABELS = ("stable", "canary")
NEWEST = "newest"


@dataclass(frozen=True)
class DetectedFaces:
    """Faces found in a picture, and all that is kept of it between two questions.

    Attributes:
        rgb: uint8 (H, W, 3), the picture as it is shown.
        scale: pixels of it for each of the photograph's.
        gray: uint8 (H, W), the photograph itself.
        faces: where they lie, from left to right.
        seconds: that finding them took.
    """

    rgb: NDArray[np.uint8]
    scale: float
    gray: NDArray[np.uint8]
    faces: list[DetectedFace]
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What one served version says of the faces; `seconds` is from the question to the answer."""

    faces: list[FaceReading]
    version: int
    seconds: float


def look(content: bytes) -> DetectedFaces:
    """Finds the faces in an encoded picture.

    Raises:
        ImageError: the picture cannot be read.
        NoFaceError: it shows no face.
    """
    started = time.perf_counter()
    photo = load_photo(content)
    faces = detect_faces(photo)
    scale = min(SHOWN / max(photo.gray.shape), 1.0)
    shown = Image.fromarray(photo.rgb)
    if scale < 1:
        shown = shown.resize((round(shown.width * scale), round(shown.height * scale)), Image.Resampling.LANCZOS)
    return DetectedFaces(np.asarray(shown), scale, photo.gray, faces, time.perf_counter() - started)


class ModelSession:
    """Asks one server for any of its versions; connections are kept.

    Args:
        url: http://HOST:PORT or grpc://HOST:PORT.
        timeout: seconds to connect, and for an answer.
    """

    def __init__(self, url: str, timeout: tuple[float, float] = (3.05, 30.0)) -> None:
        self.url, self._timeout = url, timeout
        self._clients: dict[tuple[int | None, str | None, str], FaceClient] = {}
        self._client()  # an address that cannot be meant is refused now

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients.values():
            client.close()

    def choices(self) -> list[tuple[str, str]]:
        """What can be chosen: how it is called, and its name for `ask`.

        Raises:
            ClientError: the server cannot be asked.
        """
        states = self._client().versions()
        found = [("newest", NEWEST)]
        for label in LABELS:
            try:
                found.append((f"{label} (version {self._served(label)[0]})", label))
            except ModelNotFoundError:
                continue
        served = sorted((number for number, state in states.items() if state == "AVAILABLE"), reverse=True)
        return [*found, *((f"version {number}", str(number)) for number in served)]

    def ask(self, sighting: DetectedFaces, choice: str = NEWEST) -> Answer:
        """Has the faces read; deviations come as well where the version answers them.

        Args:
            sighting: the faces.
            choice: "newest", a label, or a version's number.

        Raises:
            ClientError: the server cannot be asked, or does not serve the version.
        """
        started = time.perf_counter()
        number, signature = self._served(choice)
        client = self._client(version=number, signature=signature)
        faces = read_faces(sighting.gray, sighting.faces, client)
        return Answer(faces, number, time.perf_counter() - started)

    def _served(self, choice: str) -> tuple[int, str]:
        """The version that a choice names now, and the signature that says most."""
        if choice.isdecimal():
            client = self._client(version=int(choice))
        else:
            client = self._client(label=None if choice == NEWEST else choice)
        known = client.metadata()
        try:
            signatures = known["metadata"]["signature_def"]["signature_def"]
            number = int(known["model_spec"]["version"])
        except (KeyError, TypeError, ValueError) as error:
            raise ClientError(f"{self.url}: its metadata is not TensorFlow Serving's ({error!r})") from error
        return number, UNCERTAINTY_SIGNATURE if UNCERTAINTY_SIGNATURE in signatures else BYTES_SIGNATURE

    def _client(
        self, version: int | None = None, label: str | None = None, signature: str = BYTES_SIGNATURE
    ) -> FaceClient:
        key = (version, label, signature)
        if key not in self._clients:
            self._clients[key] = FaceClient(
                self.url, version=version, label=label, signature=signature, timeout=self._timeout
            )
        return self._clients[key]


def maps_of(models: Path, sighting: DetectedFaces, answer: Answer) -> NDArray[np.float32]:
    """Where the version's emotion network looked, float32 (N, 96, 96) from 0 to 1, in the frames of the faces.

    TensorFlow Serving gives no gradients: the checkpoint that lies beside the version is asked, by PyTorch.

    Raises:
        CheckpointError: none lies there.
        MissingExtraError: the extra [train] is not installed.
    """
    network = _network(models / "face" / str(answer.version) / "assets.extra" / "emotion.safetensors")
    crops = [crop(sighting.gray, face.box) for face in answer.faces]
    maps: NDArray[np.float32] = stage("emotion_ai.evaluation.explain").activation_maps(network, crops)
    return maps


@lru_cache(2)
def _network(checkpoint: Path) -> Any:
    return stage("emotion_ai.models").load_network(checkpoint, "emotion")[0]


def judged(faces: list[FaceReading], uncertain_below: float) -> list[FaceReading]:
    """The same readings with another confidence below which an emotion is called uncertain."""
    return [replace(face, uncertain_below=uncertain_below) for face in faces]


def in_shown_pixels(faces: list[FaceReading], scale: float) -> list[FaceReading]:
    """The same readings in pixels of the picture as it is shown, to be drawn."""
    return [
        replace(
            face,
            box=Box(face.box.left * scale, face.box.top * scale, face.box.size * scale),
            points=((face.points + 0.5) * scale - 0.5).astype(np.float32),
            deviations=None if face.deviations is None else face.deviations * np.float32(scale),
        )
        for face in faces
    ]


@dataclass(frozen=True)
class Difference:
    """How two versions differ on one face; distances are in pixels of the photograph.

    Attributes:
        farthest: the point that differs most.
        distance: by how much.
        mean: over all points.
        emotion: the one whose probability differs most.
        probability: by how much, second minus first.
        agree: whether both name the same emotion.
    """

    farthest: str
    distance: float
    mean: float
    emotion: str
    probability: float
    agree: bool


def differences(first: Answer, second: Answer) -> list[Difference]:
    """Face by face, of two answers to the same question."""
    found = []
    for one, other in zip(first.faces, second.faces, strict=True):
        distances = np.linalg.norm(one.points - other.points, axis=-1)
        change = other.probabilities - one.probabilities
        point, emotion = int(distances.argmax()), int(np.abs(change).argmax())
        found.append(
            Difference(
                KEYPOINTS[point],
                float(distances[point]),
                float(distances.mean()),
                EMOTIONS[emotion],
                float(change[emotion]),
                one.emotion == other.emotion,
            )
        )
    return found


@dataclass(frozen=True)
class Published:
    """What lies beside one published version.

    Attributes:
        card: its model card, Markdown.
        parity: (path, servable, output, largest difference, allowed) of its proof; empty without one.
        comparisons: of the proof.
        checksums: files that its SHA256SUMS names.
        metrics: of its checkpoints, by name.
        uncertain_below: the confidence that was chosen for it; 0 where none was.
    """

    card: str
    parity: list[tuple[str, str, str, float, float]]
    comparisons: int
    checksums: int
    metrics: dict[str, float]
    uncertain_below: float


def published_versions(base: Path) -> list[int]:
    """Numbers of the versions of `face` in a folder, ascending."""
    folder = base / "face"
    return sorted(int(p.name) for p in folder.glob("*") if p.is_dir() and p.name.isascii() and p.name.isdigit())


def published(base: Path, version: int) -> Published:
    """What is published of a version; a part that is missing or damaged is left empty."""
    extra = base / "face" / str(version) / "assets.extra"
    proof = _json(extra / "parity.json")
    records = {task: _record(extra / f"{task}.safetensors") for task in ("keypoints", "emotion")}
    metrics = {
        f"{task} {name.removeprefix('test/')}": float(value)
        for task, record in records.items()
        for name, value in record.get("metrics", {}).items()
        if name.startswith("test/")
    }
    worst: dict[tuple[str, str, str, float], float] = {}
    rows = proof.get("rows") or []
    try:
        for row in rows:
            key = (row["path"], row["servable"], row["output"], row["tolerance"])
            worst[key] = max(worst.get(key, 0.0), row["difference"])
    except (KeyError, TypeError):
        rows, worst = [], {}
    return Published(
        _text(extra / "MODEL_CARD.md"),
        [(*key[:3], difference, key[3]) for key, difference in worst.items()],
        len(rows),
        len(_text(extra / "SHA256SUMS").splitlines()),
        metrics,
        float(records["emotion"].get("calibration", {}).get("uncertain_below", 0.0)),
    )


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(file))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _record(file: Path) -> dict[str, Any]:
    """What a checkpoint says of its training; nothing where safetensors, of the extra [train], is not installed."""
    opener: Callable[..., Any]
    try:
        from safetensors import SafetensorError
        from safetensors import safe_open as opener
    except ModuleNotFoundError:
        return {}
    try:
        with opener(file, "np") as opened:
            return dict(json.loads((opened.metadata() or {}).get("record", "{}")))
    except (SafetensorError, OSError, ValueError):
        return {}
