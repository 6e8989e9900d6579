"""Statistics and pictures of datasets with known statistics."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion_ai.cli.data import data as describe_command
from emotion_ai.contract import EMOTIONS, KEYPOINTS
from emotion_ai.data.dataset import FaceDataset
from emotion_ai.data.describe import describe, write_pictures
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError, DataError


@pytest.fixture
def emotions() -> FaceDataset:
    """Eight faces: 0 = 3 = 5 with two labels, over two parts; 1 = 2 with one; 6 blank; 4 and 7 alone."""
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48), dtype=np.uint8)
    images[[3, 5]] = images[0]
    images[2] = images[1]
    images[6] = 77
    labels = np.array([0, 1, 1, 0, 4, 3, 3, 3])
    part = np.array(["Training"] * 5 + ["PublicTest"] * 3)
    return FaceDataset("emotion", images, labels, part, "made/by-hand.csv", "f" * 64)


@pytest.fixture
def keypoints() -> FaceDataset:
    generated = synthetic_faces(6, seed=0).faces("keypoints")
    images, points = generated.images.copy(), generated.targets.copy()
    images[1], images[3] = images[0], images[2]
    points[1] = points[0]
    points[1, :4] = np.nan  # fewer points of a duplicate: no contradiction
    points[3] = points[2]
    points[3, 7] += 0.5  # another place: a contradiction
    points[4] = np.nan
    points[5, 0] = [95.6, 40]
    points[5, 1] = [-0.4, 40]  # inside: a pixel reaches half a pixel beyond its centre
    return FaceDataset("keypoints", images, points, generated.part, "points.csv", "0" * 64)


def test_statistics_of_emotions(emotions: FaceDataset) -> None:
    d = describe(emotions)
    assert (d.faces, d.height, d.width) == (8, 48, 48)
    assert d.parts == {"Training": 5, "PublicTest": 3}
    assert d.classes == dict(zip(EMOTIONS, [2, 2, 0, 3, 1], strict=True))
    assert d.classes_of_parts["PublicTest"] == dict(zip(EMOTIONS, [0, 0, 0, 3, 0], strict=True))
    assert (d.duplicate_groups, d.duplicate_copies, d.duplicate_groups_across_parts) == (2, 3, 1)
    assert (d.contradictory_groups, d.contradictory_faces) == (1, 3)
    assert d.blank == 1
    assert (d.missing, d.complete, d.unannotated, d.outside) == ({}, 0, 0, 0)


def test_statistics_of_keypoints(keypoints: FaceDataset) -> None:
    d = describe(keypoints)
    assert d.missing == {name: 2 if i < 4 else 1 for i, name in enumerate(KEYPOINTS)}
    assert (d.complete, d.unannotated, d.outside) == (4, 1, 1)
    assert (d.duplicate_groups, d.duplicate_copies, d.duplicate_groups_across_parts) == (2, 2, 0)
    assert (d.contradictory_groups, d.contradictory_faces) == (1, 2)
    assert (d.parts, d.classes, d.classes_of_parts) == ({}, {}, {})


def test_gray_levels_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1100, 8, 8), dtype=np.uint8)  # more than one chunk
    images[1050:] //= 3
    faces = FaceDataset("emotion", images, rng.integers(0, 5, 1100), np.full(1100, ""), "noise", "0")
    d = describe(faces)
    assert d.pixel_mean == pytest.approx(faces.images.mean())
    assert d.pixel_std == pytest.approx(faces.images.std(dtype=np.float64))


def test_as_dict_is_json(emotions: FaceDataset, keypoints: FaceDataset) -> None:
    for faces in (emotions, keypoints):
        d = describe(faces)
        assert json.loads(json.dumps(d.as_dict())) == d.as_dict()


def test_pictures_fit_the_task(emotions: FaceDataset, keypoints: FaceDataset, tmp_path: Path) -> None:
    unknown = FaceDataset(
        "keypoints", keypoints.images, np.full((6, 15, 2), np.nan, np.float32), keypoints.part, "test", "0"
    )
    expected = {
        "emotion": (emotions, ["samples", "classes", "class_samples", "pixels"]),
        "keypoints": (keypoints, ["samples", "points", "pixels"]),
        "no targets": (unknown, ["samples", "pixels"]),
    }
    for name, (faces, pictures) in expected.items():
        paths = write_pictures(faces, tmp_path / name)
        assert [path.stem for path in paths] == pictures
        for path in paths:
            with Image.open(path) as picture:
                assert min(picture.size) > 300
                assert np.asarray(picture.convert("L")).std() > 5, f"{path.name} is nearly empty"


def test_points_are_drawn_where_they_are(tmp_path: Path) -> None:
    """Over a black image a single known point leaves one spot of colour, at its place in its square."""
    points = np.full((1, 15, 2), np.nan, np.float32)
    points[0, 0] = [71.5, 23.5]  # three quarters across, one quarter down
    faces = FaceDataset("keypoints", np.zeros((1, 96, 96), np.uint8), points, np.array([""]), "one", "0")
    write_pictures(faces, tmp_path)
    pixels = np.asarray(Image.open(tmp_path / "samples.png").convert("RGB")).astype(int)
    black = np.argwhere(pixels.sum(2) < 30)
    square = black[black[:, 0] > 60]  # below the title
    (top, left), side = square.min(0), np.ptp(square, 0) + 1
    spot = np.argwhere((pixels[..., 0] - pixels[..., 1]) > 100).mean(0)
    np.testing.assert_allclose((spot - [top, left]) / side, [0.25, 0.75], atol=0.02)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The course's five-class file: eleven faces, the last one a copy of the fourth."""
    rng = np.random.default_rng(0)
    rows = [f"{i % 5},{' '.join(map(str, rng.integers(0, 256, 48 * 48)))}" for i in range(10)]
    file = tmp_path / "five.csv"
    file.write_text("\n".join(["emotion, pixels", *rows, rows[3]]) + "\n")
    return file


