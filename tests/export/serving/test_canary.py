"""`emotion-ai canary` against servers: an equal version passes, one with noise in its weights is refused."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from emotion_ai.cli import app
from emotion_ai.evaluation.canary.compare import Margins
from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.registry.model_config import ModelConfig, render
from emotion_ai_export.serving.launch import Addresses, running

EQUAL, NOISY = 2, 3


def add_noise(folder: Path, share: float, seed: int = 0) -> None:
    """Adds noise to a SavedModel's weights, a share of their own spread."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    file = folder / "saved_model.pb"
    model = SavedModel.FromString(file.read_bytes())
    rng, changed = np.random.default_rng(seed), 0
    for meta in model.meta_graphs:
        graph = meta.graph_def
        for node in [*graph.node, *(node for function in graph.library.function for node in function.node_def)]:
            if node.op != "Const":
                continue
            tensor = node.attr["value"].tensor
            values = tf.make_ndarray(tensor)
            if values.dtype == np.float32 and values.ndim >= 2 and values.size > 100:
                noise = rng.normal(0, share * values.std(), values.shape).astype(np.float32)
                tensor.CopyFrom(tf.make_tensor_proto(values + noise))
                changed += 1
    assert changed > 3
    file.write_bytes(model.SerializeToString())


@pytest.fixture(scope="module", params=["embedded", "tensorflow-serving"])
def served(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Addresses]]:
    if request.param != "embedded" and not os.environ.get("TFS_BIN"):
        pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
    base = tmp_path_factory.mktemp("canary")
    for version in (1, EQUAL, NOISY):
        shutil.copytree(folders["face"], base / "face" / str(version))
    add_noise(base / "face" / str(NOISY), 1.0)
    label(base, EQUAL, NOISY)
    with running(base, engine=request.param) as addresses:
        yield base, addresses


def label(base: Path, canary: int, noisy: int) -> None:
    labels = {"stable": 1, "canary": canary, "noisy": noisy}
    config = ModelConfig("face", str(base / "face"), (1, EQUAL, NOISY), labels)
    (base / "models.config").write_text(render([config]))


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize(("name", "code"), [("canary", 0), ("noisy", 1)])
def test_a_worse_version_is_refused_and_an_equal_one_is_not(
    served: tuple[Path, Addresses], protocol: str, name: str, code: int
) -> None:
    base, addresses = served
    options = ["--server", getattr(addresses, protocol), "--canary", name, "--count", "40", "--margin", "latency=3"]
    result = CliRunner().invoke(app, ["canary", str(base), "--json", *options])
    assert result.exit_code == code, result.output
    record = json.loads(result.stdout)
    assert record["worse"] == bool(code)
    assert record["identical"] == (not code)
    assert record["versions"] == {"stable": 1, name: EQUAL if name == "canary" else NOISY}
    measured = {check["margin_name"] for check in record["checks"]}
    assert measured >= {field.name for field in fields(Margins)} - {"confident"}  # random networks may never be sure
