"""Versions on disk: whether they would load, their signatures, and predictions without a graph."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from emotion_ai.client import protos
from emotion_ai.contract import INPUTS, SERVABLES, outputs
from tests.export.serving_double import LOAD_SECONDS, PREDICT_SECONDS, StatusError


def predicted(number: int, signatures: Any, name: str, batch: int) -> dict[str, Any]:
    """The version's number, in the shape of each output; as the class of probabilities, which sum to 1."""
    name = name or "serving_default"
    if name not in set(signatures.signature_def):
        raise StatusError("INVALID_ARGUMENT", f'Serving signature name: "{name}" not found in signature def')
    found: dict[str, Any] = {}
    time.sleep(PREDICT_SECONDS)
    for output, info in sorted(signatures.signature_def[name].outputs.items()):
        shape = [batch if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
        text = info.dtype == protos.tensor([b""]).dtype
        found[output] = np.full(shape, str(number).encode() if text else number, object if text else np.float32)
        if output == "probabilities":
            found[output][:] = np.arange(shape[-1]) == number % shape[-1]
    return found


def read_version(folder: Path) -> Any:
    """The signatures of a SavedModel.

    Raises:
        StatusError: it would not load.
    """
    seconds = folder / "load_seconds"
    time.sleep(float(seconds.read_text()) if seconds.exists() else LOAD_SECONDS)
    while (folder / "hold").exists():
        time.sleep(0.01)
    file, warmup = folder / "saved_model.pb", folder / "assets.extra" / "tf_serving_warmup_requests"
    if not file.is_file():
        raise StatusError(
            "NOT_FOUND",
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {folder}",
        )
    signatures = protos.SignatureDefMap()
    try:
        graphs = [value for number, value in fields(file.read_bytes()) if number == 2]
        for number, value in fields(graphs[0]):
            if number == 5:  # the entries of a map, whose field has another number in SignatureDefMap
                signatures.MergeFromString(b"\x0a" + varint(len(value)) + value)
    except Exception as error:
        raise StatusError("DATA_LOSS", f"Can't parse {file} as binary proto") from error
    if any(not data.stat().st_size for data in folder.glob("variables/variables.data*")):
        raise StatusError("OUT_OF_RANGE", "Read less bytes than requested")
    if warmup.is_file() and int.from_bytes(warmup.read_bytes()[:8], "little") > warmup.stat().st_size:
        raise StatusError("DATA_LOSS", f"Please verify your data; failed to read warmup requests from {warmup}")
    return signatures


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of a message's fields of known length; others are skipped."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        if tag & 7 == 2:
            size = number()
            if at + size > len(message):
                raise ValueError("cut off")
            yield tag >> 3, message[at : at + size]
            at += size
        elif tag & 7 == 0:
            number()
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("no such wire type")


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def fake_version(
    folder: Path, signatures: dict[str, tuple[dict[str, list[int]], dict[str, list[int]]]] | None = None
) -> None:
    """Writes a version that loads, without a graph.

    Args:
        folder: of the version; it is renamed into place.
        signatures: shapes of inputs and outputs, by name, of each signature; by default x [-1] and y [-1].
    """
    content = protos.SignatureDefMap()
    for name, sides in (signatures or {"serving_default": ({"x": [-1]}, {"y": [-1]})}).items():
        for side, shapes in zip(("inputs", "outputs"), sides, strict=True):
            for tensor, shape in shapes.items():
                info = getattr(content.signature_def[name], side)[tensor]
                info.dtype, info.name = protos.tensor(np.zeros(1, np.float32)).dtype, tensor
                for size in shape:
                    info.tensor_shape.dim.add(size=size)
    entries = b"".join(b"\x2a" + varint(len(value)) + value for _, value in fields(content.SerializeToString()))
    staging = folder.parent / f".staging-{folder.name}"
    staging.mkdir(parents=True)
    (staging / "saved_model.pb").write_bytes(b"\x08\x01\x12" + varint(len(entries)) + entries)
    staging.rename(folder)


def fake_servables(base: Path, number: int) -> None:
    """A version of each servable, with the signatures of version 0.1."""
    shapes = {"keypoints": [-1, 15, 2], "deviations": [-1, 15, 2], "probabilities": [-1, 5]}
    for servable in SERVABLES:
        signatures = {
            signature: ({INPUTS[signature]: [-1]}, {name: shapes[name] for name in names})
            for signature in ("serving_default", "serving_bytes", "serving_uncertainty")
            if (names := outputs(servable, signature))
        }
        fake_version(base / servable / str(number), signatures)
