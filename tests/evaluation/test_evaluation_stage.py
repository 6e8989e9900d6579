import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from emotion_ai.data.batches import resize_to_crops
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.predictions import predict
from emotion_ai.evaluation.robustness import _LOOKS, robustness
from emotion_ai.evaluation.stage import _seen, evaluate
from emotion_ai.models import FaceNetwork, save_network

TINY = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


def network(task: Any, seed: int = 0) -> FaceNetwork:
    torch.manual_seed(seed)
    made = FaceNetwork(task, TINY)
    for parameter in made.head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return made.eval()


def config(*overrides: str) -> DictConfig:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return compose("evaluate", list(overrides))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    def save(task: Any, seed: int = 0) -> Path:
        path = tmp_path / f"{task}{seed}.safetensors"
        save_network(network(task, seed), path, {"seed": seed, "metrics": {"val/loss": 1.0}})
        return path

    return save


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_a_report_holds_its_figures(task: Any, tmp_path: Path, checkpoint: Any) -> None:
    out, card = tmp_path / "out", tmp_path / "card.md"
    arguments = [f"task={task}", f"checkpoint={checkpoint(task)}", f"against={checkpoint(task, 1)}", f"out={out}"]
    figures = evaluate(config(*arguments, f"card={card}", "robustness=true"))
    report = json.loads((out / "report.json").read_text())
    page = (out / "report.html").read_text()
    key = "rmse" if task == "keypoints" else "accuracy"
    headline = report["headlines"][key]
    assert headline["value"] == pytest.approx(figures[key])
    assert headline["low"] <= headline["value"] <= headline["high"]
    assert headline["n"] == report["faces"] == 500
    for text in (page, card.read_text()):
        assert f"{figures[key]:.4f}" in text
        assert report["command"] in text
    assert page.count("data:image/png;base64,") >= 4
    explained = "Where the network looked" if task == "emotion" else "Where the points may lie"
    assert f'alt="{explained}" src="data:image/png' in page
    assert any(name.startswith("Abstention") for name in report["tables"]) == (task == "emotion")
    assert any(name.startswith("Against") for name in report["tables"])
    changes = next(rows for name, rows in report["tables"].items() if name.startswith("Robustness"))
    assert changes["as it is"].endswith("(+0.0000)")
    assert any(name.startswith("Deviations") for name in report["tables"]) == (task == "keypoints")
    with np.load(out / "predictions.npz") as saved:
        assert saved["answers"].shape == ((500, 15, 2) if task == "keypoints" else (500, 5))


@pytest.mark.parametrize(
    ("judged", "part", "said"),
    [
        ("a", "PublicTest", "never trained or chosen on"),
        ("a", "Training", "among which are faces that it was trained on"),
        ("a", None, "among which are faces that it was trained on"),
        ("b", None, "never trained or chosen on"),
    ],
)
def test_a_report_says_whether_its_faces_were_learnt_from(judged: str, part: str | None, said: str) -> None:
    record = {"data": {"how": "Usage: Training, PublicTest", "train": {"fingerprint": "a"}}}
    assert _seen(judged, part, record) == said
    assert "does not say" in _seen(judged, part, {})


def test_a_card_speaks_of_what_was_judged(tmp_path: Path, checkpoint: Any) -> None:
    face = {"faces": 7, "source": "mine.csv", "fingerprint": "m"}
    record = {"data": {"how": "separate file", "train": face, "select": face}, "calibration": {"temperature": 0.5}}
    save_network(network("emotion"), tmp_path / "mine.safetensors", record)
    arguments = ["task=emotion", f"out={tmp_path / 'out'}"]
    for file, flip in (("mine", True), ("emotion0", False)):
        if file == "emotion0":
            checkpoint("emotion")
        card = tmp_path / f"{file}.md"
        evaluate(config(*arguments, f"checkpoint={tmp_path / file}.safetensors", f"flip={flip}", f"card={card}"))
        text = card.read_text()
        assert ("mirror image; 95 %" in text) == flip != ("single forward pass" in text)
        assert ("7 faces of `mine.csv`, separate file." in text) == (file == "mine")
        assert ("| temperature" in text) == (file == "mine")
        assert "FER2013 without" not in text
    for place in (tmp_path, tmp_path / "none" / "card.md"):
        with pytest.raises(ConfigError, match="card=.*give a file"):
            evaluate(config(*arguments, "checkpoint=none", f"card={place}"))


def test_a_batch_gives_what_single_faces_give_and_small_faces_are_resized() -> None:
    images = synthetic_faces(5, 0).images
    for faces in (images, images[:, ::2, ::2]):
        whole = predict(network("emotion"), faces)
        singles = np.concatenate([predict(network("emotion"), face[None]) for face in faces])
        np.testing.assert_allclose(whole, singles, atol=1e-6)


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_flip_averaging_gives_mirrored_answers_for_mirrored_faces(task: Any) -> None:
    images = synthetic_faces(3, 0).images
    straight = predict(network(task), images, flip=True)
    mirrored = predict(network(task), np.ascontiguousarray(images[..., ::-1]), flip=True)
    if task == "keypoints":
        from emotion_ai.contract import FLIP

        mirrored = np.stack([95 - mirrored[..., 0], mirrored[..., 1]], -1)[:, list(FLIP)]
    np.testing.assert_allclose(straight, mirrored, atol=1e-3)


