"""Publishing, versions and serving with the extra [serve] alone: all packages of [train] and [export] are blocked."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emotion_ai.client import FaceClient
from emotion_ai_export.serving.launch import free_port

BLOCKED = (
    *("torch", "torchvision", "pytorch_lightning", "torchmetrics", "safetensors", "hydra", "omegaconf", "pandas"),
    *("matplotlib", "scipy", "sklearn", "seaborn", "tensorboard", "onnx", "onnx_tf", "onnxruntime"),
)
PUBLISH = """
import sys
from pathlib import Path
from emotion_ai.contract import OUTPUTS, SERVABLES
from emotion_ai_export.registry.publish import next_version, publisher, put_in_place, write_checksums, write_config
from emotion_ai_export.registry.quiet_tensorflow import tf, tf_function
from emotion_ai_export.serving.deployment import write_deployment

base = Path(sys.argv[1])
for _ in range(2):
    with publisher(base) as staging:
        number = next_version(base)
        for name in SERVABLES:
            @tf_function(tf.TensorSpec([None, 96, 96, 1], tf.float32, "images"))
            def call(images):
                mean = number * tf.reduce_mean(images, [1, 2, 3])
                found = {"keypoints": mean[:, None, None] * tf.ones([1, 15, 2]),
                         "probabilities": tf.ones_like(mean)[:, None] * tf.fill([1, 5], 0.2)}
                return {output: found[output] for output in OUTPUTS[name]}
            module = tf.Module()
            module.call = call
            tf.saved_model.save(module, str(staging / name), signatures={"serving_default": call})
            (staging / name / "assets.extra").mkdir()
            write_checksums(staging / name)
        put_in_place(staging, base, number)
        write_config(base, "host")
        write_deployment(base, "host")
"""

Run = Callable[..., str]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For a process in which, as in its children, the blocked packages cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in BLOCKED)]
    (folder / "sitecustomize.py").write_text("\n".join(lines))
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.fixture(scope="module")
def run(environment: dict[str, str]) -> Run:
    def python(*arguments: str, code: int = 0) -> str:
        result = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=180
        )
        assert result.returncode == code, result.stderr[-2000:]
        return result.stdout if code == 0 else result.stderr

    return python


@pytest.fixture(scope="module")
def base(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    run("-c", PUBLISH, str(folder))
    return folder


def test_the_packages_are_blocked(run: Run) -> None:
    script = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    assert run("-c", script, *BLOCKED) == "[]\n"


def test_versions_are_managed(run: Run, base: Path) -> None:
    def emotion_ai(*arguments: str) -> str:
        return run("-m", "emotion_ai.cli", *arguments)

    def labels() -> list[list[str]]:
        found = json.loads(emotion_ai("versions", str(base), "--server", "http://127.0.0.1:9", "--json"))
        return [version["labels"] for version in found]

    assert labels() == [["stable"], []]
    assert emotion_ai("promote", str(base), "--offline") == "stable is version 2\n"
    assert emotion_ai("rollback", str(base), "--offline") == "stable is version 1\n"
    assert labels() == [["stable"], []]
    assert emotion_ai("prune", str(base), "--keep", "1", "--offline") == "nothing to delete\n"


def test_models_are_served(run: Run, base: Path, environment: dict[str, str]) -> None:
    rest, grpc = free_port(), free_port()
    options = ["--engine", "embedded", "--rest-port", str(rest), "--grpc-port", str(grpc)]
    command = [sys.executable, "-m", "emotion_ai.cli", "serve", str(base), *options]
    process = subprocess.Popen(command, env=environment)
    crops = np.full((3, 96, 96), 10, np.uint8)
    try:
        with FaceClient(f"http://127.0.0.1:{rest}", signature="serving_default", label="stable", retries=0) as client:
            deadline = time.monotonic() + 120
            while not client.ready():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            np.testing.assert_allclose(client.read_crops(crops).keypoints, 10)
            server = f"http://127.0.0.1:{rest}"
            assert run("-m", "emotion_ai.cli", "promote", str(base), "--server", server) == "stable is version 2\n"
            np.testing.assert_allclose(client.read_crops(crops).keypoints, 20)
        with FaceClient(f"grpc://127.0.0.1:{grpc}", signature="serving_default") as client:
            np.testing.assert_allclose(client.read_crops(crops).keypoints, 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_export_names_the_extra_that_is_missing(run: Run, tmp_path: Path) -> None:
    error = run("-m", "emotion_ai.cli", "export", f"out={tmp_path}", "checkpoint=bundled", code=2)
    assert "pip install 'emotion-ai[" in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
