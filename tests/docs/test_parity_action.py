"""The reusable action: its scripts run as a runner would run them, with inputs in the environment."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from emotion_ai.contract import TASKS
from emotion_ai.models import FaceNetwork, save_network
from emotion_ai.provenance import RunRecord

ACTION = Path(__file__).parents[2] / ".github/actions/parity"
STEPS = yaml.safe_load((ACTION / "action.yml").read_text())["runs"]["steps"]
RUN = {step["name"]: step["run"] for step in STEPS if "run" in step}

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.conv, self.wrong = nn.Conv2d(3, 4, 3), wrong

    def forward(self, images):
        found = self.conv(images).mean((2, 3))
        return found * 1.01 if self.wrong and torch.onnx.is_in_onnx_export() else found

def good():
    torch.manual_seed(0)
    return Net(False)

def wrong():
    return Net(True)
"""


class Runner:
    """A folder of a job, with what a runner sets for each step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.summary, self.output = folder / "summary.md", folder / "output.txt"
        (folder / "bin").mkdir()
        for name, module in (("emotion-ai", " -m emotion_ai.cli"), ("python", "")):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable}{module} "$@"\n')
            program.chmod(0o755)

    def step(self, name: str, **inputs: str) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_ACTION_PATH": str(ACTION),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
            "OUT": "models",
            **{key.upper(): value for key, value in inputs.items()},
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", RUN[name]]
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True)

    @property
    def version(self) -> str:
        return self.output.read_text().strip().removeprefix("version=")


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "net.py").write_text(MODULE)
    return Runner(tmp_path)


def test_the_action_matches_the_schema_and_pins_its_actions() -> None:
    schema = ["--builtin-schema", "vendor.github-actions", str(ACTION / "action.yml")]
    result = subprocess.run([sys.executable, "-m", "check_jsonschema", *schema], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert all(len(action.partition("@")[2]) == 40 for action in used)


def test_no_script_holds_an_input() -> None:
    assert not [name for name, script in RUN.items() if "${{" in script]


def test_every_input_is_used() -> None:
    document: dict[str, Any] = yaml.safe_load((ACTION / "action.yml").read_text())
    text = (ACTION / "action.yml").read_text()
    assert [name for name in document["inputs"] if f"inputs.{name}" not in text] == []


def test_a_module_is_published_with_its_proof_in_the_summary(runner: Runner) -> None:
    done = runner.step("Publish", export="", convert="net.py:good\n--input\nimages:3x16x16\n\n  --model=net\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert runner.version == "1"
    assert runner.step("Summary", version=runner.version).returncode == 0
    text = runner.summary.read_text()
    assert "## Parity of version 1" in text
    for path in ("ONNX Runtime", "SavedModel", "SavedModel in float64"):
        assert f"| {path} | net | output |" in text


def test_a_difference_fails_the_job_and_is_in_the_summary(runner: Runner) -> None:
    done = runner.step("Publish", export="", convert="net.py:wrong\n--input\nimages:3x16x16")
    assert done.returncode == 2
    assert "::error::" in done.stdout
    assert "differs from the module" in done.stdout
    assert "Nothing was published" in runner.summary.read_text()
    assert not runner.output.exists()
    assert not list((runner.folder / "models").glob("*/*"))


def test_networks_of_faces_are_verified_after_the_export(runner: Runner) -> None:
    torch.manual_seed(0)
    arguments = ["server=null"]
    for task in TASKS:
        network = FaceNetwork(task, {"name": "residual", "widths": [8, 16], "depths": [1, 1], "stem_stride": 4})
        for parameter in network.head.parameters():
            torch.nn.init.normal_(parameter, std=0.002)  # untrained features are large
        save_network(network, runner.folder / f"{task}.safetensors", RunRecord())
        arguments.append(f"{task}={task}.safetensors")
    done = runner.step("Publish", export="\n".join(arguments), convert="")
    assert done.returncode == 0, done.stdout + done.stderr
    checked = runner.step("Verify what was published", version=runner.version)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert runner.step("Summary", version=runner.version).returncode == 0
    text = runner.summary.read_text()
    assert "| SavedModel | keypoints | keypoints |" in text
    assert "| SavedModel | face | probabilities |" in text
    assert "| gRPC | passes |" in text
    (runner.folder / "models/emotion/1/saved_model.pb").write_bytes(b"altered")
    assert runner.step("Verify what was published", version=runner.version).returncode == 1


@pytest.mark.parametrize("given", [{"export": "", "convert": " \n"}, {"export": "a=b", "convert": "net.py:good"}])
def test_one_of_both_kinds_must_be_given(given: dict[str, str], runner: Runner) -> None:
    done = runner.step("Publish", **given)
    assert done.returncode == 2
    assert "either export or convert" in done.stdout


@pytest.mark.parametrize("value", ["$(touch {})", "`touch {}`", "; touch {}", '"; touch {} #', "a\n& touch {}"])
def test_inputs_are_never_run(value: str, runner: Runner) -> None:
    planted = runner.folder / "planted"
    (runner.folder / "bin" / "emotion-ai").write_text("#!/bin/sh\nexit 0\n")
    inputs = {name: value.format(planted) for name in ("out", "export", "version")}
    for name in ("Publish", "Verify what was published", "Summary"):
        runner.step(name, convert="", **inputs)
    assert not planted.exists()
