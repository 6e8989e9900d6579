"""The small random networks, served and loaded once for all tests of the export."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emotion_ai_export.convert.frameworks import tf
from emotion_ai_export.serving.launch import Addresses, running
from tests.export.serving_double import executable


@pytest.fixture(scope="session", params=["embedded", "tensorflow-serving"])
def live(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Addresses]:
    """The random networks, served as version 1 by another process."""
    if request.param != "embedded" and not os.environ.get("TFS_BIN"):
        pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
    base = tmp_path_factory.mktemp("live")
    for name, folder in folders.items():
        shutil.copytree(folder, base / name / "1")
    with running(base, engine=request.param) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def loaded(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: tf.saved_model.load(str(folder)) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable like `tensorflow_model_server`; see `tests.export.serving_double`."""
    return executable(tmp_path_factory.mktemp("double"))


@pytest.fixture
def as_real(double: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`double` as the TensorFlow Serving that is found, with short periods."""
    monkeypatch.setenv("TFS_BIN", str(double))
    monkeypatch.setenv("TFS_DOUBLE_SCALE", "0.05")
    return double
