"""The benchmark of thread flags and batching runs; its figures are not checked."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emotion_ai_export.bench import threads
from emotion_ai_export.bench.threads import BatchedCall
from emotion_ai_export.registry.warmup import BATCHES


def test_every_setting_is_measured(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--callers", "1", "3", "--rounds", "2", "--seconds", "0.02", "--cpus", "2"]
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["threads", str(folders["face"]), *arguments, "--out", str(tmp_path / "o.json")])
    threads.main()
    record = json.loads((tmp_path / "o.json").read_text())
    assert record["cpus"] == 2
    assert len(record["rows"]) == 2 * len(threads.settings(2))
    assert all(row["per_second"] > 0 and row["low"] <= row["ratio"] <= row["high"] for row in record["rows"])
    assert "intra 1, inter per CPU (ours)" in capsys.readouterr().out


def test_calls_are_gathered_and_padded_to_an_allowed_batch() -> None:
    sizes: list[int] = []
    started, go = threading.Event(), threading.Event()

    def run(images: NDArray[np.float32]) -> None:
        sizes.append(len(images))
        started.set()
        go.wait(10)

    call = BatchedCall(run, 1)
    one = np.zeros((1, 2, 2, 1), np.float32)
    callers = [threading.Thread(target=call, args=(one,)) for _ in range(10)]
    callers[0].start()
    started.wait(10)
    for caller in callers[1:]:
        caller.start()
    while call._queue.qsize() < 9:
        pass
    go.set()
    for caller in callers:
        caller.join()
    call.close()
    assert sizes == [1, 32]  # nine waited: the next allowed size
    assert set(sizes) <= set(BATCHES)


def test_an_error_reaches_the_caller() -> None:
    def run(images: Any) -> None:
        raise ValueError("broken")

    call = BatchedCall(run, 1)
    with pytest.raises(ValueError, match="broken"):
        call(np.zeros((1, 2, 2, 1), np.float32))
    call.close()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["/nothing"], "no SavedModel"), (["/nothing", "--rounds", "0"], "must be > 0")],
)
def test_bad_input_is_one_line(
    arguments: list[str], problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["threads", *arguments])
    with pytest.raises(SystemExit) as ended:
        threads.main()
    assert ended.value.code == 2
    assert problem in " ".join(capsys.readouterr().err.split())
