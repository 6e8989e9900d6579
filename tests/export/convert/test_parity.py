import copy
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from emotion_ai.client.checks import Outputs
from emotion_ai.client.transport import Inputs
from emotion_ai.contract import SERVABLES, Servable, Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ParityError
from emotion_ai.models import FaceNetwork
from emotion_ai.models.device import GPU_TOLERANCE, Placement
from emotion_ai.vision.photo import encode_png
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.parity import (
    BOUNDS,
    DECODED_ALLOWANCES,
    ROUNDING_MULTIPLE,
    Comparison,
    ParityReport,
    compare,
    compare_in_float64,
    compare_on_device,
    compare_onnx,
    device_tolerance,
    saved_model_predictor,
)
from emotion_ai_export.convert.parity_cases import (
    BATCHES,
    file_cases,
    parity_faces,
    picture_files,
    pixel_cases,
)
from emotion_ai_export.convert.saved_model import save_servable
from tests.conftest import THRESHOLD, random_network, rule

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
        report.rows += compare_onnx(task, onnx_models[task].SerializeToString(), pixel_cases({task: network}, faces))
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
    probabilities = {"probabilities": 1e-4, "expressions": 1e-4, "uncertain_below": 1e-4, "classes": 1e-6}
    assert {"keypoints": 5e-3, "deviations": 5e-3, **probabilities} == BOUNDS == record["rule"]["bounds"]
    for row in report.rows:
        assert row.tolerance <= BOUNDS[row.output]
        if row.output != "classes":
            assert row.tolerance == pytest.approx((1 + ROUNDING_MULTIPLE) * row.rounding)
            assert 0 < row.rounding < {"keypoints": 1e-4, "deviations": 1e-4}.get(row.output, 1e-5)
    decided = {row.output: row.agreement for row in report.rows if row.agreement is not None}
    assert decided.keys() == {"keypoints", "probabilities", "expressions"}
    assert all(row.agreement is None or row.agreement > 0.99 for row in report.rows)


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
        compare_onnx(task, onnx_models[task].SerializeToString(), pixel_cases({task: altered}, few(faces))),
        compare("SavedModel", ("face",), saved_model_predictor(loaded), pixel_cases(changed, few(faces), RULE)),
    ):
        report = ParityReport(rows)
        assert not report.passes
        with pytest.raises(
            ParityError, match=rf"differs from its checkpoint by .* ({output}|expressions), noise faces, batch"
        ):
            report.require()
        assert report.worst.output in (output, "expressions")


def test_resnet_50_passes_by_its_own_rounding_and_one_weight_more_does_not(tmp_path: Path) -> None:
    """Of 25 million weights; float32 rounding of the network alone is larger than 1e-4 px."""
    network = random_network("keypoints", {"name": "resnet50"}, head="regression")
    with torch.no_grad():
        network.deviations.linear.weight.mul_(0.05)  # 2048 features: 10^5 px otherwise
    model = to_onnx(network)
    save_servable({"keypoints": to_graph(model)}, "keypoints", tmp_path / "right")
    right: dict[Servable, Any] = {"keypoints": tf.saved_model.load(str(tmp_path / "right"))}
    images = {"synthetic": synthetic_faces(2, 0).images}

    def report(network: FaceNetwork) -> ParityReport:
        cases = [case for case in pixel_cases({"keypoints": network}, images) if len(case.files) < 3]
        rows = compare_onnx("keypoints", model.SerializeToString(), cases)
        rows += compare("SavedModel", ("keypoints",), saved_model_predictor(right), cases)
        return ParityReport(rows + compare_in_float64(right, cases))

    good = report(network)
    good.require()
    assert max(row.rounding for row in good.rows if row.output == "keypoints") > 1e-4

    altered = copy.deepcopy(network)
    with torch.no_grad():
        altered.get_parameter("encoder.layers.0.weight").view(-1)[100] += 1e-3
    bad = report(altered)
    assert "SavedModel in float64" in {row.path for row in bad.rows if not row.passes}
    with pytest.raises(ParityError, match=r"differs from its checkpoint by .* px"):
        bad.require()


