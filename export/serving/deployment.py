"""The folder `deployment/` beside the models: batching, monitoring, Compose, Kubernetes, and a README."""

import json
import shlex
from pathlib import Path
from string import Template

from emotion_ai.contract import SERVABLES
from emotion_ai.errors import ExportError
from emotion_ai.files import write_text
from emotion_ai.published import CONFIG_FILE, list_versions
from emotion_ai_export.registry.model_config import read_config
from emotion_ai_export.registry.publish import CONTAINER_BASE, check_target
from emotion_ai_export.registry.warmup import BATCHES
from emotion_ai_export.serving.engines import IMAGE

FOLDER = "deployment"
FILES = ("batching_parameters.txt", "monitoring.config", "compose.yaml", "kubernetes.yaml", "README.md")
TEMPLATES = Path(__file__).with_name("templates")
METRICS_PATH = "/monitoring/prometheus/metrics"
SERVER_MEMORY = 2048  # MiB besides the models; the embedded server takes 1.2 GiB with one version, 1.6 with two
MEMORY_STEP = 128  # MiB
USER = 65532  # no user of the host; the models must be readable by everyone

# The image has bash, but neither curl nor wget. The HTTP status is 200 in any state, so the body is searched.
_PROBE = r"""for model in $models; do
  exec 3<>/dev/tcp/127.0.0.1/8501 || exit 1
  printf 'GET /v1/models/%s HTTP/1.0\r\n\r\n' "$$model" >&3
  grep -q '"state": "AVAILABLE"' <&3 || exit 1
done"""


def write_deployment(base: Path, target: str) -> list[Path]:
    """Rewrites `deployment/` beside the models; the same models give the same bytes.

    Args:
        base: the published folder, with its `models.config`.
        target: the one that `models.config` was written for: "host" for absolute paths, which a container sees under
            the same names, "container" for paths below /models.

    Raises:
        ExportError: unknown target, `models.config` missing or written for other paths, or a folder that is not
            writable.
    """
    check_target(target)
    folder = base / FOLDER
    values = _values(base, target)
    in_compose = {name: value.replace("$", "$$") for name, value in values.items()}  # Compose expands variables
    texts = {name: _render(name, in_compose if name == "compose.yaml" else values) for name in FILES}
    if folder.is_symlink():
        raise ExportError(f"{folder}: a link, whose target's files would be replaced; remove it")
    try:
        folder.mkdir(exist_ok=True)
        for stale in (path for name in FILES for path in folder.glob(f".{name}.*.partial")):
            stale.unlink(missing_ok=True)  # of a killed export
        for name, text in texts.items():
            write_text(folder / name, text, sync=True)
    except OSError as error:
        raise ExportError(f"{folder}: not writable ({error.strerror}); make room for it and try again") from error
    return [folder / name for name in texts]


def _values(base: Path, target: str) -> dict[str, str]:
    inside = CONTAINER_BASE if target == "container" else str(base.resolve())
    models = _mebibytes(_model_bytes(base, inside))
    memory = -(-(SERVER_MEMORY + 2 * models) // MEMORY_STEP) * MEMORY_STEP
    flags = [
        "--port=8500",
        "--rest_api_port=8501",
        f"--model_config_file={inside}/{CONFIG_FILE}",
        "--model_config_file_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models=true",
        f"--monitoring_config_file={inside}/{FOLDER}/monitoring.config",
        "--num_load_threads=1",
        "--enable_grpc_healthcheck_service=true",
        "--enable_profiler=false",
    ]
    batching = ["--enable_batching=true", f"--batching_parameters_file={inside}/{FOLDER}/batching_parameters.txt"]
    return {
        "allowed_batch_sizes": "\n".join(f"allowed_batch_sizes: {size}" for size in BATCHES),
        "batch_sizes": ", ".join(map(str, BATCHES)),
        "batching_flags": shlex.join(batching),
        "batching_flags_off": "\n".join(f"# - {_quoted(flag)}" for flag in batching),
        "command": " \\\n  ".join(["tensorflow_model_server", *map(shlex.quote, flags)]),
        "flags": "\n".join(f"- {_quoted(flag)}" for flag in flags),
        "image": IMAGE,
        "inside": inside,
        "inside_quoted": _quoted(inside),
        "largest_batch": str(BATCHES[-1]),
        "memory": str(memory),
        "metrics_path": METRICS_PATH,
        "model_memory": str(models),
        "probe": Template(_PROBE).substitute(models=" ".join(SERVABLES)),
        "server_memory": str(SERVER_MEMORY),
        "user": str(USER),
    }


def _model_bytes(base: Path, inside: str) -> int:
    """Bytes of all versions that `models.config` lists, on disk."""
    path = base / CONFIG_FILE
    if not path.is_file():
        raise ExportError(f"{path}: no such file; publish with: emotion-ai export out={base}")
    total = 0
    for config in read_config(base):
        if config.base_path != f"{inside}/{config.name}":
            raise ExportError(f"{path}: names {config.base_path}, not {inside}/{config.name}; give the other target=")
        model = base / config.name
        for version in config.versions or list_versions(model)[-1:]:
            total += sum(file.stat().st_size for file in (model / str(version)).rglob("*") if file.is_file())
    return total


def _mebibytes(count: int) -> int:
    return -(-count // 2**20)


def _quoted(text: str) -> str:
    """A double-quoted scalar of YAML."""
    return json.dumps(text, ensure_ascii=False)


def _render(name: str, values: dict[str, str]) -> str:
    """Fills a template; a value of several lines takes the indentation of its placeholder."""
    lines = []
    for line in (TEMPLATES / name).read_text(encoding="utf-8").splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines.append(Template(line).substitute(values).replace("\n", f"\n{indent}"))
    return "\n".join([*lines, ""])
