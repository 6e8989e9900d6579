"""The continuous integration that the repository ships."""

from pathlib import Path

import pytest
import yaml
from check_jsonschema import main as check_jsonschema

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_follow_their_schema_and_pin_what_they_use(workflow: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        check_jsonschema(["--builtin-schema", "vendor.github-workflows", str(workflow)])
    assert not ended.value.code
    document = yaml.safe_load(workflow.read_text())
    assert document["permissions"] == {"contents": "read"}
    steps = [step for job in document["jobs"].values() for step in job["steps"]]
    for action in [step["uses"] for step in steps if "uses" in step]:
        assert len(action.partition("@")[2]) == 40, f"{action}: a tag can be moved"


def test_the_gate_runs_the_tests_and_the_proof() -> None:
    document = yaml.safe_load((ROOT / ".github/workflows/verify.yml").read_text())
    commands = [step["run"] for step in document["jobs"]["verify"]["steps"] if "run" in step]
    assert commands[0] == "make test"
    assert any(command.startswith(".venv/bin/emotion-ai export ") for command in commands)
    assert any(command.startswith(".venv/bin/emotion-ai verify ") for command in commands)
