"""The command `emotion-ai web`."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emotion_ai.contract import TASKS
from emotion_ai.errors import ConfigError, ExportError
from emotion_ai.published import list_versions
from emotion_ai.terminal import Console

if TYPE_CHECKING:
    from emotion_ai.inference.answer_log import AnswerLog
    from emotion_ai.web.backend import ModelSource


def web(
    models: Annotated[
        Path | None,
        typer.Argument(help="Folder that `emotion-ai export` published to; by default the bundled weights."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Server, http:// or grpc://; by default one is started with the page.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 picks a free one.")] = 7860,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which a proxy serves the page, such as faces.example.org; repeatable."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address or network of a proxy whose X-Forwarded-For is believed; repeatable."),
    ] = None,
    answer_log: Annotated[
        Path | None,
        typer.Option(help="Folder of Parquet files to which the answers are appended, without pixels or names."),
    ] = None,
) -> None:
    """Open a web page that reads pictures and the webcam with a served model."""
    from emotion_ai.addresses import host_port, without_brackets
    from emotion_ai.client.address import without_login
    from emotion_ai.web.backend import private_folder

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the server is stopped as well
    with ExitStack() as stack:
        log = stack.enter_context(_open_log(answer_log)) if answer_log else None
        folder = stack.enter_context(private_folder())
        from emotion_ai.web import application  # imports Gradio, which needs the folder

        host = without_brackets(host)
        listener = stack.enter_context(application.listening(host, port))
        source = stack.enter_context(model_source(models, server, console))
        console.print(
            f"the page is at http://{host_port(host, listener.getsockname()[1])}; it uses the models of "
            f"{without_login(source.url)}"
        )
        try:
            application.run(source, folder, listener, allowed_host or (), trusted_proxy or (), stack.close, log)
        except KeyboardInterrupt:
            console.print("stopped")


def _open_log(folder: Path) -> "AnswerLog":
    from emotion_ai.inference.answer_log import AnswerLog  # imports pyarrow

    return AnswerLog(folder)


@contextmanager
def model_source(models: Path | None, server: str | None, console: Console) -> Iterator["ModelSource"]:
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
    from emotion_ai.web.backend import ModelSource

    if models is not None and not list_versions(models / "face"):
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
    import hashlib
    from importlib.resources import files

    from emotion_ai.data.cache import cache_folder

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
