import json
import os
import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from emotion_ai.contract import FLIP, Task
from emotion_ai.data.batches import resize_to_crops
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError
from emotion_ai.evaluation.evaluated_faces import seen_in_training
from emotion_ai.evaluation.predictions import predict
from emotion_ai.evaluation.robustness import _APPEARANCE, robustness
from emotion_ai.evaluation.stage import evaluate
from emotion_ai.files import locked_folder
from emotion_ai.models import FaceNetwork, bundled, save_network
from emotion_ai.provenance import DataRecord, RunRecord, SplitRecord

FILES = ("predictions.npz", "report.json", "report.html")
TINY: dict[str, Any] = {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4}


class Save(Protocol):
    """Saves a random network of a task; returns its path."""

    def __call__(self, task: Task, seed: int = 0) -> Path: ...


def network(task: Task, seed: int = 0) -> FaceNetwork:
    torch.manual_seed(seed)
    made = FaceNetwork(task, TINY)
    for parameter in made.head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return made.eval()


def config(*overrides: str) -> DictConfig:
    with initialize_config_module("emotion_ai_conf", version_base="1.3"):
        return compose("evaluate", list(overrides))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Save:
    def save(task: Task, seed: int = 0) -> Path:
        path = tmp_path / f"{task}{seed}.safetensors"
        save_network(network(task, seed), path, RunRecord(metrics={"val/loss": 1.0}))
        return path

    return save


