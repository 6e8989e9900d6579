"""What serves a published folder, and the command that starts it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_ai.addresses import host_port
from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ConfigError, MissingExtraError
from emotion_ai.published import CONFIG_FILE, list_versions
from emotion_ai_export.registry.fitting import fitting
from emotion_ai_export.registry.model_config import ModelConfig, read_config, render
from emotion_ai_export.serving.flags import available_cpus, runtime_flags

ENGINES = ("auto", "tensorflow-serving", "docker", "embedded")
IMAGE = "tensorflow/serving:2.20.0"  # EMOTION_AI_TFS_IMAGE overrides it
_POLL = ["--model_config_file_poll_wait_seconds=1", "--allow_version_labels_for_unavailable_models"]
_LESS = ["--enable_profiler=false"]  # otherwise the gRPC port takes requests for profiles, too


@dataclass(frozen=True)
class ServerOptions:
    """How to serve.

    Attributes:
        rest_port: of the REST API.
        grpc_port: of the gRPC API.
        engine: one of `ENGINES`.
        host: the address to listen on.
        grpc_max_threads: calls that gRPC takes at once; by default as `runtime_flags` says.
    """

    rest_port: int = 8501
    grpc_port: int = 8500
    engine: str = "auto"
    host: str = "127.0.0.1"
    grpc_max_threads: int | None = None


def choose_engine(engine: str = "auto") -> str:
    """The engine itself if it is available; for "auto", the first that is.

    Raises:
        ConfigError: unknown engine, or one that is not available.
        MissingExtraError: the embedded server without the extra [serve].
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
                "docker is not installed or its daemon does not respond; start it or use --engine embedded"
            )
    needed = ("tensorflow", "grpc", "google.protobuf", "starlette", "uvicorn")
    missing = [name for name in needed if not _installed(name)]
    if missing:
        raise MissingExtraError(f"the embedded server needs {missing[0]}: pip install 'emotion-ai[serve]'")
    return "embedded"


def server_engine() -> str:
    """The engine for tests and checks: TensorFlow Serving if it is installed, otherwise the embedded server."""
    return "tensorflow-serving" if _binary() else choose_engine("embedded")


def command_line(base: Path, options: ServerOptions, scratch: Path) -> list[str]:
    """The command that serves `base`, with `options.engine` already chosen.

    Args:
        base: the published folder.
        options: engine, ports and host.
        scratch: a folder for a rendered models.config, if the published one does not fit.
    """
    if options.engine == "embedded":
        server = [sys.executable, "-m", "emotion_ai_export.serving.embedded", str(base)]
        ports = [f"--rest-port={options.rest_port}", f"--grpc-port={options.grpc_port}"]
        threads = [] if options.grpc_max_threads is None else [f"--grpc-max-threads={options.grpc_max_threads}"]
        return [*server, f"--host={options.host}", *ports, *threads]
    if options.engine == "tensorflow-serving":
        return binary_command(base, options, scratch, str(_binary()))
    return _docker_command(base, options, scratch)


def binary_command(
    base: Path, options: ServerOptions, scratch: Path, binary: str = "tensorflow_model_server"
) -> list[str]:
    """The plain command of TensorFlow Serving."""
    return [binary, *_arguments(options, _config_file(base, scratch))]


def served_models(base: Path) -> list[str]:
    """Names of the models to serve: those of models.config, or every folder with versions.

    Raises:
        ConfigError: no such folder, or no versions in it.
    """
    if not base.is_dir():
        raise ConfigError(f"{base}: no such folder; publish models into it with: emotion-ai export out={base}")
    names = [c.name for c in read_config(base) if list_versions(base / Path(c.base_path).name)]
    names = names or sorted(p.name for p in base.iterdir() if p.is_dir() and p.name[0] != "." and list_versions(p))
    if not names:
        raise ConfigError(f"{base}: no <model>/<version> folder there; publish with: emotion-ai export out={base}")
    return names


def _docker_command(base: Path, options: ServerOptions, scratch: Path) -> list[str]:
    listed = read_config(base)
    # models.config names its models' folders, so the container must see them under the same names
    inside = Path(listed[0].base_path).parent if listed else Path("/models")
    if listed == fitting(base) and listed and all(Path(config.base_path).parent == inside for config in listed):
        config, volumes = inside / CONFIG_FILE, [f"{base}:{inside}:ro"]
    else:
        inside = Path("/models")
        (scratch / CONFIG_FILE).write_text(render(_configs(base, inside)))
        config, volumes = Path("/config") / CONFIG_FILE, [f"{base}:{inside}:ro", f"{scratch}:/config:ro"]
    docker = ["docker", "run", "--rm", "--init", "--cap-drop=ALL", "--user", f"{os.getuid()}:{os.getgid()}"]
    for port, published in ((8501, options.rest_port), (8500, options.grpc_port)):
        docker.append(f"--publish={host_port(options.host, published)}:{port}")
    docker += [f"--volume={volume}" for volume in volumes]
    image = os.environ.get("EMOTION_AI_TFS_IMAGE", IMAGE)
    return [
        *docker,
        "--entrypoint=tensorflow_model_server",
        image,
        *_arguments(replace(options, rest_port=8501, grpc_port=8500), config),
    ]


def _arguments(options: ServerOptions, config: Path) -> list[str]:
    ports = [f"--rest_api_port={options.rest_port}", f"--port={options.grpc_port}"]
    flags = runtime_flags(available_cpus(), options.grpc_max_threads)
    return [*ports, f"--model_config_file={config}", *_POLL, *_LESS, *flags]


def _config_file(base: Path, scratch: Path) -> Path:
    """The folder's own models.config, which follows promotions, unless it was written for another place."""
    listed = read_config(base)
    parents = {Path(config.base_path).parent.resolve() for config in listed if config.name in SERVABLES}
    if listed and listed == fitting(base) and parents <= {base} and all(Path(c.base_path).is_dir() for c in listed):
        return base / CONFIG_FILE
    file = scratch / CONFIG_FILE
    file.write_text(render(_configs(base, base)))
    return file


def _configs(base: Path, seen_as: Path) -> list[ModelConfig]:
    """The models of models.config, or every model's newest version, under the path that the server sees."""
    listed = fitting(base)
    roots = {Path(config.base_path).parent for config in listed if config.name in SERVABLES}

    def seen(config: ModelConfig) -> ModelConfig:
        path = Path(config.base_path)
        if config.name in SERVABLES or path.parent in roots or not path.is_dir():
            return replace(config, base_path=str(seen_as / path.name))
        return config  # a model from elsewhere

    return [seen(config) for config in listed] or [
        ModelConfig(name, str(seen_as / name), ()) for name in served_models(base)
    ]


def _binary() -> str | None:
    return os.environ.get("TFS_BIN") or shutil.which("tensorflow_model_server")


def _docker_works() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent package
        return False
