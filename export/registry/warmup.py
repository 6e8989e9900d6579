"""Warm-up requests: TensorFlow Serving replays them while it loads a version, before the version takes requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion_ai.client import protos
from emotion_ai.contract import IMAGES_INPUT, INPUTS, Servable, outputs
from emotion_ai.errors import ExportError
from emotion_ai.published import WARMUP_FILE
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.registry.quiet_tensorflow import held_stderr, tf

BATCHES = (1, 8, 32, 64)  # one, and the batch sizes that the batching parameters allow


def write_warmup(version: Path, servable: Servable, images: NDArray[np.uint8]) -> None:
    """Writes the requests for each signature at each batch size, as a TFRecord of PredictionLog.

    Args:
        version: the version's folder.
        servable: the name that the model is served under.
        images: uint8 (N, 96, 96), repeated as needed.
    """
    path = version / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for batch in BATCHES:
            faces = images[np.arange(batch) % len(images)]
            pixels = faces[..., np.newaxis].astype(np.float32)
            files = [encode_png(face) for face in faces]
            for signature, key in INPUTS.items():
                if not outputs(servable, signature):
                    continue
                record = protos.PredictionLog()
                request = record.predict_log.request
                request.model_spec.name, request.model_spec.signature_name = servable, signature
                request.inputs[key].CopyFrom(protos.tensor(pixels if key == IMAGES_INPUT else files))
                writer.write(record.SerializeToString())


def requests(path: Path) -> Iterator[tuple[str, dict[str, NDArray[np.generic]]]]:
    """Signature and inputs of each record in a warm-up file."""
    with held_stderr():
        records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    for record in records:
        request = protos.PredictionLog.FromString(record).predict_log.request
        yield request.model_spec.signature_name, {key: protos.array(value) for key, value in request.inputs.items()}


def replay_warmup(version: Path, model: Any) -> int:
    """Answers a version's warm-up requests as the server will; returns how many there are.

    Args:
        version: the version's folder.
        model: its SavedModel, loaded.

    Raises:
        ExportError: a record that the model does not answer; the server would refuse to load the version.
    """
    path, count = version / WARMUP_FILE, 0
    try:
        for signature, inputs in requests(path):
            answer = model.signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
            (batch,) = {len(value) for value in inputs.values()}
            if {len(value) for value in answer.values()} != {batch}:
                raise ExportError(f"{path}: record {count} has another number of answers than faces; export again")
            count += 1
    except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{path}: record {count} cannot be answered ({error}); export again") from error
    if count == 0:
        raise ExportError(f"{path}: holds no requests; export again")
    return count
