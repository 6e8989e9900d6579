"""Losses, distillation, mixup and metrics of the training modules."""

import math
from typing import Any

import pytest
import torch

from emotion_ai.class_set import SEVEN
from emotion_ai.contract import MEAN_FACE
from emotion_ai.data.augment import Augmentation
from emotion_ai.data.batches import resize_to_crops
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import CheckpointError, ConfigError
from emotion_ai.models import FaceNetwork
from emotion_ai.training.modules import CalibratedLoss, EmotionModule, FaceModule, KeypointModule, Teachers
from emotion_ai.training.networks import init_from_checkpoint, init_from_facemesh

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


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


def test_mixup_blends_faces_and_their_targets_by_the_same_shares() -> None:
    settings: dict[str, Any] = {"augment": Augmentation(), "seed": 0, "network": FaceNetwork("emotion", TINY)}
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


def test_a_teacher_of_five_emotions_divides_their_share_in_a_network_of_seven() -> None:
    settings: dict[str, Any] = {"augment": Augmentation(), "seed": 0, "class_weight_power": 0.0}
    network = FaceNetwork("emotion", TINY, classes=SEVEN.names)
    module = EmotionModule(network=network, **settings, class_counts=[1] * 7, label_smoothing=0.0, mixup=0.0)
    outputs = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    five = torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1]]).expand(3, 5)
    soft = torch.tensor([[0.2, 0.0, 0.2, 0.0, 0.0, 0.1, 0.5]])
    targets = torch.cat([torch.eye(7)[[3, 6]], soft])
    expected = torch.zeros(3, 7)
    expected[0, :5], expected[1, 6] = five[0], 1  # a happy face is the teacher's, a neutral one its label's
    expected[2, :5], expected[2, 5:] = 0.4 * five[0], torch.tensor([0.1, 0.5])
    loss = module.teacher_loss(outputs, five, targets)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(outputs, expected))
    seven = torch.softmax(torch.randn(3, 7), 1)  # a teacher of seven is taken as it is
    torch.testing.assert_close(
        module.teacher_loss(outputs, seven, targets), torch.nn.functional.cross_entropy(outputs, seven)
    )


def test_a_network_of_seven_starts_with_the_rows_of_a_network_of_five() -> None:
    start = FaceNetwork("emotion", TINY, mean=100.0)
    arguments: dict[str, Any] = {"task": "emotion", "encoder": TINY, "classes": ("Sad", "calm-ish", "Angry")}
    network = init_from_checkpoint("a.ckpt", start, arguments)
    old, new = (net.state_dict()["head.linear.weight"] for net in (start, network))
    assert torch.equal(new[0], old[2])
    assert torch.equal(new[2], old[0])
    assert not new[1].any()
    assert network.mean == 100.0
    with pytest.raises(ConfigError, match=r"init_from=a.ckpt: has the classes Angry, .*, none of them wanted"):
        init_from_checkpoint("a.ckpt", start, arguments | {"classes": ("cat", "dog")})


def test_a_tflite_file_starts_facemeshs_encoder_only() -> None:
    with pytest.raises(ConfigError, match=r"init_from=face\.tflite: a \.tflite file is for model=facemesh"):
        init_from_facemesh("face.tflite", {"task": "keypoints", "encoder": TINY})
    with pytest.raises(CheckpointError, match=r"face\.tflite"):
        init_from_facemesh("face.tflite", {"task": "keypoints", "encoder": {"name": "facemesh"}})
