"""A Grafana dashboard of the metrics that TensorFlow Serving exports."""

from dataclasses import dataclass
from typing import Any

_COUNT = ":tensorflow:serving:request_count"
_LOADS = ":tensorflow:cc:saved_model:load_attempt_count"
_RATE = "[$__rate_interval]"
_WIDTH, _HEIGHT = 12, 8  # of 24 columns
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A time series: its title, its unit in Grafana, and its queries by legend."""

    title: str
    unit: str
    queries: dict[str, str]
    about: str = ""


def _quantiles(metric: str, label: str) -> dict[str, str]:
    by = f"sum by (le, model_name, {label}) (rate(:tensorflow:serving:{metric}_bucket{_RATE}))"
    legend = f"{{{{model_name}}}} {{{{{label}}}}}"
    return {f"{legend} {name}": f"histogram_quantile({share}, {by})" for name, share in (("p50", 0.5), ("p99", 0.99))}


PANELS = (
    Panel(
        "Requests",
        "reqps",
        {"{{model_name}} {{status}}": f"sum by (model_name, status) (rate({_COUNT}{_RATE}))"},
        "Calls that gRPC refuses because of --grpc_max_threads are not counted.",
    ),
    Panel(
        "Share of requests without an answer",
        "percentunit",
        {
            "{{model_name}}": f'sum by (model_name) (rate({_COUNT}{{status!="OK"}}{_RATE})) '
            f"/ sum by (model_name) (rate({_COUNT}{_RATE}))"
        },
    ),
    Panel("Latency", "µs", _quantiles("request_latency", "entrypoint"), "REST counts only responses with status 200."),
    Panel("Time in the graph", "µs", _quantiles("runtime_latency", "API")),
    Panel(
        "Loaded versions",
        "short",
        {"{{model_path}} {{status}}": f"sum by (model_path, status) ({_LOADS})"},
        "Attempts to load, since the server started.",
    ),
    Panel(
        "Warm-up of a version",
        "µs",
        {
            "{{model_path}}": "sum by (model_path) (:tensorflow:serving:model_warmup_latency_sum) "
            "/ sum by (model_path) (:tensorflow:serving:model_warmup_latency_count)"
        },
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it; its data source is a variable, by default the default Prometheus."""
    variable = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "emotion-ai",
        "title": "Emotion AI",
        "description": "TensorFlow Serving with the models keypoints, emotion and face.",
        "tags": ["emotion-ai"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable]},
        "annotations": {"list": []},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, 24 // _WIDTH)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for i, (legend, expression) in enumerate(panel.queries.items())
        ],
    }
