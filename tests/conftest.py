"""Shared by all tests: a cache of their own, and the real datasets where they are at hand."""

import os
from pathlib import Path

import pytest
import torchvision  # noqa: F401 - before TensorFlow, see emotion_ai_export.frameworks

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("EMOTION_AI_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that EMOTION_AI_DATA names; tests that need it are skipped without it."""
    folder = os.environ.get("EMOTION_AI_DATA")
    if not folder:
        pytest.skip("EMOTION_AI_DATA is not set: no real datasets")
    return Path(folder)
