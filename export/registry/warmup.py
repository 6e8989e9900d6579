"""Warm-up requests, which TensorFlow Serving replays while it loads a version."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.client import protos
from emotion_ai.contract import BYTES_INPUT, IMAGES_INPUT, INPUTS, REQUEST_INPUT, Servable, outputs
from emotion_ai.errors import ExportError
from emotion_ai.published import WARMUP_FILE
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.registry.quiet_tensorflow import held_stderr, tf

BATCHES = (1, 8, 32, 64)  # the allowed_batch_sizes of the batching parameters


def write_warmup(version: Path, servable: Servable, images: NDArray[np.uint8]) -> None:
    """Writes requests for every signature and batch size.

    Args:
        version: the version's folder.
        servable: the name of the served model.
        images: crops, uint8 (N, 96, 96), repeated as needed.
    """
    records = []
    for batch in BATCHES:
        faces = images[np.arange(batch) % len(images)]
        values: dict[str, Any] = {
            IMAGES_INPUT: faces[..., np.newaxis].astype(np.float32),
            BYTES_INPUT: [encode_png(face) for face in faces],
            REQUEST_INPUT: np.zeros(batch, np.int32),
        }
        records += [(name, {key: values[key]}) for name, key in INPUTS.items() if outputs(servable, name)]
    write_requests(version, servable, records)


def write_requests(version: Path, model: str, records: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Writes warm-up requests, each a signature and its inputs by name, as a TFRecord of PredictionLog."""
    path = version / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in records:
            record = protos.PredictionLog()
            request = record.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = model, signature
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(protos.tensor(value))
            writer.write(record.SerializeToString())


def requests(path: Path) -> Iterator[tuple[str, dict[str, NDArray[np.generic]]]]:
    """Signature and inputs of each record in a warm-up file."""
    with held_stderr():
        records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    for record in records:
        request = protos.PredictionLog.FromString(record).predict_log.request
        yield request.model_spec.signature_name, {key: protos.array(value) for key, value in request.inputs.items()}


def replay_warmup(version: Path, model: Any) -> int:
    """Runs a version's warm-up requests as the server will; returns their number.

    Args:
        version: the version's folder.
        model: its loaded SavedModel.

    Raises:
        ExportError: a request fails, so the server would refuse to load the version.
    """
    path, count = version / WARMUP_FILE, 0
    try:
        for signature, inputs in requests(path):
            found = model.signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
            (batch,) = {len(value) for value in inputs.values()}
            if {len(value) for value in found.values()} != {batch}:
                raise ExportError(f"{path}: record {count} has more or fewer results than faces; export again")
            count += 1
    except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path}: record {count} fails ({reason}); export again") from error
    if count == 0:
        raise ExportError(f"{path}: no requests in the file; export again")
    return count
