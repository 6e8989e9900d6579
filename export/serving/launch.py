"""`emotion-ai serve`: TensorFlow Serving where it is installed or in a container, otherwise the embedded server."""

import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import requests
from rich.console import Console

from emotion_ai.errors import ConfigError, ExportError, MissingExtraError
from emotion_ai_export.registry.model_config import ModelConfig, parse, render
from emotion_ai_export.registry.publish import CONFIG_FILE, versions_of

ENGINES = ("auto", "tensorflow-serving", "docker", "embedded")
IMAGE = "tensorflow/serving:2.20.0"  # EMOTION_AI_TFS_IMAGE names another
_POLL = ["--model_config_file_poll_wait_seconds=1", "--allow_version_labels_for_unavailable_models"]


def serve(
    base: Path, rest_port: int = 8501, grpc_port: int = 8500, engine: str = "auto", host: str = "127.0.0.1"
) -> None:
    """Serves a base folder until it is interrupted.

    Raises:
        ConfigError: nothing to serve, an engine that is not there, or a port that is taken.
        MissingExtraError: the embedded server without the extra [export].
        ExportError: the server ended by itself.
    """
    base = base.resolve()
    models = _models(base)
    engine = choose_engine(engine)
    _check_port(rest_port, host, "--rest-port")
    _check_port(grpc_port, host, "--grpc-port")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with tempfile.TemporaryDirectory(prefix="emotion-ai-serve-") as scratch:
        command = command_line(base, rest_port, grpc_port, engine, host, Path(scratch))
        console.print(
            f"[bold]{engine}[/] serves {', '.join(models)} on http://{host}:{rest_port} and grpc://{host}:{grpc_port}"
        )
        if engine == "tensorflow-serving":
            console.print("TensorFlow Serving cannot be bound to one address: it listens on every interface.")
        if engine == "embedded":
            console.print("A stand-in for development. The plain command for TensorFlow Serving is:")
            config = _config_file(base, Path(scratch))
            plain = _arguments("tensorflow_model_server", rest_port, grpc_port, config)
        else:
            plain = command
        console.print(f"  {shlex.join(plain)}", markup=False)
        process = subprocess.Popen(command)
        signals: list[int] = []

        def stop(number: int, _: object) -> None:
            signals.append(number)
            process.terminate()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        code = process.wait()
    if code and not signals:
        raise ExportError(f"{engine} ended by itself with code {code}; its last lines above say why")


class Addresses(NamedTuple):
    """Of one server, as `FaceClient` takes them."""

    rest: str
    grpc: str


@contextlib.contextmanager
def running(base: Path, rest_port: int = 0, engine: str = "embedded", timeout: float = 120.0) -> Iterator[Addresses]:
    """Serves a base folder from a process of its own for as long as the context lasts; says where.

    Args:
        base: holds `<model>/<version>/`.
        rest_port: 0 takes a free one.
        engine: as `serve` takes it.
        timeout: seconds until every model must be AVAILABLE.

    Raises:
        ConfigError: nothing to serve, an engine that is not there, or a port that is taken.
        ExportError: the models did not become available.
    """
    base = base.resolve()
    models, engine = _models(base), choose_engine(engine)
    host = "127.0.0.1"
    if rest_port:
        _check_port(rest_port, host, "rest_port")
    ports = rest_port or _free_port(), _free_port()
    addresses = Addresses(f"http://{host}:{ports[0]}", f"grpc://{host}:{ports[1]}")
    with tempfile.TemporaryDirectory(prefix="emotion-ai-serve-") as scratch:
        command = command_line(base, *ports, engine, host, Path(scratch))
        if engine == "embedded":
            command.append("--until-stdin-closes")
        notes = Path(scratch) / "server.log"
        with notes.open("wb") as stream:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream, stderr=stream)
        try:
            wanted = {model: _wanted(base, model) for model in models}
            _wait_available(addresses.rest, wanted, process, notes, timeout)
            yield addresses
        finally:
            _end(process)


