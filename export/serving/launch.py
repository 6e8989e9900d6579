"""Runs a server: `emotion-ai serve` in the foreground, or `running` for the length of a context."""

import contextlib
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import requests

from emotion_ai.addresses import bind, host_port, without_brackets
from emotion_ai.errors import ConfigError, ExportError
from emotion_ai.published import list_versions
from emotion_ai.terminal import Console
from emotion_ai_export.registry.fitting import fit_config
from emotion_ai_export.registry.model_config import read_config
from emotion_ai_export.serving.engines import (
    ServerOptions,
    binary_command,
    choose_engine,
    command_line,
    served_models,
)


class Addresses(NamedTuple):
    """Of one server, as `FaceClient` takes them."""

    rest: str
    grpc: str


def serve(base: Path, options: ServerOptions | None = None) -> None:
    """Serves a published folder until it is interrupted.

    Raises:
        ConfigError: nothing to serve, an engine that is not available, or a port that is taken.
        MissingExtraError: the embedded server without the extra [serve].
        ExportError: the server stopped by itself.
    """
    base, options = base.resolve(), options or ServerOptions()
    models = served_models(base)
    host, engine = without_brackets(options.host), choose_engine(options.engine)
    options = replace(options, engine=engine, host=host)
    fit_config(base)
    if options.rest_port == options.grpc_port:
        raise ConfigError(f"--rest-port and --grpc-port are both {options.rest_port}; choose two ports")
    _check_port(options.rest_port, options.host, "--rest-port")
    _check_port(options.grpc_port, options.host, "--grpc-port")
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with tempfile.TemporaryDirectory(prefix="emotion-ai-serve-") as scratch:
        command = command_line(base, options, Path(scratch))
        console.print(
            f"{options.engine} serves {', '.join(models)} on http://{host_port(host, options.rest_port)} "
            f"and grpc://{host_port(host, options.grpc_port)}"
        )
        plain = command
        if options.engine == "tensorflow-serving":
            console.print("TensorFlow Serving cannot be bound to one address: it listens on every interface.")
            if ":" in host:
                console.print("Its gRPC port takes IPv4 connections only.")
        if options.engine == "embedded":
            console.print("It is a stand-in for development. To run TensorFlow Serving instead:")
            plain = binary_command(base, options, Path(scratch))
        console.print(f"  {shlex.join(plain)}")
        process = subprocess.Popen(command)
        signals: list[int] = []

        def stop(number: int, _: object) -> None:
            signals.append(number)
            process.terminate()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        code = process.wait()
    if code and not signals:
        raise ExportError(f"{options.engine} exited with code {code}; see its last lines above")


@contextlib.contextmanager
def running(
    base: Path,
    rest_port: int = 0,
    engine: str = "embedded",
    timeout: float = 120.0,
    grpc_max_threads: int | None = None,
) -> Iterator[Addresses]:
    """Serves a published folder from another process for the length of the context; yields its addresses.

    Args:
        base: holds `<model>/<version>/`.
        rest_port: 0 takes a free one.
        engine: one of `ENGINES`.
        timeout: seconds until every model must be AVAILABLE.
        grpc_max_threads: calls that gRPC takes at once.

    Raises:
        ConfigError: nothing to serve, an engine that is not available, or a port that is taken.
        ExportError: the models did not become available.
    """
    base = base.resolve()
    models = served_models(base)
    fit_config(base)
    options = ServerOptions(rest_port or free_port(), free_port(), choose_engine(engine))
    options = replace(options, grpc_max_threads=grpc_max_threads)
    if rest_port:
        _check_port(rest_port, options.host, "rest_port")
    addresses = Addresses(f"http://{options.host}:{options.rest_port}", f"grpc://{options.host}:{options.grpc_port}")
    with tempfile.TemporaryDirectory(prefix="emotion-ai-serve-") as scratch:
        command = command_line(base, options, Path(scratch))
        if options.engine == "embedded":
            command.append("--until-stdin-closes")
        log = Path(scratch) / "server.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream, stderr=stream)
        server = ServerProcess(addresses.rest, process, log)
        try:
            server.wait_available({model: versions_to_serve(base, model) for model in models}, timeout)
            yield addresses
        finally:
            server.end()


class ServerProcess(NamedTuple):
    """A started server: its REST address, its process, and the file that takes its output."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_available(self, versions: dict[str, set[str]], timeout: float) -> None:
        """Waits until all versions, by model, are AVAILABLE.

        Raises:
            ExportError: one failed to load, the process ended, or the time is over.
        """
        deadline = time.monotonic() + timeout
        with requests.Session() as session:
            session.trust_env = False  # no proxy between this process and its child
            for model, needed in versions.items():
                status: list[dict[str, Any]] = []
                while not needed <= {version["version"] for version in status if version["state"] == "AVAILABLE"}:
                    ended = self.process.poll() is not None or time.monotonic() > deadline
                    if ended or (status and all(version["state"] == "END" for version in status)):
                        output = self.log.read_text(errors="replace")[-300:]
                        reason = status[0]["status"]["error_message"] if status else output
                        reason = " ".join(reason.split()) or "no error output"
                        raise ExportError(f"{self.url}: model {model} did not become available; {reason}")
                    time.sleep(0.1)
                    status = _status(session, f"{self.url}/v1/models/{model}")

    def end(self) -> None:
        """Stops the process, after 30 s by force."""
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _check_port(port: int, host: str, option: str) -> None:
    if not 1 <= port <= 65535:
        raise ConfigError(f"{option} must be from 1 to 65535, got {port}")
    try:
        bind(host, port).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise ConfigError(f"{option} {port} on {host}: {reason}; choose another port or address") from error


def versions_to_serve(base: Path, model: str) -> set[str]:
    """The versions that models.config lists, otherwise the newest."""
    listed = {version for config in read_config(base) if config.name == model for version in config.versions}
    return {str(version) for version in listed or list_versions(base / model)[-1:]}


def _status(session: requests.Session, url: str) -> list[dict[str, Any]]:
    try:
        return list(session.get(url, timeout=5).json()["model_version_status"])
    except (requests.RequestException, ValueError, KeyError):
        return []
