"""The folder `deployment/` beside the models: how to run, monitor and call the server, and a README."""

import json
import re
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emotion_ai.contract import MAX_CROP_PIXELS, MAX_FACES, SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.files import write_text
from emotion_ai.published import CONFIG_FILE, CONTAINER_BASE, list_versions
from emotion_ai_export.registry.model_config import read_config
from emotion_ai_export.registry.publish import check_target
from emotion_ai_export.registry.warmup import BATCHES
from emotion_ai_export.serving.dashboard import dashboard
from emotion_ai_export.serving.engines import IMAGE
from emotion_ai_export.serving.flags import CPUS, runtime_flags
from emotion_ai_export.serving.openapi import openapi

FOLDER = "deployment"
RENDERED = (
    *("README.md", "batching_parameters.txt", "monitoring.config", "nginx.conf"),
    *("compose.yaml", "kubernetes.yaml", "kserve-knative.yaml", "kserve-standard.yaml"),
    *("page.Dockerfile", "server.Dockerfile", "server.Dockerfile.dockerignore"),
    *("prometheus.yaml", "alerts.yaml", "grafana-datasource.yaml", "grafana-dashboards.yaml"),
)
FILES = (*RENDERED, "dashboard.json", "openapi.json")
BAKED = "emotion-ai-models"  # the image of server.Dockerfile; its tag is the newest version in it
TEMPLATES = Path(__file__).with_name("templates")
METRICS_PATH = "/monitoring/prometheus/metrics"
SERVER_MEMORY = 2048  # MiB besides the models; the embedded server takes 1.2 GiB with one version, 1.6 with two
MEMORY_STEP = 128  # MiB
BODY_LIMIT = 24  # MiB at the proxy: a request of FaceClient's in base64
USER = 65532  # no user of the host; the models must be readable by everyone


@dataclass(frozen=True)
class Deployment:
    """What the templates describe.

    Attributes:
        inside: the models' folder as the server sees it.
        cpus: limit of the server's container.
        model_memory: MiB of the versions that `models.config` lists.
    """

    inside: str
    cpus: int
    model_memory: int

    @property
    def memory(self) -> int:
        """Limit of the server's container in MiB."""
        return -(-(SERVER_MEMORY + 2 * self.model_memory) // MEMORY_STEP) * MEMORY_STEP

    @property
    def flags(self) -> list[str]:
        """Of TensorFlow Serving in a container or on the host."""
        return [
            "--port=8500",
            "--rest_api_port=8501",
            f"--model_config_file={self.inside}/{CONFIG_FILE}",
            "--model_config_file_poll_wait_seconds=1",
            "--allow_version_labels_for_unavailable_models=true",
            f"--monitoring_config_file={self.inside}/{FOLDER}/monitoring.config",
            "--num_load_threads=1",
            "--enable_grpc_healthcheck_service=true",
            "--enable_profiler=false",
            *runtime_flags(self.cpus),
        ]

    @property
    def batching_flags(self) -> list[str]:
        """Further flags, which are off."""
        return ["--enable_batching=true", f"--batching_parameters_file={self.inside}/{FOLDER}/batching_parameters.txt"]


def write_deployment(base: Path, target: str, cpus: int = CPUS) -> list[Path]:
    """Rewrites `deployment/` beside the models; the same models give the same bytes.

    Args:
        base: the published folder, with its `models.config`.
        target: the one that `models.config` was written for: "host" for absolute paths, which a container sees under
            the same names, "container" for paths below /models.
        cpus: CPUs of the server's container.

    Raises:
        ConfigError: `cpus` is not an integer from 1 on.
        ExportError: unknown target, `models.config` missing or written for other paths, or a folder that is not
            writable.
    """
    check_target(target)
    folder = base / FOLDER
    if folder.is_symlink():
        raise ExportError(f"{folder}: a link, whose target's files would be replaced; remove it")
    texts = _render(base, target, cpus)
    try:
        folder.mkdir(exist_ok=True)
        for stale in (path for name in FILES for path in folder.glob(f".{name}.*.partial")):
            stale.unlink(missing_ok=True)  # of a killed export
        for name, text in texts.items():
            write_text(folder / name, text, sync=True)
    except OSError as error:
        raise ExportError(f"{folder}: not writable ({error.strerror}); make room for it and try again") from error
    return [folder / name for name in texts]


def _render(base: Path, target: str, cpus: int) -> dict[str, str]:
    inside = CONTAINER_BASE if target == "container" else str(base.resolve())
    deployment = Deployment(inside, cpus, _mebibytes(_model_bytes(base, inside)))
    face = next((config for config in read_config(base) if config.name == "face"), None)
    newest = max((face.versions if face else ()) or list_versions(base / "face"), default=1)
    release = version("emotion-ai")
    values = {
        "baked": BAKED,
        "batch_sizes": BATCHES,
        "body_limit": BODY_LIMIT,
        "deployment": deployment,
        "image": IMAGE,
        "max_faces": MAX_FACES,
        "max_megapixels": MAX_CROP_PIXELS // 2**20,
        "metrics_path": METRICS_PATH,
        "models": SERVABLES,
        "newest": newest,
        "server_memory": SERVER_MEMORY,
        "stable": face.labels.get("stable", newest) if face else newest,
        "user": USER,
        "version": release,
        "wheel": f"emotion_ai-{release}-py3-none-any.whl",
    }
    templates = _environment()
    texts = {name: templates.get_template(name).render(values) for name in RENDERED}
    documents = {"dashboard.json": dashboard(), "openapi.json": openapi()}
    return texts | {name: json.dumps(content, indent=2) + "\n" for name, content in documents.items()}


def _environment() -> Environment:
    """Jinja's environment of the templates; a value that a template needs and does not get is an error."""
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"quoted": _quoted, "compose": _in_compose, "dockerfile": _in_dockerfile, "shell": shlex.quote}
    return templates


def _model_bytes(base: Path, inside: str) -> int:
    """Bytes of all versions that `models.config` lists, on disk."""
    path = base / CONFIG_FILE
    if not path.is_file():
        raise ExportError(f"{path}: no such file; publish with: emotion-ai export out={base}")
    total = 0
    for config in (each for each in read_config(base) if each.name in SERVABLES):
        if config.base_path != f"{inside}/{config.name}":
            raise ExportError(f"{path}: names {config.base_path}, not {inside}/{config.name}; give the other target=")
        model = base / config.name
        for number in config.versions or list_versions(model)[-1:]:
            total += sum(file.stat().st_size for file in (model / str(number)).rglob("*") if file.is_file())
    return total


def _mebibytes(count: int) -> int:
    return -(-count // 2**20)


def _quoted(text: Any) -> str:
    """A double-quoted scalar of YAML."""
    return json.dumps(text, ensure_ascii=False)


def _in_compose(text: str) -> str:
    """A text in which Compose expands no variables."""
    return text.replace("$", "$$")


def _in_dockerfile(text: str) -> str:
    """A text in which a Dockerfile expands and unquotes nothing."""
    return re.sub(r"([\\$\"'])", r"\\\1", text)
