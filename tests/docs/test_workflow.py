"""The workflows of the repository."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_match_the_schema_and_pin_their_actions(workflow: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    document = yaml.safe_load(workflow.read_text())
    assert document["permissions"] == {"contents": "read"}
    steps = [step for job in document["jobs"].values() for step in job["steps"]]
    for action in [step["uses"] for step in steps if "uses" in step]:
        own = action.startswith("./") and (ROOT / action / "action.yml").is_file()
        assert own or len(action.partition("@")[2]) == 40, f"{action}: a tag can be moved"


def test_every_python_is_tested() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert jobs.keys() == {"lint", "test", "coverage", "install", "docs"}
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


def test_the_export_gate_runs_the_tests_and_the_proof() -> None:
    document = yaml.safe_load((ROOT / ".github/workflows/verify.yml").read_text())
    steps = document["jobs"]["verify"]["steps"]
    assert any(step.get("run", "").startswith("make test") for step in steps)
    (proof,) = [step for step in steps if step.get("uses") == "./.github/actions/parity"]
    assert "checkpoint=bundled" in proof["with"]["export"].splitlines()
