"""The ways to send one face to a server, prepared as requests."""

import base64
import http.client
import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import grpc
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emotion_ai.client import protos
from emotion_ai.contract import BYTES_INPUT, BYTES_SIGNATURE, IMAGES_INPUT, IMAGES_SIGNATURE
from emotion_ai.inference.pipeline import detect_faces
from emotion_ai.vision.crops import crop, resize_to_crop
from emotion_ai.vision.photo import PORTRAITS, encode_png, load_photo

Send = Callable[[], bool]
"""Sends one request; returns whether the response holds predictions."""

Connect = Callable[[], AbstractContextManager[Send]]


@dataclass(frozen=True)
class RequestEncoding:
    """One way to send a face: its name, the bytes of its request, and a maker of clients."""

    name: str
    size: int
    connect: Connect


def request_encodings(rest: str, address: str | None, model: str = "face") -> list[RequestEncoding]:
    """One face as JSON integers, base64 PNG and JPEG over REST, and over gRPC if an address is given."""
    photo = load_photo(PORTRAITS[0])
    face = np.rint(resize_to_crop(crop(photo.gray, detect_faces(photo)[0].box))).astype(np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(face).save(jpeg, "JPEG", quality=85)
    pixels = face[None, ..., None]
    bodies = {
        "REST, JSON integers": (IMAGES_SIGNATURE, pixels.tolist()),
        "REST, base64 PNG": (BYTES_SIGNATURE, [{"b64": base64.b64encode(encode_png(face)).decode()}]),
        "REST, base64 JPEG": (BYTES_SIGNATURE, [{"b64": base64.b64encode(jpeg.getvalue()).decode()}]),
    }
    found = []
    for name, (signature, instances) in bodies.items():
        body = json.dumps({"signature_name": signature, "instances": instances}).encode()
        found.append(RequestEncoding(name, len(body), _rest(rest, model, body)))
    inputs: dict[str, tuple[str, str, NDArray[np.float32] | list[bytes]]] = {
        "gRPC, pixels": (IMAGES_SIGNATURE, IMAGES_INPUT, pixels.astype(np.float32)),
        "gRPC, JPEG": (BYTES_SIGNATURE, BYTES_INPUT, [jpeg.getvalue()]),
    }
    for name, (signature, key, value) in inputs.items() if address else ():
        request = protos.PredictRequest(model_spec={"name": model, "signature_name": signature})
        request.inputs[key].CopyFrom(protos.tensor(value))
        body = request.SerializeToString()
        found.append(RequestEncoding(name, len(body), _grpc(str(address), body)))
    return found


def _rest(url: str, model: str, body: bytes) -> Connect:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    path, headers = f"{parts.path.rstrip('/')}/v1/models/{model}:predict", {"Content-Type": "application/json"}

    @contextmanager
    def connect() -> Iterator[Send]:
        connection = kind(parts.hostname or "", parts.port, timeout=60)

        def send() -> bool:
            try:
                connection.request("POST", path, body, headers)
                response = connection.getresponse()
                return b"predictions" in response.read() and response.status == 200
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens it anew
                return False

        with closing(connection):
            yield send

    return connect


def _grpc(address: str, body: bytes) -> Connect:
    @contextmanager
    def connect() -> Iterator[Send]:
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            method = channel.unary_unary(protos.PREDICT)

            def send() -> bool:
                try:
                    return bool(method(body, timeout=60))
                except grpc.RpcError:
                    return False

            yield send

    return connect
