"""The table of LiteRT files on validation faces."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emotion_ai.contract import KEYPOINTS, Task
from emotion_ai.data.synthetic import synthetic_faces
from emotion_ai.errors import ConfigError
from emotion_ai.evaluation.statistics import Estimate, Units
from emotion_ai.models import load_network
from emotion_ai.published import PARITY_FILE, litert_file
from emotion_ai_export.bench import litert
from emotion_ai_export.bench.litert import LiteRTRow, measure, picture, table
from emotion_ai_export.convert.graph import to_graph, to_onnx
from emotion_ai_export.convert.litert_parity import litert_of, litert_record


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two face versions with float32 and int8 files; the second has the keypoints' int8 ranges from black images."""
    base, made = tmp_path_factory.mktemp("litert"), []
    faces = synthetic_faces(8, 1).images
    for number, (source, calibration) in enumerate({"faces.csv": faces, "black.csv": np.zeros_like(faces)}.items(), 1):
        version = base / "face" / str(number)
        for task in ("keypoints", "emotion"):
            graph = to_graph(to_onnx(load_network("bundled", task).network))
            for kind in ("float32", "int8"):
                file = version / litert_file(task, kind)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(litert_of(graph, kind, calibration))
        (version / PARITY_FILE).write_text(json.dumps({"litert": litert_record(["float32", "int8"], 8, source)}))
        made.append(version)
    return made


@pytest.mark.parametrize("task", ["keypoints", "emotion"])
def test_each_file_is_compared_with_the_checkpoint(task: Task, versions: list[Path]) -> None:
    faces = synthetic_faces(70, 3).faces(task)
    rows = measure(versions, task, faces, Units.faces(len(faces)))
    checkpoint, exact, good, bad = rows
    assert [row.name for row in rows] == ["checkpoint", "float32", "int8, faces.csv", "int8, black.csv"]
    assert checkpoint.difference is None
    differences = [row.difference for row in (exact, good, bad) if row.difference]
    assert [each.value for each in differences] == pytest.approx(
        [row.score.value - checkpoint.score.value for row in (exact, good, bad)], abs=1e-6
    )
    assert abs(differences[0].value) < 1e-4
    worse = 1 if task == "keypoints" else -1
    assert worse * differences[2].value > 0.05 > abs(differences[1].value)
    assert differences[2].low <= differences[2].value <= differences[2].high
    text = table(rows, len(faces), Units.faces(len(faces))).as_markdown()
    assert "| int8, black.csv |" in text
    assert "-0.0000" not in text


def test_the_command_writes_both_tables(
    versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = synthetic_faces(12, 4)
    pixels = [" ".join(map(str, image.ravel())) for image in faces.images]
    points = {
        f"{name}_{axis}": faces.faces("keypoints").points[:, i, j]
        for i, name in enumerate(KEYPOINTS)
        for j, axis in enumerate("xy")
    }
    pd.DataFrame(points | {"Image": pixels}).to_csv(tmp_path / "points.csv", index=False)
    small = [" ".join(map(str, image[::2, ::2].ravel())) for image in faces.images]
    labels = faces.faces("emotion").labels
    fer = np.array([0, 1, 4, 3, 5])[labels]
    pd.DataFrame({"emotion": fer, "pixels": small, "Usage": "PublicTest"}).to_csv(tmp_path / "fer.csv", index=False)
    command = ["litert", str(versions[0]), "--keypoints", str(tmp_path / "points.csv"), "--people", "none"]
    command += [
        "--emotion",
        str(tmp_path / "fer.csv"),
        "--page",
        str(tmp_path / "page.md"),
        "--picture",
        str(tmp_path / "p.png"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    litert.main()
    page = (tmp_path / "page.md").read_text()
    assert "12 faces; intervals resample 12 faces:\n\n| keypoints | RMSE, px |" in page
    assert "\n\n| emotion | accuracy |" in page
    assert "checkpoint" in capsys.readouterr().out
    with Image.open(tmp_path / "p.png") as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 2 * drawn.height


def test_the_picture_has_a_panel_for_each_network() -> None:
    change = Estimate(0.01, -0.01, 0.03, 9)
    tasks: tuple[Task, Task] = ("keypoints", "emotion")
    rows = [LiteRTRow(task, kind, change, change, 1.25) for task in tasks for kind in ("float32", "int8, black.csv")]
    figure = picture([LiteRTRow("keypoints", "checkpoint", change), *rows])
    assert [axis.get_xlabel() for axis in figure.axes] == ["difference in RMSE, px", "difference in accuracy"]
    names = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
    assert names == [["float32 (1.2 MB)", "int8, black.csv (1.2 MB)"]] * 2


def test_a_version_without_files_is_named(tmp_path: Path) -> None:
    faces = synthetic_faces(4, 0).faces("emotion")
    with pytest.raises(ConfigError, match=r"face: has no LiteRT files of emotion; export it with litert="):
        measure([tmp_path / "face"], "emotion", faces, Units.faces(4))
