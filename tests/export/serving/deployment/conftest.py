from pathlib import Path

import pytest

from emotion_ai.contract import SERVABLES
from tests.export.serving.deployment.deployment_files import MIB, put_version


@pytest.fixture(params=["host", "container"])
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in SERVABLES:
        put_version(tmp_path / name / "1", MIB)
    return tmp_path