def choose_engine(engine: str = "auto") -> str:
    """What serves: the named engine, or with "auto" the first that is there.

    Raises:
        ConfigError: an unknown engine, or one that is not there.
        MissingExtraError: the embedded server without the extra [export].
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine {engine!r}: choose one of {', '.join(ENGINES)}")
    if engine in ("auto", "tensorflow-serving"):
        if _binary():
            return "tensorflow-serving"
        if engine != "auto":
            raise ConfigError(
                "tensorflow_model_server is neither on PATH nor named by TFS_BIN; install it or use --engine embedded"
            )
    if engine in ("auto", "docker"):
        if _docker_works():
            return "docker"
        if engine != "auto":
            raise ConfigError(
                "docker is not installed or its daemon does not answer; start it or use --engine embedded"
            )
    missing = [
        name for name in ("tensorflow", "grpc", "starlette", "uvicorn") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise MissingExtraError(f"the embedded server needs {missing[0]}: pip install 'emotion-ai[export]'")
    return "embedded"


def server_engine() -> str:
    """What tests and checks serve with: TensorFlow Serving where it is installed, otherwise the embedded server."""
    return "tensorflow-serving" if _binary() else choose_engine("embedded")


def command_line(base: Path, rest_port: int, grpc_port: int, engine: str, host: str, scratch: Path) -> list[str]:
    """The command that serves `base` with an engine; `scratch` takes a models.config where there is no fitting one."""
    if engine == "embedded":
        server = [sys.executable, "-m", "emotion_ai_export.serving.embedded", str(base)]
        return [*server, f"--host={host}", f"--rest-port={rest_port}", f"--grpc-port={grpc_port}"]
    if engine == "tensorflow-serving":
        return _arguments(str(_binary()), rest_port, grpc_port, _config_file(base, scratch))
    listed = _listed(base)
    # models.config names its models' folders, so the container must see them under the same names
    inside = Path(listed[0].base_path).parent if listed else Path("/models")
    if listed and all(Path(config.base_path).parent == inside for config in listed):
        config, volumes = inside / CONFIG_FILE, [f"{base}:{inside}:ro"]
    else:
        inside = Path("/models")
        (scratch / CONFIG_FILE).write_text(render(_configs(base, inside)))
        config, volumes = Path("/config") / CONFIG_FILE, [f"{base}:{inside}:ro", f"{scratch}:/config:ro"]
    docker = ["docker", "run", "--rm", "--init", "--cap-drop=ALL", "--user", f"{os.getuid()}:{os.getgid()}"]
    docker += [f"--publish={host}:{rest_port}:8501", f"--publish={host}:{grpc_port}:8500"]
    docker += [f"--volume={volume}" for volume in volumes]
    image = os.environ.get("EMOTION_AI_TFS_IMAGE", IMAGE)
    return [*docker, "--entrypoint=tensorflow_model_server", image, *_arguments("", 8501, 8500, config)[1:]]


def _arguments(binary: str, rest_port: int, grpc_port: int, config: Path) -> list[str]:
    return [binary, f"--rest_api_port={rest_port}", f"--port={grpc_port}", f"--model_config_file={config}", *_POLL]


def _config_file(base: Path, scratch: Path) -> Path:
    """The folder's own models.config, which follows promotions, unless it was rendered for another place."""
    listed = _listed(base)
    if listed and all(Path(config.base_path).is_dir() for config in listed):
        return base / CONFIG_FILE
    file = scratch / CONFIG_FILE
    file.write_text(render(_configs(base, base)))
    return file


def _listed(base: Path) -> list[ModelConfig]:
    file = base / CONFIG_FILE
    return parse(file.read_text(encoding="utf-8")) if file.exists() else []


def _configs(base: Path, seen_as: Path) -> list[ModelConfig]:
    """What models.config lists, or else every model's newest version, under the path that the server sees."""
    listed = _listed(base) or [ModelConfig(name, name, ()) for name in _models(base)]
    return [ModelConfig(c.name, str(seen_as / Path(c.base_path).name), c.versions, c.labels) for c in listed]


def _models(base: Path) -> list[str]:
    if not base.is_dir():
        raise ConfigError(f"{base}: no such folder; publish models into it with: emotion-ai export out={base}")
    names = [c.name for c in _listed(base) if versions_of(base / Path(c.base_path).name)]
    names = names or sorted(p.name for p in base.iterdir() if p.is_dir() and p.name[0] != "." and versions_of(p))
    if not names:
        raise ConfigError(f"{base}: holds no <model>/<version> folder; publish with: emotion-ai export out={base}")
    return names


def _binary() -> str | None:
    return os.environ.get("TFS_BIN") or shutil.which("tensorflow_model_server")


def _docker_works() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _check_port(port: int, host: str, option: str) -> None:
    if not 1 <= port <= 65535:
        raise ConfigError(f"{option} {port}: choose a port from 1 to 65535")
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise ConfigError(f"{option} {port} on {host}: {reason}; choose another port or address") from error


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wanted(base: Path, model: str) -> set[str]:
    """The versions that must be served: those that models.config names, otherwise the newest."""
    listed = {version for config in _listed(base) if config.name == model for version in config.versions}
    return {str(version) for version in listed or versions_of(base / model)[-1:]}


def _wait_available(
    url: str, models: dict[str, set[str]], process: subprocess.Popen[Any], notes: Path, timeout: float
) -> None:
    deadline = time.monotonic() + timeout
    with requests.Session() as session:
        session.trust_env = False  # no proxy between us and our own process
        for model, wanted in models.items():
            status: list[dict[str, Any]] = []
            while not wanted <= {version["version"] for version in status if version["state"] == "AVAILABLE"}:
                ended = process.poll() is not None or time.monotonic() > deadline
                if ended or (status and all(version["state"] == "END" for version in status)):
                    said = status[0]["status"]["error_message"] if status else notes.read_text(errors="replace")[-300:]
                    text = " ".join(said.split()) or "nothing was said why"
                    raise ExportError(f"{url}: model {model} did not become available; {text}")
                time.sleep(0.1)
                status = _status(session, f"{url}/v1/models/{model}")


def _status(session: requests.Session, url: str) -> list[dict[str, Any]]:
    try:
        return list(session.get(url, timeout=5).json()["model_version_status"])
    except (requests.RequestException, ValueError, KeyError):
        return []


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()