def test_robustness_keeps_the_points_under_the_pixels() -> None:
    class Oracle(FaceNetwork):
        """Answers with the brightest pixel, so that only a wrong warp of the points can cost anything."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            flat = images.flatten(1).argmax(1)
            return torch.stack([flat % 96, flat // 96], -1).float()[:, None].expand(-1, 15, 2)

    faces = synthetic_faces(4, 0).faces("keypoints")
    steps = np.arange(96)
    places = np.array([[40, 44], [55, 42], [47, 60], [52, 50]], np.float32)
    dots = np.exp(-((steps - places[:, 0, None, None]) ** 2 + (steps[:, None] - places[:, 1, None, None]) ** 2) / 18)
    object.__setattr__(faces, "images", (dots * 255).astype(np.uint8))
    object.__setattr__(faces, "targets", np.repeat(places[:, None], 15, 1))
    table = robustness(Oracle("keypoints", TINY), faces)
    moved = [value for name, value in table.items() if name.startswith(("shift", "scale", "rotation", "as it is"))]
    assert max(moved) < 0.8


def test_covers_and_files_change_only_what_they_say() -> None:
    frames = resize_to_crops(torch.from_numpy(synthetic_faces(2, 0).images))
    eyes = _LOOKS["eyes covered"](frames)
    assert (eyes[..., 24:48, :] == 128).all()
    assert torch.equal(eyes[..., :24, :], frames[..., :24, :])
    assert torch.equal(eyes[..., 48:, :], frames[..., 48:, :])
    jpeg = _LOOKS["JPEG, quality 20"](frames)
    assert jpeg.shape == frames.shape
    assert 1 < (jpeg - frames).abs().mean() < 8


def test_figures_with_and_without_training_twins(tmp_path: Path, checkpoint: Any) -> None:
    faces = synthetic_faces(60, 0)
    pixels = [" ".join(map(str, image[::2, ::2].ravel())) for image in faces.images]
    pixels[40:46] = pixels[:6]
    rows = [
        f"{label % 2},{p},{'Training' if i < 40 else 'PublicTest'}"
        for i, (label, p) in enumerate(zip(faces.labels, pixels, strict=True))
    ]
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    given = ["task=emotion", f"checkpoint={checkpoint('emotion')}", f"data.path={path}", "data.part=PublicTest"]
    evaluate(config(*given, f"out={tmp_path / 'both'}"))
    without = evaluate(config(*given, f"out={tmp_path / 'without'}", "data.without_duplicates=true"))
    both, alone = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("both", "without"))
    assert (both["faces"], both["training_twins"], both["training_twins_removed"]) == (20, 6, 0)
    assert (alone["faces"], alone["training_twins"], alone["training_twins_removed"]) == (14, 0, 6)
    assert both["tables"]["Without the 6 faces that have a twin in Training"]["accuracy"].startswith(
        f"{without['accuracy']:.4f} ["
    )
    assert not any(name.startswith("Without") for name in alone["tables"])


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.part=PublicTest"], ConfigError, "no such faces"),
        (["data.without_duplicates=true"], ConfigError, "give data.part=PublicTest"),
        (["data.path=none.csv"], DataError, "no such file"),
    ],
)
def test_settings_that_do_not_fit(
    overrides: list[str], error: type[Exception], message: str, checkpoint: Any, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        evaluate(config("task=emotion", f"checkpoint={checkpoint('emotion')}", f"out={tmp_path}", *overrides))


def test_faces_without_points_cannot_be_judged(checkpoint: Any, tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("ImageId,Image\n1," + " ".join(["9"] * 96 * 96) + "\n")
    with pytest.raises(DataError, match="can be predicted, not judged"):
        evaluate(
            config("task=keypoints", f"checkpoint={checkpoint('keypoints')}", f"data.path={path}", f"out={tmp_path}")
        )


@pytest.mark.parametrize(
    ("task", "file", "part", "figure", "bound"),
    [
        ("keypoints", "facial-keypoints/validation.csv.xz", None, "rmse", 1.40),
        ("emotion", "fer2013/fer2013.csv.xz", "PublicTest", "accuracy", 0.82),
    ],
)
def test_the_bundled_weights_are_as_good_as_their_cards_say(
    task: Any, file: str, part: str | None, figure: str, bound: float, real_data: Path, tmp_path: Path
) -> None:
    arguments = [f"task={task}", "checkpoint=bundled", f"data.path={real_data / file}", f"out={tmp_path}"]
    value = evaluate(config(*arguments, *([f"data.part={part}"] if part else [])))[figure]
    assert value <= bound if figure == "rmse" else value >= bound
    from emotion_ai.models import bundled

    card = bundled(task).with_suffix(".md").read_text()
    said = re.search(rf"^\| {figure} \| ([\d.]+) \|", card, re.MULTILINE)
    assert said
    assert value == pytest.approx(float(said[1]), abs=1e-3)
    assert ("FER+ (MIT licence)" in card) == (task == "emotion")  # the data that it was trained on are all named