def test_command_prints_and_writes(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe_command(str(source), None, "auto", tmp_path / "out", as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "description.json").read_text())
    assert (printed["faces"], printed["duplicate_copies"], printed["classes"]["Happy"]) == (11, 1, 3)
    assert all((tmp_path / "out" / name).is_file() for name in printed["pictures"])
    describe_command(str(source), "emotion", "five", tmp_path / "out", as_json=False)
    table = capsys.readouterr().out
    assert "3 Happy" in table
    assert "27.3%" in table


def test_command_describes_synthetic_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    describe_command("synthetic", None, "auto", tmp_path, as_json=False)
    assert "500" in capsys.readouterr().out
    assert (tmp_path / "points.png").is_file()


def test_command_errors_are_one_line(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        describe_command(str(tmp_path / "none.csv"), None, "auto", tmp_path, as_json=False)
    with pytest.raises(ConfigError, match="task=mood"):
        describe_command("synthetic", "mood", "auto", tmp_path, as_json=False)
    taken = tmp_path / "taken"
    taken.write_text("a file")
    with pytest.raises(ConfigError, match=r"taken: cannot be written \(File exists\)"):
        describe_command(str(source), "emotion", "auto", taken, as_json=False)


def test_names_are_no_formulas_and_may_have_any_byte(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = source.with_name(os.fsdecode(b"na\xefve $\\frac$ [bold] :smile:.csv"))
    source.rename(odd)
    describe_command(str(odd), None, "auto", tmp_path / "out", as_json=True)
    assert json.loads(capsys.readouterr().out)["source"].endswith("na\udcefve $\\frac$ [bold] :smile:.csv")
    describe_command(str(odd), None, "auto", tmp_path / "out", as_json=False)
    assert r"na\udcefve $\frac$ [bold] :smile:.csv: emotion" in capsys.readouterr().out