def test_an_altered_weight_far_below_the_bounds_fails_in_float64(
    networks: dict[Task, FaceNetwork], loaded: dict[Servable, Any], faces: dict[str, Any]
) -> None:
    cases = pixel_cases(networks, few(faces), RULE)
    ParityReport(compare_in_float64(loaded, cases)).require()
    altered = copy.deepcopy(networks["emotion"])
    with torch.no_grad():
        altered.get_parameter("head.linear.bias")[1] += 1e-5
    rows = compare_in_float64(loaded, pixel_cases({**networks, "emotion": altered}, few(faces), RULE))
    assert {(row.servable, row.output) for row in rows if not row.passes} == {
        ("emotion", "probabilities"),
        ("face", "probabilities"),
    }
    assert all(row.difference < BOUNDS[row.output] / 10 for row in rows)


def test_no_rounding_is_large_enough_to_exceed_the_bounds(
    networks: dict[Task, FaceNetwork], loaded: dict[Servable, Any], faces: dict[str, Any]
) -> None:
    cases = [replace(case, rounding=dict.fromkeys(BOUNDS, 1.0)) for case in pixel_cases(networks, few(faces), RULE)]
    cases += [replace(case, rounding=dict.fromkeys(BOUNDS, 1.0)) for case in file_cases(networks, RULE)[:1]]
    for row in compare("SavedModel", SERVABLES, saved_model_predictor(loaded), cases):
        decoded = row.path == "SavedModel given files"
        assert row.tolerance == BOUNDS[row.output] + (DECODED_ALLOWANCES[row.output] if decoded else 0)


def test_decisions_that_differ_are_counted(networks: dict[Task, FaceNetwork], faces: dict[str, Any]) -> None:
    case = [case for case in pixel_cases(networks, few(faces), RULE) if len(case.files) == 2][0]

    def other(servable: Servable, signature: str, values: Inputs, /) -> Outputs:
        points = case.expected["keypoints"].astype(np.float32).copy()
        points[0, 3, 1] += 0.02
        return {"keypoints": points, "probabilities": np.roll(case.expected["probabilities"], 1, 1)}

    rows = compare("served", ("face",), other, [case], ("serving_default",))
    assert {row.output: row.agreement for row in rows} == {"keypoints": 59 / 60, "probabilities": 0.0}


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


def test_a_checkpoint_on_another_device_has_its_own_tolerance_and_the_record_names_it(
    networks: dict[Task, FaceNetwork], faces: dict[str, Any]
) -> None:
    """A CPU stands in for a GPU, and bfloat16 for a GPU that computes too coarsely."""
    cases = pixel_cases(networks, few(faces), RULE)[:3]
    rows = compare_on_device(networks, Placement.of("cpu"), cases)
    assert {(row.servable, row.output) for row in rows} == {
        ("keypoints", "keypoints"),
        ("keypoints", "deviations"),
        ("emotion", "probabilities"),
        ("emotion", "expressions"),
    }
    assert {row.batch for row in rows} == set(BATCHES[:3])
    assert {row.path for row in rows} == {"PyTorch on cpu"}
    report = ParityReport(rows)
    report.require()
    assert report.as_dict()["rule"]["of a checkpoint on a GPU"] == GPU_TOLERANCE._asdict()
    assert report.as_dict()["rule"]["TF32"] is False
    coarse = ParityReport(compare_on_device(networks, Placement.of("cpu", "bf16"), cases))
    with pytest.raises(ParityError, match="PyTorch on cpu differs from its checkpoint by .* noise faces, batch"):
        coarse.require()
    assert all(network.half_precision is None for network in networks.values()), "copies are placed"


def test_a_device_has_more_than_its_tolerance_only_where_the_checkpoint_rounds_more() -> None:
    assert device_tolerance("keypoints", 1e-5) == device_tolerance("deviations", 1e-5) == GPU_TOLERANCE.pixels
    assert device_tolerance("expressions", 4e-7) == GPU_TOLERANCE.probability
    assert device_tolerance("keypoints", 5e-4) == pytest.approx(5e-4 * (1 + ROUNDING_MULTIPLE))
    assert device_tolerance("keypoints", 1.0) == BOUNDS["keypoints"]
