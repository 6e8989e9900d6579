"""The command `emotion-ai web`: starts what the page asks, shows the page, and ends both."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console

from emotion_ai.contract import TASKS
from emotion_ai.data.cache import cache_folder
from emotion_ai.errors import ConfigError, ExportError
from emotion_ai.extras import load as stage
from emotion_ai.web.session import published_versions

_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Served:
    """What the page asks: a server's address, and the folder that it serves where that is known."""

    url: str
    models: Path | None = None


def web(models: Path | None, server: str | None, host: str, port: int) -> None:
    """Shows the page until it is interrupted.

    Args:
        models: a folder that was published into. Without a server it is served for the while; beside one it tells what
            is known of the versions.
        server: http:// or grpc:// address; with neither, the bundled weights are published into the cache and served.
        host: address to listen on.
        port: 0 takes a free one.

    Raises:
        ConfigError: a folder that holds nothing, or a port that is taken.
        ExportError: the bundled weights cannot be published, or no server starts.
        MissingExtraError: the extra [web], or without a server [export], is not installed.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what was started is ended
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        page = stage("emotion_ai.web.page")
        listener = stack.enter_context(page.listening(host, port))
        served = stack.enter_context(serving(models, server, console))
        where = f"http://{host}:{listener.getsockname()[1]}"
        console.print(f"the page is at [bold]{where}[/]; it asks {served.url}")
        try:
            page.run(served, folder, listener)
        except KeyboardInterrupt:
            console.print("ended")


@contextmanager
def private_folder() -> Iterator[Path]:
    """Where Gradio puts uploads for the moment: in memory where the system has such a place, for this user alone.

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
def serving(models: Path | None, server: str | None, console: Console) -> Iterator[Served]:
    """The server that was named, or one of our own for as long as the context lasts.

    Raises:
        ConfigError, ExportError, MissingExtraError: as `web`.
    """
    if models is not None and not published_versions(models):
        raise ConfigError(f"{models}: holds no published versions; publish with: emotion-ai export out={models}")
    if server is not None:
        yield Served(server, models)
        return
    serve = stage("emotion_ai_export.serving.launch")
    engine = stage("emotion_ai_export.serving.engines").server_engine()
    folder = models or bundled_models(console)
    if engine == "embedded":
        console.print("starting the embedded server, a stand-in for TensorFlow Serving")
    with serve.running(folder, engine=engine) as addresses:
        yield Served(addresses.rest, folder)


def bundled_models(console: Console) -> Path:
    """The bundled weights, published into the cache; only once for the same weights.

    Raises:
        ExportError: they cannot be published.
    """
    weights = [files("emotion_ai") / "assets" / "weights" / f"{task}.safetensors" for task in TASKS]
    name = hashlib.sha256(b"".join(weight.read_bytes() for weight in weights)).hexdigest()[:16]
    folder = cache_folder() / f"models-{name}"
    if not published_versions(folder):  # a version appears whole, `face` last
        console.print(f"publishing the bundled weights into {folder}, once; this takes a minute or two")
        out = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        command = [sys.executable, "-m", "emotion_ai.cli", "export", f"out='{out}'", "checkpoint=bundled"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing was said why"]
            raise ExportError(f"the bundled weights could not be published; {said[-1].removeprefix('error: ')}")
    return folder


def versions() -> dict[str, Any]:
    """Of what the page is made of."""
    from importlib.metadata import version

    return {name: version(name) for name in ("emotion-ai", "gradio")}
