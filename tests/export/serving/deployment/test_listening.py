"""Nothing that we render listens on more than it must."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.export.serving.deployment.deployment_files import manifests, rendered

DOCS = Path(__file__).parents[4] / "docs"


def test_every_command_turns_the_profiler_off(base: Path, target: str) -> None:
    texts = rendered(base, target) | {"deployers.md": (DOCS / "guides" / "deployers.md").read_text()}
    commands = {name: text.count("--rest_api_port=") for name, text in texts.items()}
    assert {name for name, count in commands.items() if count} == {
        *("README.md", "compose.yaml", "kubernetes.yaml", "server.Dockerfile", "deployers.md"),
        *("kserve-knative.yaml", "kserve-standard.yaml"),
    }
    for name, text in texts.items():
        assert text.count("--enable_profiler=false") >= commands[name], name


def test_compose_publishes_on_this_machine_alone(base: Path, target: str) -> None:
    compose = yaml.safe_load(rendered(base, target)["compose.yaml"])
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert published.pop("prometheus") == []
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert not [name for name, service in compose["services"].items() if "network_mode" in service]


def test_kubernetes_publishes_nothing_outside_the_cluster(base: Path, target: str) -> None:
    texts = rendered(base, target)
    for name in ("kubernetes.yaml", "kserve-knative.yaml", "kserve-standard.yaml"):
        assert not re.findall("NodePort|LoadBalancer|hostPort|hostNetwork|externalIPs|kind: Ingress", texts[name]), name
    documents = manifests(texts["kubernetes.yaml"])
    assert documents["Service"]["spec"]["type"] == "ClusterIP"
    rules: list[dict[str, Any]] = documents["NetworkPolicy"]["spec"]["ingress"]
    assert [port["port"] for rule in rules for port in rule["ports"]] == [8500, 8501]
    assert all(rule["from"] for rule in rules), "an empty list is everybody"
