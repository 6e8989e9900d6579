"""Starts the TensorFlow Serving of TFS_BIN."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests


@contextmanager
def real_server(models: Path) -> Iterator[tuple[int, int]]:
    """Serves the models; yields the REST and the gRPC port."""
    ports = _free_port(), _free_port()
    arguments = [f"--rest_api_port={ports[0]}", f"--port={ports[1]}", f"--model_config_file={models}/models.config"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [os.environ["TFS_BIN"], *arguments, "--allow_version_labels_for_unavailable_models"], stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    requests.get(f"http://127.0.0.1:{ports[0]}/v1/models/m", timeout=5)
                    break
                except requests.ConnectionError:
                    time.sleep(0.2)
            yield ports
        finally:
            process.terminate()
            process.wait(30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
