"""The notebooks, executed from top to bottom in kernels of their own; those of `make test-all` on real faces, too."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LARGEST = 60_000  # bytes of a stored notebook: text and code, no pictures

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(jupyter_client|jupyter_core|nbclient|zmq)")


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for all that Jupyter writes, with a kernel that is this interpreter."""
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


def execute(path: Path, folder: Path, environment: dict[str, str]) -> Any:
    """The notebook with its outputs, run in an empty folder."""
    folder.mkdir()
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=1200, resources={"metadata": {"path": str(folder)}}
    )
    asyncio.run(client.async_execute(env=os.environ | environment))  # its own `execute` leaves an event loop open
    assert not list(folder.iterdir()), "it leaves files behind"
    return notebook


@pytest.fixture(scope="module")
def executed(
    request: pytest.FixtureRequest, jupyter: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Any]]]:
    """The notebooks that are asked for, on drawn faces, two at a time: each keeps one core busy."""
    base = tmp_path_factory.mktemp("notebooks")
    environment = {"EMOTION_AI_NOTEBOOKS": "drawn", "OMP_NUM_THREADS": "1"}
    asked = [item.callspec.params["path"] for item in request.session.items if "executed" in item.fixturenames]
    with ThreadPoolExecutor(2) as pool:
        yield {path.stem: pool.submit(execute, path, base / path.stem, environment) for path in asked}
        pool.shutdown(cancel_futures=True)


def check(notebook: Any) -> None:
    """Pictures, and nothing on stderr: errors have been raised before."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert not said
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


def test_there_are_seven() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == list("1234567")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path: Path) -> None:
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert len(text.encode()) < LARGEST
    assert notebook.metadata.kernelspec.name == "python3"
    assert nbformat.writes(notebook) + "\n" == text


def test_all_choose_the_faces_alike() -> None:
    firsts = {
        next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code") for path in NOTEBOOKS
    }
    assert len(firsts) == 1


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_drawn_faces(path: Path, executed: dict[str, Future[Any]]) -> None:
    check(executed[path.stem].result())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_real_faces(path: Path, jupyter: Path, real_data: Path, tmp_path: Path) -> None:
    check(
        execute(path, tmp_path / "work", {"EMOTION_AI_NOTEBOOKS": "real", "EMOTION_AI_DATA": str(real_data.resolve())})
    )


def test_a_mistake_is_seen(jupyter: Path, tmp_path: Path) -> None:
    wrong = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(wrong, tmp_path / "wrong.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(tmp_path / "wrong.ipynb", tmp_path / "work", {})
