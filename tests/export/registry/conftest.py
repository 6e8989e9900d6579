"""A site with a real TensorFlow Serving or its double."""

import os
from pathlib import Path

import pytest

from tests.export.registry.site import Site


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from emotion_ai_export.convert.frameworks import tf
    from tests.export.registry.test_versions import Number

    folder, model = tmp_path_factory.mktemp("numbered"), Number()
    for number in range(1, 8):
        model.number.assign(number)
        tf.saved_model.save(model, str(folder / str(number)), signatures={"serving_default": model.call})
    return folder


@pytest.fixture(params=["double", "real"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    if request.param == "real":
        if not os.environ.get("TFS_BIN"):
            pytest.skip("TFS_BIN is not set: no real TensorFlow Serving")
        return Site(tmp_path / "models", Path(os.environ["TFS_BIN"]), request.getfixturevalue("numbered"), 1.0)
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setenv("TFS_DOUBLE_SCALE", "0.1")
    return Site(tmp_path / "models", request.getfixturevalue("double"), None, 0.1)
