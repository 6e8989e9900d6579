"""The list of 40 networks, and what the command keeps of each."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from emotion_ai_export.bench import networks
from emotion_ai_export.bench.networks import OTHERS, PLAIN, NetworkResult, read, run


def test_the_list_names_40_networks() -> None:
    listed = [*PLAIN, *OTHERS]
    assert len(listed) == len(set(listed)) == 40
    assert {name.partition("/")[0] for name in listed} == {"timm", "torchvision"}


def test_a_run_goes_on_where_it_was_killed_and_keeps_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, folders = [], []

    def one(command: list[str], **_: Any) -> Any:
        network, folder = (command[command.index(name) + 1] for name in ("--one", "--folder"))
        asked.append(network)
        folders.append(Path(folder))
        (folders[-1] / "1").mkdir()
        if network == "b":
            raise subprocess.TimeoutExpired(command, 1)
        text = f"notice\n{json.dumps({'network': network, 'transposes': 3})}\n" if network == "a" else ""
        return subprocess.CompletedProcess(command, 0, text, "no timm")

    monkeypatch.setattr("subprocess.run", one)
    file = tmp_path / "networks.jsonl"
    assert run(file, ["a"]) == [NetworkResult("a", transposes=3)]
    found = run(file, ["a", "b", "c"])
    assert asked == ["a", "b", "c"]
    assert not any(folder.exists() for folder in folders)
    assert [result.refusal for result in found] == ["", "failed: took more than 1200 s", "failed: no timm"]
    assert list(read(file).values()) == found
    shown = networks.table(found)
    assert shown.title == "1 of 3 networks converted"
    assert shown.texts[0] == ["a", "0%", "100.00%", "3", "0", ""]
    assert shown.texts[2] == ["c", "", "", "", "", "failed: no timm"]


def test_a_head_of_zeros_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    head = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(head.weight)
    monkeypatch.setattr("torchvision.models.get_model", lambda name, weights: head)
    module, size = networks.build_network("torchvision/a@96")
    assert module.weight.count_nonzero() == 6
    assert size == 96
