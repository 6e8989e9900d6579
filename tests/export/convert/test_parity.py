import copy
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emotion_ai.client.checks import Outputs
from emotion_ai.client.transport import Inputs
from emotion_ai.contract import SERVABLES, Servable, Task
from emotion_ai.errors import ParityError
from emotion_ai.models import FaceNetwork
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.convert.parity import (
    TOLERANCES,
    Comparison,
    ParityReport,
    compare,
    compare_onnx,
    saved_model_predictor,
)
from emotion_ai_export.convert.parity_cases import (
    BATCHES,
    file_cases,
    parity_faces,
    picture_files,
    pixel_cases,
)
from tests.conftest import THRESHOLD, rule

RULE = rule(THRESHOLD)
KINDS = {"real", "synthetic", "black", "white", "noise"}


@pytest.fixture(scope="module")
def faces() -> dict[str, Any]:
    return parity_faces(np.tile(np.arange(96, dtype=np.uint8), (3, 96, 1)))


def few(faces: dict[str, Any]) -> dict[str, Any]:
    return {"noise": faces["noise"]}


def test_all_three_agree_on_every_signature_batch_and_kind(
    networks: dict[Task, FaceNetwork], onnx_models: dict[Task, Any], loaded: dict[Servable, Any], faces: dict[str, Any]
) -> None:
    report = ParityReport()
    for task, network in networks.items():
        report.rows += compare_onnx(task, onnx_models[task], pixel_cases({task: network}, faces))
    report.rows += compare("SavedModel", SERVABLES, saved_model_predictor(loaded), pixel_cases(networks, faces, RULE))
    report.require()
    saved = {(r.servable, r.signature, r.output, r.kind, r.batch) for r in report.rows if r.path == "SavedModel"}
    outputs = [
        ("keypoints", "keypoints"),
        ("emotion", "probabilities"),
        ("face", "keypoints"),
        ("face", "probabilities"),
    ]
    wanted = {(s, g, o) for s, o in outputs for g in ("serving_default", "serving_bytes")}
    uncertain = {"keypoints": ("keypoints", "deviations"), "face": ("keypoints", "deviations", "probabilities")}
    wanted |= {(s, "serving_uncertainty", o) for s, names in uncertain.items() for o in names}
    full = uncertain | {"emotion": ("probabilities",)}
    wanted |= {(s, "serving_full", o) for s, names in full.items() for o in names}
    more = ("expressions", "uncertain_below", "classes")
    wanted |= {(s, "serving_full", o) for s in ("emotion", "face") for o in more}
    wanted |= {(s, "serving_classes", "classes") for s in ("emotion", "face")}
    assert saved == {(*place, k, b) for place in wanted for k in KINDS for b in (1, 2, 7, 64)}
    assert {r.kind for r in report.rows if r.path == "ONNX Runtime"} == KINDS
    record = json.loads(json.dumps(report.as_dict()))
    assert record["passes"]
    assert len(record["rows"]) == len(report.rows)
    probabilities = {"probabilities": 1e-5, "expressions": 1e-5, "uncertain_below": 1e-5, "classes": 1e-6}
    assert {"keypoints": 1e-4, "deviations": 1e-4, **probabilities} == TOLERANCES


