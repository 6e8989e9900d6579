"""Alert rules, dashboard and their configuration: of metrics that the server exports, and fitting together."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from emotion_ai_export.serving.dashboard import PANELS
from tests.export.serving.deployment.deployment_files import rendered

# of TensorFlow Serving 2.20, with their labels
EXPORTED = {
    "up": {"job", "instance"},
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint", "le"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime", "le"},
    ":tensorflow:serving:model_warmup_latency": {"model_path", "status", "le"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
}
HISTOGRAMS = ("request_latency", "runtime_latency", "model_warmup_latency")


def expressions(texts: dict[str, str]) -> list[str]:
    rules = [rule for group in yaml.safe_load(texts["alerts.yaml"])["groups"] for rule in group["rules"]]
    board = json.loads(texts["dashboard.json"])
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in rules] + shown


def test_every_expression_reads_what_the_server_exports(base: Path, target: str) -> None:
    found = expressions(rendered(base, target))
    assert len(found) > len(PANELS)
    for expression in found:
        metrics = re.findall(r":tensorflow[:\w]+|\bup\b", expression)
        assert metrics
        names = {re.sub(r"_(bucket|sum|count)$", "", name) if name.split("_")[-1] in ("bucket", "sum") else name
                 for name in metrics}  # fmt: skip
        names = {name.removesuffix("_count") if name.endswith(tuple(f"{h}_count" for h in HISTOGRAMS)) else name
                 for name in names}  # fmt: skip
        assert names <= set(EXPORTED), expression
        labels = set().union(*(EXPORTED[name] for name in names)) | {"instance"}
        grouped = {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}
        matched = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression))
        assert grouped | matched <= labels, expression


def test_every_expression_is_promql(base: Path, target: str) -> None:
    for expression in expressions(rendered(base, target)):
        promql_parser.parse(expression.replace("$__rate_interval", "1m"))
    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum by (le (x)")


def test_alerts_say_what_happened(base: Path, target: str) -> None:
    (group,) = yaml.safe_load(rendered(base, target)["alerts.yaml"])["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(names) == len(set(names)) == 6
    for rule in group["rules"]:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = {label for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in by.split(", ")}
        assert used <= (grouped or {"instance"})


def test_promtool_accepts_the_files(base: Path, target: str, tmp_path: Path) -> None:
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool is not installed")
    folder = base / "deployment"
    config = rendered(base, target)["prometheus.yaml"].replace("/etc/emotion-ai", str(folder))
    (tmp_path / "prometheus.yaml").write_text(config)
    subprocess.run([promtool, "check", "config", str(tmp_path / "prometheus.yaml")], check=True)


def test_prometheus_and_grafana_find_each_other(base: Path, target: str) -> None:
    texts = rendered(base, target)
    services = yaml.safe_load(texts["compose.yaml"])["services"]
    config = yaml.safe_load(texts["prometheus.yaml"])
    (job,) = config["scrape_configs"]
    (place,) = [volume["target"] for volume in services["prometheus"]["volumes"] if isinstance(volume, dict)]
    assert config["rule_files"] == [f"{place}/alerts.yaml"]
    assert f"--config.file={place}/prometheus.yaml" in services["prometheus"]["command"]
    assert job["job_name"] == "emotion-ai"
    assert f'up{{job="{job["job_name"]}"}}' in texts["alerts.yaml"]
    assert job["static_configs"] == [{"targets": ["server:8501"]}]
    assert "--rest_api_port=8501" in services["server"]["command"]
    assert f'path: "{job["metrics_path"]}"' in texts["monitoring.config"]
    (source,) = yaml.safe_load(texts["grafana-datasource.yaml"])["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["isDefault"]
    (provider,) = yaml.safe_load(texts["grafana-dashboards.yaml"])["providers"]
    mounts = {volume["target"]: volume["source"] for volume in services["grafana"]["volumes"]}
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert mounts[home] == "./dashboard.json"
    assert Path(home).parent == Path(provider["options"]["path"])
    assert all((base / "deployment" / source).is_file() for source in mounts.values())


def test_the_dashboard_can_be_imported(base: Path, target: str) -> None:
    board: dict[str, Any] = json.loads(rendered(base, target)["dashboard.json"])
    assert board["uid"]
    assert board["title"]
    assert board["schemaVersion"] >= 36
    (variable,) = board["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) < 24
    for panel in panels:
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
