from pathlib import Path

import pytest

from tests.export.serving.small_models import build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    build(folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "models"