def test_another_threshold_fails(
    networks: dict[Task, FaceNetwork], loaded: dict[Servable, Any], faces: dict[str, Any]
) -> None:
    rows = compare(
        "SavedModel", SERVABLES, saved_model_predictor(loaded), pixel_cases(networks, few(faces), rule(0.56))
    )
    assert {(row.servable, row.output) for row in rows if not row.passes} == {
        ("emotion", "uncertain_below"),
        ("face", "uncertain_below"),
    }
    with pytest.raises(ParityError, match=r"differs from its checkpoint by 0\.01 probability .* uncertain_below"):
        ParityReport(rows).require()


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_an_altered_weight_fails(
    task: Task,
    networks: dict[Task, FaceNetwork],
    onnx_models: dict[Task, Any],
    loaded: dict[Servable, Any],
    faces: dict[str, Any],
) -> None:
    altered = copy.deepcopy(networks[task])
    with torch.no_grad():
        altered.get_parameter("head.conv.weight" if task == "keypoints" else "head.linear.bias")[1] += 1e-3
    output = {"keypoints": "keypoints", "emotion": "probabilities"}[task]
    changed = networks | {task: altered}
    for rows in (
        compare_onnx(task, onnx_models[task], pixel_cases({task: altered}, few(faces))),
        compare("SavedModel", ("face",), saved_model_predictor(loaded), pixel_cases(changed, few(faces), RULE)),
    ):
        report = ParityReport(rows)
        assert not report.passes
        with pytest.raises(
            ParityError, match=rf"differs from its checkpoint by .* ({output}|expressions), noise faces, batch"
        ):
            report.require()
        assert report.worst.output in (output, "expressions")


def test_a_swap_within_a_batch_fails(
    networks: dict[Task, FaceNetwork], loaded: dict[Servable, Any], faces: dict[str, Any]
) -> None:
    predict = saved_model_predictor(loaded)

    def shuffled(servable: Servable, signature: str, values: Inputs, /) -> Outputs:
        return {name: value[::-1] for name, value in predict(servable, signature, values).items()}

    report = ParityReport(compare("served", ("keypoints",), shuffled, pixel_cases(networks, few(faces), RULE)))
    assert {row.batch for row in report.rows if not row.passes} == set(BATCHES) - {1}


def test_files_are_decoded_and_resized_as_in_training(
    networks: dict[Task, FaceNetwork], loaded: dict[Servable, Any]
) -> None:
    rows = compare("SavedModel", SERVABLES, saved_model_predictor(loaded), file_cases(networks, RULE))
    ParityReport(rows).require()
    kinds = {row.kind for row in rows}
    assert len(kinds) == len(picture_files()) == 16
    for word in ("JPEG L", "JPEG RGB", "quality 30", "PNG L", "PNG RGBA", "PNG P", "211x307", "1x1"):
        assert any(word in kind for kind in kinds), word


def test_a_coarser_resize_fails(networks: dict[Task, FaceNetwork], loaded: dict[Servable, Any]) -> None:
    predict = saved_model_predictor(loaded)

    def nearest(servable: Servable, signature: str, values: Inputs, /) -> Outputs:
        if signature == "serving_classes":
            return predict(servable, signature, values)
        picture = Image.open(io.BytesIO(bytes(values[0]))).convert("L").resize((96, 96), Image.Resampling.NEAREST)
        return predict(servable, signature, [encode_png(np.asarray(picture))])

    failed = {row.kind for row in compare("served", ("face",), nearest, file_cases(networks, RULE)) if not row.passes}
    assert {kind for kind in picture_files() if "96x96" not in kind and "1x1" not in kind} <= failed


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"probabilities": np.full((1, 5), np.nan, np.float32)},
        {"probabilities": np.zeros((1, 4), np.float32)},
        {"other": np.zeros((1, 5), np.float32)},
    ],
)
def test_an_answer_that_is_not_the_contracts_does_not_pass(
    answer: dict[str, Any], networks: dict[Task, FaceNetwork], faces: dict[str, Any]
) -> None:
    report = ParityReport(compare("served", ("emotion",), lambda *_: answer, pixel_cases(networks, few(faces), RULE)))
    assert not any(row.passes for row in report.rows)
    with pytest.raises(ParityError):
        report.require()


def test_a_report_without_comparisons_fails() -> None:
    assert not ParityReport().passes


def test_the_worst_is_relative_to_its_tolerance() -> None:
    pixel = Comparison("SavedModel", "face", "serving_default", "keypoints", "noise", 1, 5e-5, 1e-4)
    probability = Comparison("SavedModel", "face", "serving_default", "probabilities", "noise", 1, 9e-6, 1e-5)
    assert ParityReport([pixel, probability]).worst is probability
