"""What the page needs to run: a model server, and a private folder for uploads."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from emotion_ai.contract import TASKS
from emotion_ai.data.cache import cache_folder
from emotion_ai.errors import ConfigError, ExportError
from emotion_ai.published import list_versions

_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class ModelSource:
    """The models that the page uses: the server's address, and the published folder if it is known."""

    url: str
    models: Path | None = None

    @property
    def versions(self) -> list[int]:
        """Versions of `face` in the folder, ascending; none without a folder."""
        return list_versions(self.models / "face") if self.models else []


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for uploads that only this user can read, in memory if the system has /dev/shm.

    Must be entered before Gradio is imported.
    """
    memory = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="emotion-ai-web-", dir=memory))  # mode 0700
    names = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, (str(folder), "False", "1"), strict=True))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def model_source(models: Path | None, server: str | None, console: Console) -> Iterator[ModelSource]:
    """The given server, or one that is started for as long as the context lasts.

    Args:
        models: a published folder; without it and without a server the bundled weights are published.
        server: http:// or grpc:// address.
        console: for progress.

    Raises:
        ConfigError: the folder has no published versions, or the server cannot be started with it.
        ExportError: the bundled weights cannot be published, or the server stops.
        MissingExtraError: the server needs an extra that is not installed.
    """
    if models is not None and not ModelSource("", models).versions:
        raise ConfigError(f"{models}: no published versions; publish with: emotion-ai export out={models}")
    if server is not None:
        yield ModelSource(server, models)
        return
    from emotion_ai_export.serving.engines import server_engine
    from emotion_ai_export.serving.launch import running

    engine = server_engine()
    folder = models or bundled_models(console)
    if engine == "embedded":
        console.print("starting the embedded server, a stand-in for TensorFlow Serving")
    with running(folder, engine=engine) as addresses:
        yield ModelSource(addresses.rest, folder)


def bundled_models(console: Console) -> Path:
    """The bundled weights, published into the cache once.

    Raises:
        ExportError: publishing fails.
    """
    weights = [files("emotion_ai") / "assets" / "weights" / f"{task}.safetensors" for task in TASKS]
    name = hashlib.sha256(b"".join(weight.read_bytes() for weight in weights)).hexdigest()[:16]
    folder = cache_folder() / f"models-{name}"
    if not list_versions(folder / "face"):  # a version appears whole, `face` last
        console.print(f"publishing the bundled weights into {folder}, once; this takes a minute or two")
        out = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        command = [sys.executable, "-m", "emotion_ai.cli", "export", f"out='{out}'", "checkpoint=bundled"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no error output"]
            raise ExportError(f"the bundled weights could not be published; {lines[-1].removeprefix('error: ')}")
    return folder