def table(report: dict[str, Any], title: str) -> dict[str, Any]:
    """The report's table whose title starts like this."""
    tables: list[dict[str, Any]] = report["tables"]
    return next(table for table in tables if table["title"].startswith(title))


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_a_report_holds_its_metrics(
    task: Task, tmp_path: Path, checkpoint: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    out, card = tmp_path / "out", tmp_path / "card.md"
    arguments = [f"task={task}", f"checkpoint={checkpoint(task)}", f"against={checkpoint(task, 1)}", f"out={out}"]
    metrics = evaluate(config(*arguments, f"card={card}", "robustness=true"))
    report = json.loads((out / "report.json").read_text())
    page = (out / "report.html").read_text()
    key = "rmse" if task == "keypoints" else "accuracy"
    summary = report["summary"][key]
    assert summary["value"] == pytest.approx(metrics[key])
    assert summary["low"] <= summary["value"] <= summary["high"]
    assert summary["n"] == report["faces"] == 500
    for text in (page, card.read_text()):
        assert f"{metrics[key]:.4f}" in text
        assert report["command"] in text
    assert page.count("data:image/png;base64,") >= 4
    explained = "Activation maps" if task == "emotion" else "Predicted 95 % regions"
    assert f'alt="{explained}" src="data:image/png' in page
    titles = [table["title"] for table in report["tables"]]
    assert ("Abstention below a confidence threshold" in titles) == (task == "emotion")
    assert ("Coverage of the predicted 68 % and 95 % regions" in titles) == (task == "keypoints")
    difference = table(report, "Difference to")
    assert difference["columns"][:3] == ["metric", "difference", "95 % interval"]
    assert difference["rows"][0][2].keys() == {"low", "high"}
    changes = table(report, "Robustness")
    assert changes["columns"] == ["change to the faces", changes["columns"][1], "difference"]
    assert changes["rows"][0][::2] == ["unchanged", 0.0]
    shown = capsys.readouterr().out.splitlines()
    assert shown[-4:] == [f"wrote {path}" for path in (card, *(out / name for name in FILES))]
    with np.load(out / "predictions.npz") as saved:
        assert saved["predictions"].shape == ((500, 15, 2) if task == "keypoints" else (500, 5))


@pytest.mark.parametrize(
    ("fingerprint", "part", "seen"),
    [
        ("a", "PublicTest", "not used for training or validation"),
        ("a", "Training", "some of which the network was trained on"),
        ("a", None, "some of which the network was trained on"),
        ("b", None, "not used for training or validation"),
    ],
)
def test_a_report_states_whether_its_faces_were_trained_on(fingerprint: str, part: str | None, seen: str) -> None:
    data = DataRecord("Usage: Training, PublicTest", SplitRecord(5, "fer2013.csv", "a"))
    assert seen_in_training(fingerprint, part, RunRecord(data=data)) == seen
    assert "no record" in seen_in_training(fingerprint, part, RunRecord())


def test_a_card_describes_the_evaluated_network(tmp_path: Path, checkpoint: Save) -> None:
    split = SplitRecord(7, "mine.csv", "m")
    record = RunRecord(data=DataRecord("separate file", split, val=split), calibration={"temperature": 0.5})
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


def test_a_keypoint_report_states_the_fields_measures_and_whom_its_intervals_resample(
    tmp_path: Path, checkpoint: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    people, card = tmp_path / "people.csv", tmp_path / "card.md"
    people.write_text("person\n" + "".join(f"{row % 40}\n" for row in range(500)))
    given = ["task=keypoints", f"checkpoint={checkpoint('keypoints')}", f"against={checkpoint('keypoints', 1)}"]
    evaluate(config(*given, f"data.people={people}", f"out={tmp_path / 'people'}", f"card={card}"))
    shown = " ".join(capsys.readouterr().out.split())
    report = json.loads((tmp_path / "people" / "report.json").read_text())
    assert (report["resampled"], report["resampled_units"]) == ("people", 40)
    assert {"NME", "failure rate at 8 %", "AUC at 8 %"} < set(report["summary"])
    assert "data.people=people.csv" in report["command"]
    pages = (tmp_path / "people" / "report.html").read_text(), card.read_text(), shown
    for text in pages:
        assert "intervals that resample 40 people with their 500 faces" in text
        assert "inter-ocular" in text
    assert 'alt="Cumulative normalised error" src="data:image/png' in pages[0]
    evaluate(config(*given, "data.people=none", f"out={tmp_path / 'faces'}"))
    other = json.loads((tmp_path / "faces" / "report.json").read_text())
    assert (other["resampled"], other["resampled_units"]) == ("faces", 500)
    assert other["summary"]["NME"]["value"] == report["summary"]["NME"]["value"]
    for place in ("summary", "Coverage", "Difference to"):  # every interval resamples people
        first, second = (r[place] if place == "summary" else table(r, place)["rows"] for r in (report, other))
        assert first != second


def test_batches_equal_single_faces_and_small_faces_are_resized() -> None:
    images = synthetic_faces(5, 0).images
    for faces in (images, images[:, ::2, ::2]):
        whole = predict(network("emotion"), faces)
        singles = np.concatenate([predict(network("emotion"), face[None]) for face in faces])
        np.testing.assert_allclose(whole, singles, atol=1e-6)


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_flip_averaging_gives_mirrored_predictions_for_mirrored_faces(task: Task) -> None:
    images = synthetic_faces(3, 0).images
    straight = predict(network(task), images, flip=True)
    mirrored = predict(network(task), np.ascontiguousarray(images[..., ::-1]), flip=True)
    if task == "keypoints":
        mirrored = np.stack([95 - mirrored[..., 0], mirrored[..., 1]], -1)[:, list(FLIP)]
    np.testing.assert_allclose(straight, mirrored, atol=1e-3)


def test_robustness_keeps_the_points_under_the_pixels() -> None:
    class Oracle(FaceNetwork):
        """Predicts the brightest pixel, so that errors can only come from a wrong warp of the points."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            flat = images.flatten(1).argmax(1)
            return torch.stack([flat % 96, flat // 96], -1).float()[:, None].expand(-1, 15, 2)

    steps = np.arange(96)
    places = np.array([[40, 44], [55, 42], [47, 60], [52, 50]], np.float32)
    dots = np.exp(-((steps - places[:, 0, None, None]) ** 2 + (steps[:, None] - places[:, 1, None, None]) ** 2) / 18)
    targets = np.repeat(places[:, None], 15, 1)
    faces = replace(synthetic_faces(4, 0).faces("keypoints"), images=(dots * 255).astype(np.uint8), targets=targets)
    values = robustness(Oracle("keypoints", TINY), faces)
    geometry = ("shift", "scale", "rotation", "unchanged")
    moved = [value for name, value in values.items() if name.startswith(geometry)]
    assert max(moved) < 0.8


def test_covers_and_jpeg_change_only_their_pixels() -> None:
    crops = resize_to_crops(torch.from_numpy(synthetic_faces(2, 0).images))
    eyes = _APPEARANCE["eyes covered"](crops, torch.Generator())
    assert (eyes[..., 24:48, :] == 128).all()
    assert torch.equal(eyes[..., :24, :], crops[..., :24, :])
    assert torch.equal(eyes[..., 48:, :], crops[..., 48:, :])
    jpeg = _APPEARANCE["JPEG, quality 20"](crops, torch.Generator())
    assert jpeg.shape == crops.shape
    assert 1 < (jpeg - crops).abs().mean() < 8


def test_metrics_with_and_without_training_duplicates(tmp_path: Path, checkpoint: Save) -> None:
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
    assert (both["faces"], both["training_duplicates"], both["training_duplicates_removed"]) == (20, 6, 0)
    assert (alone["faces"], alone["training_duplicates"], alone["training_duplicates_removed"]) == (14, 0, 6)
    rest = table(both, "Without the 6 faces that have duplicates in Training")
    assert rest["rows"][0][:2] == ["accuracy", without["accuracy"]]
    assert not any(table["title"].startswith("Without") for table in alone["tables"])


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["data.part=PublicTest"], ConfigError, "no such faces"),
        (["data.without_duplicates=true"], ConfigError, "give data.part=PublicTest"),
        (["data.path=none.csv"], DataError, "no such file"),
    ],
)
def test_conflicting_settings_are_errors(
    overrides: list[str], error: type[Exception], message: str, checkpoint: Save, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        evaluate(config("task=emotion", f"checkpoint={checkpoint('emotion')}", f"out={tmp_path}", *overrides))


def test_faces_without_points_cannot_be_evaluated(checkpoint: Save, tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text("ImageId,Image\n1," + " ".join(["9"] * 96 * 96) + "\n")
    with pytest.raises(DataError, match="can only be predicted"):
        evaluate(
            config("task=keypoints", f"checkpoint={checkpoint('keypoints')}", f"data.path={path}", f"out={tmp_path}")
        )


@pytest.mark.parametrize(
    ("task", "file", "part", "metric", "bound"),
    [
        ("keypoints", "facial-keypoints/validation.csv.xz", None, "rmse", 1.40),
        ("emotion", "fer2013/fer2013.csv.xz", "PublicTest", "accuracy", 0.82),
    ],
)
def test_the_bundled_weights_match_their_cards(
    task: Task, file: str, part: str | None, metric: str, bound: float, real_data: Path, tmp_path: Path
) -> None:
    arguments = [f"task={task}", "checkpoint=bundled", f"data.path={real_data / file}", f"out={tmp_path}"]
    value = evaluate(config(*arguments, *([f"data.part={part}"] if part else [])))[metric]
    assert value <= bound if metric == "rmse" else value >= bound
    card = bundled(task).with_suffix(".md").read_text()
    found = re.search(rf"^\| {metric} \| ([\d.]+) \|", card, re.MULTILINE)
    assert found
    assert value == pytest.approx(float(found[1]), abs=1e-3)
    assert ("FER+ votes (MIT licence)" in card) == (task == "emotion")  # all training data are named


def test_an_evaluation_that_does_not_fit_on_the_disk_leaves_the_one_before(tmp_path: Path, checkpoint: Save) -> None:
    out = tmp_path / "out"
    arguments = ["task=emotion", f"checkpoint={checkpoint('emotion')}", f"out={out}", f"card={out / 'card.md'}"]
    out.mkdir()
    before = {name: name.encode() for name in (*FILES, "card.md")}
    for name, content in before.items():
        (out / name).write_bytes(content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # enough for all but the page
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            evaluate(config(*arguments))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert refused.value.filename == str(out / "report.html")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_only_one_process_evaluates_into_a_folder(tmp_path: Path, checkpoint: Save) -> None:
    with locked_folder(tmp_path / "out"), pytest.raises(ConfigError, match="another process writes to this folder"):
        evaluate(config("task=emotion", f"checkpoint={checkpoint('emotion')}", f"out={tmp_path / 'out'}"))
    assert not list((tmp_path / "out").iterdir())


def test_a_data_file_whose_name_is_not_utf_8(tmp_path: Path, checkpoint: Save) -> None:
    file = tmp_path / os.fsdecode(b"\xff.csv")
    file.write_text("emotion,pixels,Usage\n" + "".join(f"{i % 5},{f'{i} ' * 2304},PublicTest\n" for i in range(20)))
    evaluate(config("task=emotion", f"checkpoint={checkpoint('emotion')}", f"data.path='{file}'", f"out={tmp_path}"))
    assert r"\udcff.csv" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "report.json").read_text())["summary"]
