import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from emotion_ai.contract import MEAN_FACE
from emotion_ai.data.augment import Augmentation
from emotion_ai.data.batches import Batches, resize_to_crops
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models import FaceNetwork, load_network, save_network
from emotion_ai.provenance import RunRecord, environment
from emotion_ai.training.config import TrainConfig
from emotion_ai.training.modules import CalibratedLoss, EmotionModule, FaceModule, KeypointModule, Teachers
from emotion_ai.training.train import load_splits, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

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
    with pytest.raises(ConfigError, match="was trained with batch_size=32, epochs=4; resume with the same settings"):
        train(config(*arguments, f"out={tmp_path / 'killed'}", "resume=true", "epochs=9", "batch_size=16"))
    (tmp_path / "straight" / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        train(config(*arguments, f"out={tmp_path / 'straight'}", "resume=true"))
    first, second = weights(tmp_path / "killed", "emotion"), weights(tmp_path / "straight", "emotion")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_eight_faces_can_be_overfitted(task: Any) -> None:
    torch.manual_seed(0)
    faces = synthetic_faces(8, seed=3).faces(task)
    network = FaceNetwork(task, TINY)
    settings: dict[str, Any] = {"network": network, "augment": Augmentation(), "seed": 0}
    module: FaceModule = (
        KeypointModule(**settings, smooth_l1_beta=3.0)
        if task == "keypoints"
        else EmotionModule(
            **settings, class_counts=[2, 2, 2, 1, 1], class_weight_power=0.0, label_smoothing=0.0, mixup=0.0
        )
    )
    images, targets = resize_to_crops(torch.from_numpy(faces.images)), torch.from_numpy(faces.targets)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        module.loss(module.outputs(images), targets).backward()
        optimizer.step()
    scores = network.scores(images)
    if task == "keypoints":
        assert (scores - targets).square().mean().sqrt() < 0.8
    else:
        assert (scores.argmax(1) == targets).all()


def test_points_without_a_label_are_ignored() -> None:
    settings: dict[str, Any] = {"augment": Augmentation(), "seed": 0}
    module = KeypointModule(network=FaceNetwork("keypoints", TINY), **settings, smooth_l1_beta=3.0)
    targets = torch.tensor(MEAN_FACE)[None].repeat(2, 1, 1)
    scores, deviations = (targets + 5).requires_grad_(), torch.full_like(targets, 5.0).requires_grad_()
    targets[0, 3:], targets[1, :] = torch.nan, torch.nan
    loss = module.loss((scores, deviations), targets)
    loss.backward()
    nll = math.log(5) + 0.5  # of an error of one standard deviation
    assert loss.item() == pytest.approx(5 - 1.5 + nll)  # |error| - beta / 2
    assert scores.grad is not None
    assert (scores.grad != 0).sum() == 6
    torch.testing.assert_close(scores.grad[0, :3], torch.full((3, 2), 1 / 6))  # the deviations pull no point
    torch.testing.assert_close(deviations.grad, torch.zeros_like(targets))  # they are as large as the errors
    assert module.loss((scores, deviations), torch.full_like(targets, torch.nan)).item() == 0


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_teachers_alternate_between_crops_and_mirror_images_and_are_not_trained(task: Any) -> None:
    teachers = tuple(moved(FaceNetwork(task, TINY), seed) for seed in range(2))
    settings: dict[str, Any] = {"augment": Augmentation(), "seed": 0}
    own: dict[str, Any] = {"smooth_l1_beta": 3.0}
    if task == "emotion":
        own = {"class_counts": [1] * 5, "class_weight_power": 0.0, "label_smoothing": 0.0, "mixup": 0.0}
    module = (KeypointModule if task == "keypoints" else EmotionModule)(
        network=FaceNetwork(task, TINY), **settings, **own, teachers=Teachers(teachers, 0.5)
    )
    assert {id(p) for p in module.parameters()} == {id(p) for p in module.network.parameters()}
    images = torch.rand(3, 1, 96, 96) * 255
    mean = sum(module.teacher_targets(images, draw) for draw in range(4)) / 4
    with torch.no_grad():
        expected = sum(teacher(images) + teacher.mirrored(images) for teacher in teachers) / 4
    torch.testing.assert_close(mean, expected)


def test_predictions_for_shifted_crops_are_moved_back() -> None:
    views = set()

    class Brightest(torch.nn.Module):
        """Answers with the brightest pixel, fifteen times."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            row, column = divmod(int(images.argmax()), 96)
            views.add((column, row))
            return torch.tensor([column, row]).float().expand(1, 15, 2)

        mirrored = forward

    settings: dict[str, Any] = {"network": FaceNetwork("keypoints", TINY), "augment": Augmentation(), "seed": 0}
    settings |= {"smooth_l1_beta": 3.0, "teachers": Teachers((Brightest(),), 0.5, shift_px=2)}  # type: ignore[arg-type]
    module = KeypointModule(**settings)
    images = torch.zeros(1, 1, 96, 96)
    images[0, 0, 30, 70] = 255
    for draw in range(2 * 5 * 5):
        torch.testing.assert_close(module.teacher_targets(images, draw), torch.tensor([70.0, 30.0]).expand(1, 15, 2))
    assert views == {(70 + across, 30 + down) for across in range(-2, 3) for down in range(-2, 3)}


def moved(network: FaceNetwork, seed: int) -> FaceNetwork:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    return network.eval()


def test_a_run_starts_from_given_weights_and_its_last_checkpoint_is_that_of_the_last_epoch(tmp_path: Path) -> None:
    file = tmp_path / "first.safetensors"
    save_network(moved(FaceNetwork("emotion", TINY), 0), file, RunRecord())
    still = [*QUICK, "task=emotion", f"init_from={file}", "optimizer.lr=0", "epochs=3"]
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


def test_rare_classes_weigh_more_and_the_mean_weight_is_one() -> None:
    settings: dict[str, Any] = {"augment": Augmentation(), "seed": 0}
    counts = [100, 2, 100, 200, 50]
    module = EmotionModule(
        network=FaceNetwork("emotion", TINY),
        **settings,
        class_counts=counts,
        class_weight_power=0.5,
        label_smoothing=0.0,
        mixup=0.0,
    )
    weight = module.class_weights
    assert weight.argmax() == 1
    assert float((weight * torch.tensor(counts)).sum() / sum(counts)) == pytest.approx(1)


def test_epochs_are_chosen_by_the_loss_that_calibration_would_leave() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 5, generator=generator) * 2
    labels = torch.distributions.Categorical(logits=logits).sample()
    metric, cooler = CalibratedLoss(), CalibratedLoss()
    for part in torch.arange(400).split(150):
        metric.update(logits[part], labels[part])
        cooler.update(logits[part] / 4, labels[part])
    assert metric.compute() <= torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(cooler.compute(), metric.compute(), rtol=0, atol=1e-5)
    metric.update(torch.full((1, 5), torch.nan), torch.tensor([0]))
    assert metric.compute() == torch.inf


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


def test_mixup_blends_faces_and_their_targets_by_the_same_shares() -> None:
    settings: dict[str, Any] = {"augment": Augmentation(), "seed": 0, "network": None}
    settings |= {"class_counts": [1] * 5, "class_weight_power": 0.0, "label_smoothing": 0.0}
    gray = torch.tensor([0.0, 50.0, 100.0, 150.0, 200.0])
    images, keys = gray[:, None, None, None].expand(5, 1, 96, 96).contiguous(), torch.arange(5)
    blended, targets = EmotionModule(**settings, mixup=0.4).augmented(images, torch.arange(5), keys)
    assert not torch.equal(blended, images)
    torch.testing.assert_close(targets.sum(1), torch.ones(5))
    assert ((targets > 0).sum(1) <= 2).all()
    torch.testing.assert_close(blended[:, 0, 48, 48], targets @ gray, rtol=0, atol=1e-3)
    same, classes = EmotionModule(**settings, mixup=0.0).augmented(images, torch.arange(5), keys)
    torch.testing.assert_close(same, images)
    assert torch.equal(classes, torch.arange(5))


def test_batches_share_an_epoch_between_processes() -> None:
    faces = synthetic_faces(23, seed=0).faces("emotion")
    epoch = 0

    def rows(rank: int, world: int) -> list[int]:
        batches = Batches(faces, 5, torch.device("cpu"), lambda: epoch, shuffle_seed=1, rank=rank, world=world)
        found = [row for _, _, rows in batches for row in rows.tolist()]
        assert len(found) == len(batches) * 5
        return found

    first, second = rows(0, 2), rows(1, 2)
    assert not set(first) & set(second)
    assert len(first) == len(second) == 10
    before = rows(0, 1)
    epoch = 1
    assert rows(0, 1) != before
    kept = Batches(faces, 5, torch.device("cpu"), lambda: 0)
    assert [row for _, _, rows in kept for row in rows.tolist()] == list(range(23))
    assert len(kept) == 5


def test_small_images_take_the_one_resize() -> None:
    from emotion_ai.vision.crops import resize_to_crop

    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48), dtype=np.uint8)
    crops = resize_to_crops(torch.from_numpy(images))
    expected = np.stack([resize_to_crop(image) for image in images])
    np.testing.assert_allclose(crops[:, 0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.split=[0.8,0.1,0.1]", "data.folds=5"], "contradict"),
        (["data.split=[0.8,0.2]"], "data.split must be a list of 3 values, each a number >= 0 and <= 1 or null"),
        (["data.folds=3", "data.fold=3"], "data.fold must be an integer < 3"),
        (["data.fold=3"], "needs the number of folds"),
        (["data.folds=1"], "data.folds must be an integer >= 2 or null, got 1"),
        (["data.folds=2.5"], "data.folds must be an integer >= 2 or null, got 2.5"),
        (["data.split=abc"], "data.split must be a list of 3 values"),
        (["data.split=[0.8,0.1,x]"], "data.split must be a list of 3 values"),
        (["data.val=1.5"], "data.val must be a number > 0 and < 1 or text, got 1.5"),
        (["data.val=0.2", "data.split=[0.8,0.1,0.1]"], "data.val=0.2 and data.split contradict"),
        (["data.test=synthetic", "data.folds=3"], "data.test and data.folds contradict"),
        (["epochs=0"], "epochs must be an integer >= 1, got 0"),
        (["epochs=abc"], "epochs must be an integer >= 1, got abc"),
        (["epochs=null"], "epochs must be an integer >= 1, got null"),
        (["batch_size=true"], "batch_size must be an integer >= 1, got True"),
        (["seed=abc"], "seed must be an integer >= 0 and <= 2147483647, got abc"),
        (["ema_decay=1"], "ema_decay must be a number >= 0 and < 1, got 1"),
        (["ema_decay=nan"], "ema_decay must be a number"),
        (["patience=-1"], "patience must be an integer >= 0 or null, got -1"),
        (["test=2"], "test must be true or false, got 2"),
        (["teacher_shift_px=-1"], "teacher_shift_px must be an integer >= 0 and <= 48, got -1"),
        (["teacher_shift_px=2"], "no effect without teachers"),
        (["optimizer.lr=-1"], "optimizer.lr must be a number >= 0, got -1"),
        (["optimizer._target_=torch.optim.Lion"], "optimizer: "),
        (["+optimizer.momentum=0.9"], "optimizer: .*momentum"),
        (["scheduler.pct_start=1"], "scheduler.pct_start must be a number > 0 and < 1, got 1"),
        (
            ["+scheduler.final_factor=1"],
            "unknown setting scheduler.final_factor; did you mean scheduler.final_div_factor",
        ),
        (["task.augment.rotation=x"], "task.augment.rotation must be a number >= 0, got x"),
        (["task.augment.flip=2"], "task.augment.flip must be a number >= 0 and <= 1, got 2"),
        (["task.augment.erasing_size=[0.4,0.1]"], "erasing_size must be .smallest, largest."),
        (["task=emotion", "task.dropout=7"], "task.dropout must be a number >= 0 and < 1, got 7"),
        (["task=emotion", "task.label_smoothing=3"], "task.label_smoothing must be a number >= 0 and <= 1, got 3"),
        (["task=emotion", "task.vote_weight=3"], "task.vote_weight must be a number >= 0 and <= 1, got 3"),
        (["task=emotion", "task.mixup=-1"], "task.mixup must be a number >= 0, got -1"),
        (["task=emotion", "data.count=30"], "the validation split has 3 faces and needs 5"),
        (["task=emotion", "+model.head.name=heatmap"], "model.head is for task=keypoints"),
        (["model.encoder.name=vgg"], "unknown encoder"),
        (["+epoch=3"], "unknown setting epoch; did you mean epochs"),
        (["+trainer.fast_run=true"], "unknown setting trainer.fast_run; did you mean trainer.fast_dev_run"),
        (["+trainer.max_epochs=3"], "trainer.max_epochs is set by train; give epochs="),
        (["+trainer.logger=false"], "trainer.logger is set by train; choose logger="),
        (["trainer.accelerator=abacus"], "Lightning refuses .*abacus"),
    ],
)
def test_settings_that_do_not_fit(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(config(*QUICK, f"out={tmp_path / 'run'}", *overrides))


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
def test_two_processes_train_together(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emotion_ai.cli", "train", *QUICK, "epochs=1", f"out={tmp_path / 'run'}"]
    command += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true"]
    subprocess.run(command, check=True, timeout=240, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert (tmp_path / "run" / "run.json").exists()
