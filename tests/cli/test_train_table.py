"""The table at the end of a training."""

from pathlib import Path

from emotion_ai.cli.train import show_results
from emotion_ai.terminal import Console


def printed(metrics: dict[str, float], out: Path) -> str:
    console = Console(record=True, width=100)
    show_results(console, "keypoints", metrics, out)
    return console.export_text()


def test_every_metric_has_its_split_and_every_file_its_path(tmp_path: Path) -> None:
    (tmp_path / "network.safetensors").touch()
    (tmp_path / "csv").mkdir()
    text = printed({"val/rmse": 1.25, "test/rmse": 1.5, "test/loss": 0.75}, tmp_path)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert cells == [
        ["rmse (px)", "val (chose the epoch)", "1.2500"],
        ["rmse (px)", "test", "1.5000"],
        ["loss", "test", "0.7500"],
    ]
    assert f"wrote {tmp_path / 'network.safetensors'}: weights" in text
    assert f"wrote {tmp_path / 'csv'}: " in text
    assert "best.ckpt" not in text


def test_a_fast_dev_run_says_that_nothing_is_saved(tmp_path: Path) -> None:
    assert "nothing is saved" in printed({"val/rmse": 1.25}, tmp_path)
