import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_ai.client import protos
from emotion_ai.contract import INPUTS, SERVABLES, Servable
from emotion_ai.errors import ExportError
from emotion_ai.published import WARMUP_FILE
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.registry.warmup import BATCHES, replay_warmup, requests, write_warmup

FACES = np.random.default_rng(0).integers(0, 256, (5, 96, 96), dtype=np.uint8)


@pytest.mark.parametrize("name", SERVABLES)
def test_every_request_succeeds(
    name: Servable, folders: dict[str, Path], loaded: dict[str, Any], tmp_path: Path
) -> None:
    write_warmup(tmp_path, name, FACES)
    assert replay_warmup(tmp_path, loaded[name]) == len(loaded[name].signatures) * len(BATCHES)
    seen = [
        (signature, len(value)) for signature, inputs in requests(tmp_path / WARMUP_FILE) for value in inputs.values()
    ]
    signatures = [signature for signature in INPUTS if signature in loaded[name].signatures]
    assert signatures[-1] == ("serving_full" if name == "keypoints" else "serving_classes")
    assert seen == [(signature, batch) for batch in BATCHES for signature in signatures]


def test_a_failing_request_stops_the_export(loaded: dict[str, Any], tmp_path: Path) -> None:
    write_warmup(tmp_path, "emotion", FACES)
    record = protos.PredictionLog()
    request = record.predict_log.request
    request.model_spec.signature_name = "serving_bytes"
    request.inputs["image_bytes"].CopyFrom(protos.tensor([b"no image"]))
    with tf.io.TFRecordWriter(str(tmp_path / WARMUP_FILE)) as writer:
        writer.write(record.SerializeToString())
    with pytest.raises(ExportError, match="record 0 fails"):
        replay_warmup(tmp_path, loaded["emotion"])
    shutil.copyfile("/dev/null", tmp_path / WARMUP_FILE)
    with pytest.raises(ExportError, match="no requests"):
        replay_warmup(tmp_path, loaded["emotion"])


def test_messages_have_the_official_field_numbers() -> None:
    record = protos.PredictionLog()
    request = record.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "m", "s"
    request.model_spec.version.value = 7
    request.output_filter.append("o")
    # written out by hand: log 6 { request 1 { spec 1 { name 1, version 2 { 1: 7 }, signature 3 }, output_filter 3 } }
    spec = b"\x0a\x01m" + b"\x12\x02\x08\x07" + b"\x1a\x01s"
    body = b"\x0a" + bytes([len(spec)]) + spec + b"\x1a\x01o"
    log = b"\x0a" + bytes([len(body)]) + body
    assert record.SerializeToString(deterministic=True) == b"\x32" + bytes([len(log)]) + log

    response = protos.PredictResponse.FromString(b"\x12\x03\x0a\x01m")
    assert response.model_spec.name == "m"
    request.model_spec.version_label = "stable"
    assert request.model_spec.WhichOneof("version_choice") == "version_label"


@pytest.mark.parametrize("value", [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 5), np.uint8)])
def test_tensors_round_trip(value: np.ndarray) -> None:
    np.testing.assert_array_equal(protos.array(protos.tensor(value)), value)


def test_bytes_round_trip() -> None:
    assert protos.array(protos.tensor([b"\x00\xff", b""])).tolist() == [b"\x00\xff", b""]
