"""Training runs: what they write, resume from, start from and refuse."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from emotion_ai.data.batches import resize_to_crops
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.provenance import RunRecord, environment
from emotion_ai.training.config import TrainConfig
from emotion_ai.training.modules import KeypointModule
from emotion_ai.training.train import load_splits, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

ROOT = Path(__file__).parents[2]
TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}
QUICK = [
    "model.encoder.widths=[8,16]",
    "model.encoder.depths=[1,1]",
    "data.count=200",
    "batch_size=32",
    "ema_decay=0.5",
]


def config(*overrides: str) -> DictConfig:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return compose("train", list(overrides))


def weights(out: Path, task: Any) -> dict[str, torch.Tensor]:
    return load_network(out / "network.safetensors", task)[0].state_dict()


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_a_run_leaves_everything_and_reads_back(task: Any, tmp_path: Path) -> None:
    metrics = train(config(f"task={task}", *QUICK, "epochs=2", f"out={tmp_path}"))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "network.safetensors", "run.json", "csv", "tensorboard"}
    key = "rmse" if task == "keypoints" else "accuracy"
    assert {f"val/{key}", f"test/{key}"} <= set(metrics)
    network, record = load_network(tmp_path / "best.ckpt", task)
    assert record.data is not None
    assert record.data.train.faces == 160
    saved, best = weights(tmp_path, task), network.state_dict()
    calibrated = {name for name, tensor in best.items() if not torch.equal(saved[name], tensor)}
    calibration = load_network(tmp_path / "network.safetensors", task).record.calibration
    if task == "keypoints":
        assert calibrated == {"deviations.linear.bias"}
        difference = saved["deviations.linear.bias"] - best["deviations.linear.bias"]
        torch.testing.assert_close(difference.exp(), torch.full((30,), calibration["deviation_scale"]))
    else:
        assert calibrated == {"head.linear.weight", "head.linear.bias"}
        torch.testing.assert_close(saved["head.linear.bias"] * calibration["temperature"], best["head.linear.bias"])
        assert 0 <= calibration["uncertain_below"] <= 1
        assert calibration["calibration_error_cross_fitted"] >= 0
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config(f"task={task}", *QUICK, "epochs=2", f"out={tmp_path}"))


def test_killed_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    arguments = ["task=emotion", *QUICK, "epochs=4", "task.dropout=0.3"]
    command = [sys.executable, "-m", "emotion_ai.cli", "train", *arguments, f"out={tmp_path / 'killed'}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "last.ckpt").exists():
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "run.json").exists()
    resumed = train(config(*arguments, f"out={tmp_path / 'killed'}", "resume=true"))
    straight = train(config(*arguments, f"out={tmp_path / 'straight'}"))
    assert resumed == straight
    record = json.loads((tmp_path / "killed" / "run.json").read_text())
    train(config(*arguments, f"out={tmp_path / 'killed'}", "resume=true"))
    again = json.loads((tmp_path / "killed" / "run.json").read_text())
    assert again.pop("seconds") > record.pop("seconds") / 2 > 0, "nothing is left to train, its time stays"
    assert again == record
    with pytest.raises(ConfigError, match="was trained with batch_size=32; resume with the same settings"):
        train(config(*arguments, f"out={tmp_path / 'killed'}", "resume=true", "epochs=9", "batch_size=16"))
    (tmp_path / "straight" / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        train(config(*arguments, f"out={tmp_path / 'straight'}", "resume=true"))
    first, second = weights(tmp_path / "killed", "emotion"), weights(tmp_path / "straight", "emotion")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_starts_from_given_weights_and_its_last_checkpoint_is_that_of_the_last_epoch(
    tmp_path: Path, make_network: Callable[..., FaceNetwork]
) -> None:
    file = tmp_path / "first.safetensors"
    save_network(make_network("emotion", TINY, head="regression"), file, RunRecord())
    still = [*QUICK, "task=emotion", f"init_from={file}", "optimizer.lr=0", "epochs=3", "classes=seven"]
    train(
        config(*still, f"teachers=[{file}]", "distill_weight=0.5", f"out={tmp_path / 'still'}")
    )  # nothing gets better
    last = torch.load(tmp_path / "still" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2
    first, after = (load_network(path, "emotion")[0] for path in (file, tmp_path / "still" / "last.ckpt"))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), after.parameters(), strict=True))
    with pytest.raises(ConfigError, match="distill_weight=0.5 with 0 teachers"):
        train(config(*QUICK, "task=emotion", "distill_weight=0.5", f"out={tmp_path / 'none'}"))
    with pytest.raises(ConfigError, match="holds another network"):
        train(config(*still, "model.encoder.widths=[8,8]", f"out={tmp_path / 'other'}"))


def test_the_metrics_of_a_run_are_those_of_the_weights_that_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the best epoch is not the last, whose averaged weights must not be evaluated instead."""
    monkeypatch.setattr(KeypointModule, "mode", "max")
    cfg = config(*QUICK, "task=keypoints", "data.test=synthetic", "epochs=3", f"out={tmp_path}")
    metrics = train(cfg)
    best, last = (torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last"))
    assert best < last
    network, splits = (
        load_network(tmp_path / "network.safetensors", "keypoints")[0],
        load_splits(TrainConfig.of(cfg)),
    )
    for name, faces in {"val": splits.val, "test": splits.test}.items():
        with torch.inference_mode():
            errors = network(resize_to_crops(torch.from_numpy(faces.images))) - torch.from_numpy(faces.targets)
        assert metrics[f"{name}/rmse"] == pytest.approx(errors.square().mean().sqrt().item(), rel=1e-4)


def test_a_network_that_saw_validation_faces_cannot_start_or_teach(tmp_path: Path) -> None:
    first = tmp_path / "first"
    settings = [*QUICK, "task=emotion", "epochs=1"]
    train(config(*settings, f"out={first}", "test=false"))
    record = json.loads((first / "run.json").read_text())
    assert not any(name.startswith("test/") for name in record["metrics"])
    weights = first / "network.safetensors"
    for other, had in (("data.val=0.2", "data.val=0.1"), ("data.split=[0.6,0.2,0.2]", "data.split=null")):
        for given in ([f"init_from={weights}"], [f"teachers=[{weights}]", "distill_weight=0.5"]):
            with pytest.raises(ConfigError, match=f"another split.*{had}"):
                train(config(*settings, other, *given, f"out={tmp_path / 'second'}"))
    train(
        config(
            *settings,
            f"init_from={weights}",
            f"teachers=[{weights}]",
            "distill_weight=0.5",
            f"out={tmp_path / 'third'}",
        )
    )
    train(config(*settings, f"init_from={weights}", "seed=1", f"out={tmp_path / 'fourth'}"))  # other synthetic faces


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
def test_the_shortest_run_has_a_schedule(steps: int, tmp_path: Path) -> None:
    shortest = ["epochs=1", "data.count=40", f"batch_size={math.ceil(32 / steps)}", "test=false"]
    train(config(*QUICK, *shortest, f"out={tmp_path / 'run'}"))


def test_a_run_is_recorded_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["revision"] is None


@pytest.mark.slow
@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_two_processes_train_as_one_with_the_same_global_batch(task: Any, tmp_path: Path) -> None:
    plain = ["flip", "rotation", "scale", "shift", "brightness", "contrast", "blur", "noise", "erasing"]
    settings = [f"task={task}", *QUICK, *(f"task.augment.{name}=0" for name in plain), "epochs=3", "patience=null"]
    settings += ["+callbacks.freeze._target_=tests.training.freeze.FreezeStatistics", "logger=csv"]
    settings += ["task.dropout=0"] if task == "emotion" else []
    together = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
    command = [sys.executable, "-m", "emotion_ai.cli", "train"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    for name, given in (("one", ["batch_size=32"]), ("two", [*together, "batch_size=16"])):
        arguments = [*command, *settings, *given, f"out={tmp_path / name}"]
        result = subprocess.run(arguments, timeout=240, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-2000:]
    curves = [pd.read_csv(tmp_path / name / "csv/version_0/metrics.csv").filter(like="val/") for name in ("one", "two")]
    one, two = (curve.dropna(how="all").to_numpy() for curve in curves)
    assert len(one) == 4, "three epochs, and the calibrated network"
    np.testing.assert_allclose(two, one, atol=1e-5, rtol=1e-5)
    first, second = (load_network(tmp_path / name / "last.ckpt", task).network.state_dict() for name in ("one", "two"))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
