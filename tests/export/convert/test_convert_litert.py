"""LiteRT files of any module: through Python and through the command, whose int8 needs images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.errors import ConfigError, EmotionAIError, ParityError
from emotion_ai.published import litert_file
from emotion_ai_export.convert import ConvertOptions, ImageFiles, convert, module_parity
from emotion_ai_export.convert.command import calibration_images
from emotion_ai_export.convert.interface import ImageInput
from emotion_ai_export.convert.litert import run_litert

INPUT = ImageInput("images", 3, 16, 12)


def build() -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def test_each_kind_is_published_with_its_proof(tmp_path: Path) -> None:
    images = torch.rand(8, 3, 16, 12)
    made = convert(build(), images, ["images"], tmp_path, ConvertOptions(litert=("float32", "float16", "int8")))
    proof = json.loads((made.path / "assets.extra" / "parity.json").read_text())
    sums = (made.path / "assets.extra" / "SHA256SUMS").read_text()
    with torch.inference_mode():
        expected = build()(images).numpy()
    for kind in ("float32", "float16", "int8"):
        content = (made.path / litert_file("model", kind)).read_bytes()
        assert f"assets.extra/litert/model_{kind}.tflite" in sums
        rows = [row for row in proof["rows"] if row["path"] == f"LiteRT {kind}"]
        assert {row["kind"] for row in rows} == {"noise", "black", "white", "example"}
        assert {row["size"] for row in rows} == {len(content)}
        (found,) = run_litert(content, [{"images": images.permute(0, 2, 3, 1).numpy()}], kind)
        tolerance = {"float32": 1e-5, "float16": 1e-3, "int8": 0.05}[kind]
        np.testing.assert_allclose(found["output"], expected, atol=tolerance)


def test_a_kind_beyond_its_tolerance_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module_parity.LITERT_TOLERANCES, "float16", 0.0)
    with pytest.raises(ParityError, match=r"LiteRT float16 differs from the module by .*nothing was published"):
        convert(build(), torch.rand(4, 3, 16, 12), ["images"], tmp_path, ConvertOptions(litert=("float16",)))
    assert not (tmp_path / "model").exists()


def test_the_command_refuses_int8_without_images_and_other_kinds(tmp_path: Path) -> None:
    command = ["convert", f"{__file__}:build", "--input", "images:3x16x12", "--out", str(tmp_path / "models")]
    for litert, text in (("int8", "give --calibration with a folder"), ("int4", "unknown kind of LiteRT file 'int4'")):
        result = CliRunner().invoke(app, [*command, "--litert", litert])
        assert isinstance(result.exception, ConfigError)
        assert text in str(result.exception)
    assert not (tmp_path / "models").exists()


def test_the_command_takes_the_ranges_of_int8_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    command = ["convert", f"{__file__}:build", "--input", "images:3x16x12", "--out", str(tmp_path / "models")]
    more = ["--litert", "int8", "--calibration", str(tmp_path / "pictures")]
    result = CliRunner().invoke(app, [*command, *more], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "LiteRT int8" in result.output
    assert (tmp_path / "models/model/1" / litert_file("model", "int8")).is_file()


def test_calibration_images_are_normalised_as_files_are(tmp_path: Path) -> None:
    Image.new("RGB", (30, 40), (255, 0, 51)).save(tmp_path / "a.png")
    (plain,) = calibration_images(tmp_path, [INPUT], ConvertOptions())
    assert plain.shape == (1, 3, 16, 12)
    np.testing.assert_allclose(plain[0, :, 3, 3], [1, 0, 0.2], atol=1e-6)
    (normalised,) = calibration_images(tmp_path, [INPUT], ConvertOptions(files=ImageFiles((0.5,), (0.25,))))
    np.testing.assert_allclose(normalised[0, :, 3, 3], [2, -2, -1.2], atol=1e-5)
    (whole,) = calibration_images(tmp_path, [INPUT], ConvertOptions(dtype="uint8"))
    np.testing.assert_allclose(whole[0, :, 3, 3], [255, 0, 51])


def test_calibration_arrays_must_fit_the_inputs(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((3, 3, 16, 12), np.float32)
    np.savez(tmp_path / "right.npz", images=images)
    (found,) = calibration_images(tmp_path / "right.npz", [INPUT], ConvertOptions())
    np.testing.assert_array_equal(found, images)
    np.savez(tmp_path / "wrong.npz", images=images[:, :1])
    with pytest.raises(
        ConfigError, match=r"needs an array images of the shape \(N, 3, 16, 12\); it has images \[3, 1,"
    ):
        calibration_images(tmp_path / "wrong.npz", [INPUT], ConvertOptions())
    (tmp_path / "nothing.npz").touch()
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "right.npz").read_bytes()[:300])
    np.save(tmp_path / "single.npy", images)
    np.savez(tmp_path / "objects.npz", images=np.array([{}], object))
    for name in ("none.npz", "nothing.npz", "text.npz", "cut.npz", "single.npy", "objects.npz"):
        with pytest.raises(ConfigError, match=f"{name}: neither a folder of images nor a .npz file") as raised:
            calibration_images(tmp_path / name, [INPUT], ConvertOptions())
        assert "\n" not in str(raised.value)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_bytes(b"no picture")
    with pytest.raises(EmotionAIError, match=r"a\.png"):
        calibration_images(tmp_path / "damaged", [INPUT], ConvertOptions())
    with pytest.raises(ConfigError, match="no pictures there"):
        calibration_images(tmp_path / "empty", [INPUT], ConvertOptions())
    with pytest.raises(ConfigError, match="a folder is for one input"):
        calibration_images(tmp_path, [INPUT, ImageInput("more", 1, 8, 8)], ConvertOptions())
