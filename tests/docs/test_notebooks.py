"""The notebooks run from top to bottom, each in its own kernel; with `make test-all` on real faces as well."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
MAX_BYTES = 60_000  # of a stored notebook: text and code without outputs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(jupyter_client|jupyter_core|nbclient|zmq)")


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for all files that Jupyter writes, with a kernel for this interpreter."""
    folder = tmp_path_factory.mktemp("jupyter")
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    names = ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, str(folder if name == "JUPYTER_PATH" else folder / name.lower()))
        yield folder


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def execute(path: Path, folder: Path, environment: dict[str, str]) -> Any:
    """Runs a notebook in an empty folder and returns it with its outputs."""
    folder.mkdir()
    notebook = read(path)
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=1200, resources={"metadata": {"path": str(folder)}}
    )
    asyncio.run(client.async_execute(env=os.environ | environment))  # `execute` leaves an event loop open
    assert not list(folder.iterdir()), "the notebook leaves files behind"
    return notebook


def check(notebook: Any) -> None:
    """There are figures, and nothing on stderr; errors were raised during execution."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    errors = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not errors
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_there_are_nine() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == list("123456789")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path: Path) -> None:
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert len(text.encode()) < MAX_BYTES
    assert notebook.metadata.kernelspec.name == "python3"
    assert nbformat.writes(notebook) + "\n" == text


def test_first_code_cell_is_the_same_in_all() -> None:
    cells = {next(cell.source for cell in read(path).cells if cell.cell_type == "code") for path in NOTEBOOKS}
    assert len(cells) == 1


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_synthetic_faces(path: Path, jupyter: Path, tmp_path: Path) -> None:
    check(execute(path, tmp_path / "work", {"EMOTION_AI_NOTEBOOKS": "synthetic", "OMP_NUM_THREADS": "1"}))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_real_faces(path: Path, jupyter: Path, real_data: Path, tmp_path: Path) -> None:
    environment = {"EMOTION_AI_NOTEBOOKS": "real", "EMOTION_AI_DATA": str(real_data.resolve())}
    check(execute(path, tmp_path / "work", environment))


def test_errors_are_raised(jupyter: Path, tmp_path: Path) -> None:
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "source": "1 / 0",
        "outputs": [],
        "execution_count": None,
    }
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "wrong.ipynb").write_text(json.dumps(notebook))
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(tmp_path / "wrong.ipynb", tmp_path / "work", {})
