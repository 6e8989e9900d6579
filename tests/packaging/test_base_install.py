"""The wheel alone, without extras, in an empty environment. Downloads packages."""

import subprocess
from pathlib import Path

import pytest

from emotion_ai_export.serving.launch import running
from tests.packaging.environments import absent, install, predict, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def base_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("base") / "venv", str(wheel))


def test_the_base_install_predicts_with_a_server(base_install: Path, published: Path) -> None:
    assert absent(base_install, "torch", "tensorflow", "grpc", "pandas", "hydra")
    code = "import emotion_ai; emotion_ai.FaceClient; print(emotion_ai.__version__, len(emotion_ai.EMOTIONS))"
    assert run(base_install / "python", "-c", code).split()[1] == "5"
    assert "--server" in run(base_install / "emotion-ai", "predict", "--help")
    with running(published) as addresses:
        predict(base_install, addresses.rest)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(["train"], "train"), (["serve", "models", "--engine", "embedded"], "serve"), (["web"], "web")],
)
def test_the_base_install_names_the_extra(
    base_install: Path, arguments: list[str], extra: str, published: Path
) -> None:
    command = [str(base_install / "emotion-ai"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=published.parent)
    assert result.returncode == 2, result.stderr
    assert f"pip install 'emotion-ai[{extra}]'" in " ".join(result.stderr.split())
