"""Ratios, marks of wrong peers, and the page of the networks' speed."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emotion_ai_export.bench import network_speed
from emotion_ai_export.bench.network_page import draw, medians, page, ratios, write_page
from emotion_ai_export.bench.network_result import NetworkSpeed
from emotion_ai_export.bench.networks import failure

TIMES = {"SavedModel": [2.0, 3.0], "onnx-tf": [4.0, 4.0], "ONNX Runtime": [1.0, 2.0]}
TIMED = NetworkSpeed("timm/a@96", {"onnx2tf": "wrong: differs by 2e-01"}, {"1": TIMES, "8": TIMES})
FAILED = NetworkSpeed("timm/b@96", {"SavedModel": "failed: ended by SIGKILL"})


def test_ratios_are_taken_within_rounds() -> None:
    assert ratios(TIMED, 8, "onnx-tf") == [0.5, 0.75]
    assert ratios(TIMED, 8, "onnx2tf") == ratios(FAILED, 8, "onnx-tf") == []
    assert medians([TIMED, FAILED], 8, "onnx-tf") == [0.625]


def test_the_page_marks_what_was_not_timed(tmp_path: Path) -> None:
    text = page([TIMED, FAILED])
    row = next(line for line in text.splitlines() if line.startswith("| timm/a@96"))
    assert [cell.strip() for cell in row.split("|")][2:6] == ["2.5", "0.62 (0.50–0.75)", "wrong", "1.75 (1.50–2.00)"]
    assert "- timm/b@96, SavedModel: failed: ended by SIGKILL" in text
    assert [label.get_text() for label in draw([TIMED, FAILED]).axes[0].get_yticklabels()] == ["a@96"]
    far = NetworkSpeed("timm/c@96", {}, {"1": TIMES, "8": {"SavedModel": [1.0], "onnx-tf": [50.0]}})
    assert [text.get_text() for text in draw([TIMED, far]).axes[1].texts] == ["0.02"]
    write_page([TIMED], tmp_path / "docs")
    assert {file.name for file in (tmp_path / "docs").iterdir()} == {"networks.md", "networks.png"}


def test_backends_take_turns_and_each_is_timed_in_each_round() -> None:
    asked: list[str] = []
    calls: dict[str, Any] = {name: partial(asked.append, name) for name in ("a", "b")}
    times, elapsed = network_speed.measure(calls, 3)
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    assert all(value > 0 for values in elapsed.values() for value in values)
    turns = [name for place, name in enumerate(asked) if not place or asked[place - 1] != name]
    assert len(turns) >= 5


def test_a_peer_that_answers_otherwise_differs() -> None:
    calls: dict[str, Any] = {
        "ONNX Runtime": lambda images: [images.sum((1, 2, 3))[:, None]],
        "onnx-tf": lambda images: [images.sum((1, 2, 3))[:, None] * 1.01],
        "onnx2tf": lambda images: [images.sum((1, 2, 3))],
    }
    images = network_speed._images("ONNX Runtime", 8, 4)
    assert np.array_equal(images.transpose(0, 2, 3, 1), network_speed._images("SavedModel", 8, 4))
    assert network_speed._difference(calls, "onnx-tf", 4) == pytest.approx(0.01, rel=1e-3)
    assert network_speed._difference(calls, "onnx2tf", 4) == float("inf")


def test_a_run_goes_on_and_names_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, folders = [], []

    def one(command: list[str], **_: Any) -> Any:
        asked.append(command[command.index("--one") + 1])
        folders.append(Path(command[command.index("--folder") + 1]))
        (folders[-1] / "1").mkdir()
        text = f"notice\n{json.dumps({'network': 'a', 'seconds': 3.0})}\n" if asked[-1] == "a" else ""
        return subprocess.CompletedProcess(command, 0 if text else -9, text, "INFO: last line")

    monkeypatch.setattr("subprocess.run", one)
    file = tmp_path / "speed.jsonl"
    assert network_speed.run(file, ["a"], []) == [NetworkSpeed("a", seconds=3.0)]
    found = network_speed.run(file, ["a", "b"], [])
    assert asked == ["a", "b"]
    assert found[1].notes == {"SavedModel": "failed: ended by SIGKILL (out of memory?)"}
    assert list(network_speed.read(file).values()) == found
    assert not any(folder.exists() for folder in folders)


def test_onnx2tf_that_writes_nothing_is_named_by_its_error(tmp_path: Path) -> None:
    program = tmp_path / "onnx2tf"
    program.write_text(f"#!{sys.executable}\nprint('ERROR: no such layer')\n")
    program.chmod(0o755)
    with pytest.raises(ValueError, match="no such layer"):
        network_speed._onnx2tf(str(program), tmp_path / "model.onnx", tmp_path / "out")


def test_onnx2tf_is_ended_when_its_saved_model_is_whole(tmp_path: Path) -> None:
    program, out = tmp_path / "onnx2tf", tmp_path / "out"
    ended = tmp_path / "ended"
    program.write_text(
        f"#!{sys.executable}\nimport time\nfrom pathlib import Path\n"
        f"Path({str(out)!r}).mkdir()\nPath({str(out / 'fingerprint.pb')!r}).touch()\n"
        f"time.sleep(3600)\nPath({str(ended)!r}).touch()\n"
    )
    program.chmod(0o755)
    network_speed._onnx2tf(str(program), tmp_path / "model.onnx", out)
    assert not ended.exists()


def test_a_process_that_ended_is_described_by_its_last_line() -> None:
    assert failure(subprocess.CompletedProcess([], 1, "", "x\nno timm\n")) == "failed: no timm"
    assert failure(subprocess.CompletedProcess([], 3, "", "")) == "failed: exit code 3"
