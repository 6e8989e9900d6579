"""Follows docs/guides/pytorch-serving.md literally: file, command, server, REST, gRPC, versions, Python."""

import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch

from emotion_ai_export.convert.command import build_module

PAGE = (Path(__file__).parents[2] / "docs/guides/pytorch-serving.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [shlex.split(text) for text in re.findall(r"```\n(emotion-ai .*?)\n```", PAGE)]


def free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def emotion_ai(command: list[str]) -> list[str]:
    assert command[0] == "emotion-ai"
    return [sys.executable, "-m", "emotion_ai.cli", *command[1:]]


def test_the_guide_works_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    network, rest, rpc, versions, python = PYTHON
    convert, serve = COMMANDS
    Path("segment.py").write_text(network)
    done = subprocess.run(emotion_ai(convert), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert Path("models/segmenter/1/saved_model.pb").is_file()

    ports = dict(zip(("8501", "8500"), map(str, free_ports()), strict=True))

    def local(text: str) -> str:
        for port, other in ports.items():
            text = text.replace(port, other)
        return text

    command = [*emotion_ai(shlex.split(local(shlex.join(serve)))), "--engine", "embedded"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            url, deadline = f"http://127.0.0.1:{ports['8501']}/v1/models/segmenter", time.monotonic() + 240
            while True:
                try:
                    if requests.get(url, timeout=5).ok:
                        break
                except requests.ConnectionError:
                    assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline
                time.sleep(0.2)
            answers: list[dict[str, Any]] = [{}, {}]
            for block, found in zip((rest, rpc), answers, strict=True):
                exec(compile(local(block), "guide", "exec"), found)
            exec(compile(python, "guide", "exec"), {})
            assert Path("models/segmenter/2/assets.extra/parity.json").is_file()

            def served() -> tuple[set[int], str]:
                found: dict[str, Any] = {}
                exec(compile(local(versions), "guide", "exec"), found)
                np.testing.assert_allclose(found["scores"], answers[0]["scores"], atol=1e-5)
                return found["loaded"], found["stable"]

            config = Path("models/models.config")
            for old, new in (("1", "1"), ("1", "2"), ("2", "1")):  # as published, moved, and rolled back
                config.write_text(re.sub(rf'(key: "stable"\s+value:) {old}', rf"\1 {new}", config.read_text()))
                while served() != ({1, 2}, new):
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
        finally:
            server.terminate()
    images = torch.from_numpy(answers[0]["images"]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        masks, scores = build_module("segment.py:build").eval()(images)
    for found in answers:
        np.testing.assert_allclose(found["masks"], masks.permute(0, 2, 3, 1).numpy(), atol=1e-5)
        np.testing.assert_allclose(found["scores"], scores.numpy(), atol=1e-5)
