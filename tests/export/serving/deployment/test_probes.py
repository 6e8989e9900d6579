"""The readiness commands of Compose and Kubernetes, run against servers in every state."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from emotion_ai.contract import SERVABLES
from tests.export.serving.deployment.deployment_files import container, rendered


@contextmanager
def status_server(states: dict[str, list[str]]) -> Iterator[int]:
    """A server with TensorFlow Serving's status responses, pretty-printed, and 404 for unknown models."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            model = self.path.removeprefix("/v1/models/")
            known = model in states
            status = [
                {"version": str(n), "state": state, "status": {"error_code": "OK", "error_message": ""}}
                for n, state in enumerate(states.get(model, []), 1)
            ]
            missing = {"error": f"Could not find any versions of model {model}"}
            body = json.dumps({"model_version_status": status} if known else missing, indent=1).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def probes(base: Path, port: int) -> list[list[str]]:
    texts = rendered(base, "container")
    compose = yaml.safe_load(texts["compose.yaml"])["services"]["server"]["healthcheck"]["test"]
    assert compose[0] == "CMD"
    kubernetes = container(texts["kubernetes.yaml"])["readinessProbe"]["exec"]["command"]
    commands = [[part.replace("$$", "$") for part in compose[1:]], kubernetes]
    assert all("/127.0.0.1/8501" in command[-1] for command in commands)
    return [[part.replace("/127.0.0.1/8501", f"/127.0.0.1/{port}") for part in command] for command in commands]


def exit_codes(base: Path, port: int) -> list[int]:
    environment = {"PATH": os.environ["PATH"]}
    runs = [subprocess.run(c, env=environment, capture_output=True, timeout=10) for c in probes(base, port)]
    return [run.returncode for run in runs]


@pytest.mark.parametrize(
    ("changed", "ready"),
    [
        ({}, True),
        ({"emotion": ["AVAILABLE", "LOADING"]}, True),  # the old version answers while the new one loads
        ({"emotion": ["LOADING"]}, False),
        ({"keypoints": ["UNLOADING", "END"]}, False),
        ({"face": None}, False),
    ],
)
def test_ready_means_that_every_model_is_available(base: Path, changed: dict[str, Any], ready: bool) -> None:
    states = {name: ["AVAILABLE"] for name in SERVABLES} | changed
    with status_server({name: versions for name, versions in states.items() if versions}) as port:
        codes = exit_codes(base, port)
    assert [code == 0 for code in codes] == [ready, ready]


def test_without_a_server_nothing_is_ready(base: Path) -> None:
    with status_server({}) as port:
        pass
    assert 0 not in exit_codes(base, port)
