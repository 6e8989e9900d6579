"""LiteRT files: made, gated, and run where a crash ends nothing but a check."""

import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_ai.contract import Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, ExportError, ParityError
from emotion_ai.models import FaceNetwork, load_network
from emotion_ai_export.convert import litert_parity, parity_cases
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.litert import litert_kinds, run_litert
from emotion_ai_export.convert.litert_parity import GATES, compare_litert, litert_of
from emotion_ai_export.convert.parity import ParityReport
from emotion_ai_export.convert.parity_cases import ParityCase, pixel_cases
from tests.conftest import ENCODERS, random_network

TASKS: tuple[Task, ...] = ("keypoints", "emotion")


@pytest.fixture(scope="module")
def networks() -> dict[Task, FaceNetwork]:
    """The bundled points, and 32 channels for emotions: LiteRT's int8 kernels crash on networks of 8."""
    emotion = random_network("emotion", ENCODERS["emotion"] | {"widths": [32, 32]})
    return {"keypoints": load_network("bundled", "keypoints").network, "emotion": emotion}


@pytest.fixture(scope="module")
def files(networks: dict[Task, FaceNetwork]) -> dict[tuple[Task, Any], bytes]:
    faces = synthetic_faces(16, 5).images
    graphs = {task: to_graph(to_onnx(network)) for task, network in networks.items()}
    return {(task, kind): litert_of(graphs[task], kind, faces) for task in TASKS for kind in GATES}


@pytest.fixture(scope="module")
def cases(networks: dict[Task, Any]) -> list[ParityCase]:
    return pixel_cases(networks, {"synthetic": synthetic_faces(64, 0).images})


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("task", TASKS)
def test_each_kind_keeps_to_its_gate(task: Task, kind: Any, files: dict[Any, bytes], cases: list[ParityCase]) -> None:
    rows = compare_litert(task, kind, files[task, kind], cases)
    ParityReport(rows).require()
    assert {row.batch for row in rows} == set(parity_cases.BATCHES)
    assert {row.size for row in rows} == {len(files[task, kind])}
    decided = [row for row in rows if row.batch == 64 and row.agreement is not None]
    assert {row.least_agreement for row in decided} == {GATES[kind].agreement}


def test_the_files_are_smaller_and_take_and_give_float32(files: dict[Any, bytes], tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    for task in TASKS:
        sizes = [len(files[task, kind]) for kind in ("float32", "float16")]
        assert sizes == sorted(sizes, reverse=True)
        for kind in GATES:
            interpreter = Interpreter(model_content=files[task, kind])
            (given,) = interpreter.get_input_details()
            assert (given["dtype"], list(given["shape_signature"])) == (np.float32, [-1, 96, 96, 1])
            assert {each["dtype"] for each in interpreter.get_output_details()} == {np.float32}


def test_int8_has_weights_with_a_scale_for_each_channel_and_ends_in_float32(files: dict[Any, bytes]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(model_content=files["keypoints", "int8"]).get_tensor_details()
    weights = [
        each for each in details if each["dtype"] == np.int8 and each["shape"].size == 4 and "quant" in str(each)
    ]
    assert max(len(each["quantization_parameters"]["scales"]) for each in weights) >= 16
    last = [each for each in details if each["dtype"] == np.float32 and list(each["shape"][1:]) == [15, 2]]
    assert len(last) >= 2, "points are computed in float32"


@pytest.mark.parametrize("kind", GATES)
def test_a_file_of_another_network_fails(kind: Any, make_network: Any, files: dict[Any, bytes], networks: Any) -> None:
    encoder = networks["emotion"].spec.encoder
    other: dict[Task, FaceNetwork] = {"emotion": make_network("emotion", encoder, seed=3)}
    rows = compare_litert(
        "emotion", kind, files["emotion", kind], pixel_cases(other, {"synthetic": synthetic_faces(64, 0).images})
    )
    with pytest.raises(ParityError, match=f"LiteRT {kind} .* its checkpoint .* emotion, serving_default"):
        ParityReport(rows).require()


def test_too_few_equal_decisions_fail_though_each_difference_is_small(
    files: dict[Any, bytes], cases: list[ParityCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = litert_parity.LiteRTGate(100.0, 1.0, 5, 0.99)
    monkeypatch.setitem(litert_parity.GATES, "int8", strict)
    with pytest.raises(
        ParityError, match=r"LiteRT int8 decides as its checkpoint in .*% of the cases, not in 99%: keypoints"
    ):
        ParityReport(compare_litert("keypoints", "int8", files["keypoints", "int8"], cases)).require()


def test_a_crash_of_the_interpreter_is_one_clear_error(
    files: dict[Any, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crash = tmp_path / "python"
    crash.write_text(f"#!/bin/sh\nkill -{signal.SIGSEGV} $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(ExportError, match=r"LiteRT int8 of x: the interpreter crashes \(.*\); leave it out"):
        run_litert(files["emotion", "int8"], [], "int8 of x")


def test_garbage_is_one_clear_error() -> None:
    with pytest.raises(ExportError, match="LiteRT float32 of x: the interpreter fails: "):
        run_litert(b"\x00garbage" * 9, [], "float32 of x")


def test_other_kinds_are_refused() -> None:
    assert litert_kinds(["int8", "float32", "int8"], "litert=") == ("float32", "int8")
    with pytest.raises(
        ConfigError, match="litert=: unknown kind of LiteRT file 'int4'; choose from float32, float16, int8"
    ):
        litert_kinds(["int4"], "litert=")
