"""The benchmark of training: the customary pipeline, the stages of a step, ratios and memory."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emotion_ai.benchmarks.customary import CustomaryFaces, CustomaryTraining
from emotion_ai.benchmarks.training import (
    Comparison,
    PipelineSpeed,
    TrainingSpeed,
    compare,
    comparison_table,
    cpu_seconds_of,
    cpu_trainer,
    memory_of,
    stage_table,
)
from emotion_ai.benchmarks.training_runs import (
    INPUT,
    STAGES,
    EpochClock,
    StageClock,
    TrainingSetting,
    build,
    fit,
    measure_stages,
    random_faces,
)
from emotion_ai.contract import FLIP
from emotion_ai.data.augment import Augmentation
from emotion_ai.data.batches import resize_to_crops
from emotion_ai.data.synthetic import synthetic_faces

SMALL = TrainingSetting("keypoints", "keypoints", 4, "cpu", overrides=("model=small",))


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16", "avx2"])
def test_bfloat16_is_for_processors_that_have_units_for_it(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, unit: True}, raising=False)
    assert cpu_trainer() == ("cpu" if unit == "avx2" else "cpu_bf16")


def test_a_customary_sample_is_ours_without_changes() -> None:
    for task, rounding in (("keypoints", 0.0), ("emotion", 1.0)):
        faces = random_faces(task, 3)  # type: ignore[arg-type]
        image, target = CustomaryFaces(faces, Augmentation())[1]
        assert image.dtype == torch.float32
        torch.testing.assert_close(
            image, resize_to_crops(torch.from_numpy(faces.images))[1], rtol=0, atol=rounding + 1e-4
        )
        np.testing.assert_allclose(np.asarray(target), faces.targets[1], atol=1e-4)


def test_the_customary_mirror_image_exchanges_the_points_of_both_sides() -> None:
    faces = synthetic_faces(1, seed=0).faces("keypoints")
    image, target = CustomaryFaces(faces, Augmentation(flip=1.0))[0]
    np.testing.assert_allclose(image[0].numpy(), faces.images[0][:, ::-1], atol=1e-4)
    expected = np.stack([95 - faces.points[0, :, 0], faces.points[0, :, 1]], -1)[list(FLIP)]
    np.testing.assert_allclose(target.numpy(), expected, atol=1.01)  # torchvision counts from pixels' edges


def test_the_customary_pipeline_changes_faces_and_trains(tmp_path: Path) -> None:
    run = build(SMALL, tmp_path, 2, 1)
    augment = run.config.task.augment
    sample = CustomaryFaces(run.splits.train, augment)
    assert not torch.equal(sample[0][0], sample[0][0])
    assert sample[0][0].min() >= 0
    assert sample[0][0].max() <= 255.01
    training = CustomaryTraining(run, workers=0, half=torch.bfloat16, channels_last=True)
    before = [parameter.detach().clone() for parameter in training.module.network.parameters()]
    training.epoch()
    after = list(training.module.network.parameters())
    assert sum(not torch.equal(p, q) for p, q in zip(before, after, strict=True)) > len(before) / 2
    assert all(parameter.isfinite().all() for parameter in after)


def test_the_stages_make_up_the_epoch(tmp_path: Path) -> None:
    run = build(SMALL, tmp_path, 4, 1)
    slow, augmented = 0.05, run.module.augmented

    def augment_slowly(*arguments: Any) -> Any:
        time.sleep(slow)
        return augmented(*arguments)

    run.module.augmented = augment_slowly  # type: ignore[method-assign, assignment]
    clock, stages = EpochClock(torch.device("cpu")), StageClock(torch.device("cpu"))
    fit(run, clock, stages)
    assert 4 * slow < sum(stages.seconds.values()) < 1.5 * clock.seconds[0]
    assert all(seconds > 0 for seconds in stages.seconds.values()), stages.seconds
    assert stages.seconds["augment"] >= 4 * slow


def test_stage_times_leave_out_the_first_epoch(tmp_path: Path) -> None:
    found = measure_stages(SMALL, tmp_path, batches=2, epochs=1)
    assert tuple(found.milliseconds) == STAGES
    share = sum(found.milliseconds[stage] for stage in INPUT) / sum(found.milliseconds.values())
    assert found.input_share == pytest.approx(share)
    assert found.images_per_second > 0
    row = stage_table([found]).texts[0]
    assert row[0] == "keypoints, 4, cpu"
    content = TrainingSpeed((), (found,)).as_dict()
    assert content["records"] == [
        {"name": "training/keypoints/input share", "value": found.input_share, "unit": "share of a step"}
    ]


def test_a_ratio_is_that_of_rounds_that_belong_together() -> None:
    ours = PipelineSpeed("ours", (20.0, 40.0), 1, (2.0, 2.0))
    customary = PipelineSpeed("customary", (10.0, 20.0), 2 << 20, (5.0, 5.0))
    comparison = Comparison(SMALL, (ours, customary))
    ratio, interval = comparison.ratio(customary)
    assert ratio == pytest.approx(2)
    assert interval is not None
    assert interval.low == pytest.approx(2)
    assert comparison.ratio(ours)[0] == 1
    assert comparison_table([comparison]).texts[1] == [
        *("keypoints: customary", "15.0", "2", "2.00", "2.00 to 2.00"),
        *("5.00", "2.50"),
    ]
    single = Comparison(SMALL, (PipelineSpeed("ours", (3.0,), 1), PipelineSpeed("customary", (2.0,), 1)))
    ratio, interval = single.ratio(single.speeds[1])
    assert ratio == pytest.approx(1.5)
    assert interval is None
    records = {record["name"]: record for record in TrainingSpeed((comparison,), ()).as_dict()["records"]}
    assert records["training/keypoints/ours to customary"]["value"] == pytest.approx(2)
    assert math.isclose(records["training/keypoints/customary"]["value"], 15)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_counts_what_a_process_has_started() -> None:
    code = "b = bytearray(b'x') * (60 << 20); print(flush=True); input()"
    before, busy = memory_of(os.getpid()), cpu_seconds_of(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert memory_of(os.getpid()) - before > 55 << 20
    assert cpu_seconds_of(process.pid) > 0
    assert cpu_seconds_of(os.getpid()) >= busy + cpu_seconds_of(process.pid)
    process.communicate(b"\n")
    assert memory_of(process.pid) == 0


@pytest.mark.slow
def test_pipelines_take_turns() -> None:
    found = compare(SMALL, batches=2, rounds=2, threads=1)
    assert [speed.pipeline for speed in found.speeds] == ["ours", "customary", "customary, our precision"]
    for speed in found.speeds:
        assert len(speed.images_per_second) == 2
        assert all(rate > 0 for rate in speed.images_per_second)
        assert speed.memory > 100 << 20
        assert all(milliseconds > 0 for milliseconds in speed.cpu_milliseconds)
